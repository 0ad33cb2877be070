"""Ten guests at their memory limit at the same time.

Source: CWE-770. Expected: MEMORY for each; the pools hold them all and give the memory back.
"""

import asyncio

from client.selftest.attack import Attack, Guest, Timed, fails
from client.selftest.guests import command
from client.selftest.stage import Stage

_BODY = (
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"
    "(loop $touch (i32.store (local.get 0) (i32.const 1)) (local.set 0 (i32.add (local.get 0) (i32.const 4096)))"
    " (br_if $touch (i32.lt_u (local.get 0) (i32.const 16000000)))) unreachable"
)


async def _run(stage: Stage) -> None:
    for seen in await asyncio.gather(*(stage.invoke() for _ in range(10))):
        fails("MEMORY").check(seen)


ATTACK = Attack(guests={"guest": Guest(wat=command(f"(local i32) {_BODY}"))}, run=_run, timed=Timed.OTHER_TENANTS)
