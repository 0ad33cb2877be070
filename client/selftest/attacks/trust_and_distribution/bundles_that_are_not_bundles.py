"""Archives that are empty, cut, doubled, or name files outside of their places.

Source: CWE-22 (zip slip), CWE-130. Expected: BUNDLE_INVALID for each.
"""

import struct

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


def _archive(name: bytes) -> bytes:
    return b"AFB1" + struct.pack(">I", 1) + struct.pack(">I", len(name)) + name + struct.pack(">I", 1) + b"x"


async def _run(stage: Stage) -> None:
    small = forge(stage)
    whole = small.first.bundle().to_bytes()
    for data in (
        b"",
        whole[: len(whole) // 2],
        whole + b"x",
        _archive(b"targets/../../../etc/passwd"),
        b"AFB1" + b"\xff" * 64,
    ):
        await small.refused(data, "BUNDLE_INVALID")


ATTACK = Attack(run=_run)
