"""The node's pages of metrics and readiness, which need no identity on loopback.

Source: CWE-200. Expected: numbers and states; nothing of inputs, outputs, state or environment.
"""

import asyncio
import urllib.request

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import Stage

_INPUT = "an-input-that-nobody-else-may-see"


async def _run(stage: Stage) -> None:
    await stage.invoke(text=_INPUT)

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://{stage.node.observation}{path}", timeout=5) as answer:
            content: bytes = answer.read()
            return content

    for path in ("/metrics", "/readyz", "/healthz"):
        page = await asyncio.to_thread(get, path)
        stage.note(page)
        stage.require(_INPUT.encode() not in page, f"expected no input on {path}")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
