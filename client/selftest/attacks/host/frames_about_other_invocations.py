"""A worker that was taken over and answers, calls and ends for invocations that are not its own.

Source: CWE-639. Expected: that worker is killed; nothing it said of others is believed.
"""

from client.selftest.attack import Attack
from client.selftest.stage import Stage
from client.selftest.taken_over import done, each_lie_ends_the_worker
from sandbox.frames import pack_call


async def _run(stage: Stage) -> None:
    await each_lie_ends_the_worker(
        stage,
        {
            "the end of a stranger": lambda number: done(number + 1),
            "the end twice": lambda number: done(number) * 2,
            "a call of a stranger": lambda number: pack_call(number + 7, "kv", "get", b"", fuel_used=0),
            "two calls at once": lambda number: pack_call(number, "kv", "get", b"", fuel_used=0) * 2,
            "a call of the largest number": lambda _: pack_call((1 << 64) - 1, "kv", "get", b"", fuel_used=0),
        },
    )


ATTACK = Attack(run=_run)
