"""Deadlines spread over the moments at which host calls are on their way, answered, or being asked.

Source: races between an answer and an end. Expected: DEADLINE each time; nobody is left in flight.
"""

import asyncio

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import KV, command, data
from client.selftest.stage import Stage
from client.values import Limits

_CALL = (
    "(drop (call $call (i32.const 256) (i32.const 6) (i32.const 1024) (i32.const 11) (i32.const 2048) (i32.const 512)))"
)
_WAT = command(f"(loop $again {_CALL} (br $again))", rest=data(256, b"kv.get") + data(1024, b'{"key":"k"}'))


async def _run(stage: Stage) -> None:
    turns = [stage.invoke(limits=Limits(wall_ms=10 + number)) for number in range(24)]
    for seen in await asyncio.gather(*turns):
        fails("DEADLINE").check(seen)


ATTACK = Attack(guests={"guest": Guest(wat=_WAT, grants=KV, limits={"host_calls": 100_000})}, run=_run)
