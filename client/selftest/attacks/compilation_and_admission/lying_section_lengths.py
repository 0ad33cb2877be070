"""Sections and vectors that claim more than there is, in numbers of every width.

Source: CWE-130, CVE-2023-41880. Expected: MODULE_INVALID; nothing is allocated for the claim.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import PREAMBLE, refused
from client.selftest.stage import Stage

_LIES = (
    b"\x01\xff\xff\xff\xff\x0f", b"\x01\x05\xff\xff\xff\xff\x0f", b"\x03\x06\xff\xff\xff\xff\x0f\x00",
    b"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", b"\x00\x05\xff\xff\xff\xff\x0f",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for lie in _LIES:
        await refused(stage, PREAMBLE + lie, "MODULE_INVALID")


ATTACK = Attack(run=_run)
