"""Answers with two lengths, a length and chunks, fifty thousand headers, or another protocol altogether.

Source: CWE-444. Expected: failed or quota each time, with a printable message.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, ask, requester
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for path in ("/free/two-lengths", "/free/chunked-and-length", "/free/huge-head", "/free/not-http"):
        found = await ask(stage, path)
        stage.require(found["kind"] in {"failed", "quota"}, f"expected a refusal of {path}, got {str(found)[:200]}")
        stage.require(found["message"].isprintable(), f"expected a printable message, got {found['message']!r}")


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
