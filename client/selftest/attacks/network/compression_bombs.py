"""Answers of kilobytes that become sixty-four megabytes, once and twice compressed.

Source: CWE-409. Expected: a typed refusal at the limit of decompressed bytes.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for path in ("/free/bomb", "/free/bomb-in-bomb"):
        await require_refused(stage, path, ["quota", "failed"])


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
