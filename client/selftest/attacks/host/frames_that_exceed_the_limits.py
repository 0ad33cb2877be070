"""A worker that was taken over and claims more output, log, fuel or host calls than the invocation was given.

Source: CWE-345. Expected: that worker is killed; its claim is in no receipt.
"""

from client.selftest.attack import Attack
from client.selftest.stage import Stage
from client.selftest.taken_over import LIMITS, done, each_lie_ends_the_worker
from sandbox.frames import pack_done
from sandbox.outcome import LogLine, Usage


async def _run(stage: Stage) -> None:
    await each_lie_ends_the_worker(
        stage,
        {
            "output": lambda number: done(number, b"x" * (LIMITS.output_bytes + 1)),
            "fuel": lambda number: pack_done(number, b"", None, Usage(fuel=1 << 63), [], logs_cut=False),
            "host calls": lambda number: pack_done(number, b"", None, Usage(host_calls=1 << 30), [], logs_cut=False),
            "log lines": lambda number: done(number, b"", (LogLine("info", "", 0),) * 1_000),
            "log bytes": lambda number: done(number, b"", (LogLine("info", "x" * 100_000, 0),)),
            "a level that does not exist": lambda number: done(number, b"", (LogLine("\x1b[2J", "", 0),)),
        },
    )


ATTACK = Attack(run=_run)
