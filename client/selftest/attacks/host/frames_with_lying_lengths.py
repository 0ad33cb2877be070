"""A worker that was taken over and sends frames that are longer than they may be, or than they are.

Source: CWE-130. Expected: that worker is killed, its invocation fails, nothing is allocated for the claim.
"""

import struct

from client.selftest.attack import Attack
from client.selftest.stage import Stage
from client.selftest.taken_over import each_lie_ends_the_worker
from sandbox.frames import Op, frame, pack_call

_HEADER = struct.Struct("<IB3xQ")


async def _run(stage: Stage) -> None:
    await each_lie_ends_the_worker(
        stage,
        {
            "4 GiB": lambda _: _HEADER.pack(0xFFFFFFFF, Op.DONE, 1),
            "over the cap of the operation": lambda number: _HEADER.pack(1, Op.LOADED, number) + b"x",
            "names longer than the frame": lambda number: frame(Op.CALL, number, b"\xff\xff"),
            "an argument over the limit": lambda number: pack_call(
                number, "kv", "get", b"x" * ((1 << 20) + 1), fuel_used=0
            ),
            "an end that does not parse": lambda number: frame(Op.DONE, number, b"\xff" * 20),
        },
    )


ATTACK = Attack(run=_run)
