"""Two hundred connections that say nothing, or begin a handshake and stop.

Source: CWE-400 (slow loris). Expected: others connect and are served meanwhile.
"""

import asyncio
import contextlib

from client.selftest.attack import Answers, Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import Stage
from client.selftest.world import AUTHOR

_HELLO = bytes.fromhex("16030100c8010000c40303")  # the beginning of a ClientHello, whose rest never comes


async def _run(stage: Stage) -> None:
    host, _, port = stage.node.address.rpartition(":")
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            if number % 2:
                writer.write(_HELLO)
        Answers(AUTHOR).check(await stage.invoke(text=AUTHOR, tenant="late-comer"))


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
