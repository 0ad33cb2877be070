"""A worker that was taken over and sends operations that do not exist, or that only the node may send.

Source: CWE-20. Expected: that worker is killed, its invocation fails.
"""

import struct

from client.selftest.attack import Attack
from client.selftest.stage import Stage
from client.selftest.taken_over import FINGERPRINT, each_lie_ends_the_worker
from sandbox.frames import Op, Ready, frame, pack_ready

_HEADER = struct.Struct("<IB3xQ")


async def _run(stage: Stage) -> None:
    await each_lie_ends_the_worker(
        stage,
        {
            "an unknown one": lambda number: _HEADER.pack(0, 99, number),
            "one of the node": lambda number: frame(Op.START, number),
            "ready again, and stronger": lambda _: frame(Op.READY, 0, pack_ready(Ready("full", FINGERPRINT))),
            "loaded for nothing": lambda number: frame(Op.LOADED, number),
            "its own failure": lambda _: frame(Op.FAILED, 0, b"ValueError: \x1b[31m"),
        },
    )


ATTACK = Attack(run=_run)
