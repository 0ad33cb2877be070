"""A worker without its jail, to measure what the jail costs. Only benches start it, on their own guests."""

from collections.abc import Sequence

from sandbox import process, worker


def unconfined(limits: process.ProcessLimits, *, launched: str, role: process.Role) -> process.Confinement:
    del limits, launched, role
    return process.Confinement(level="rlimits-only", descriptors="/proc/self/fd")


def main(descriptor: int, arguments: Sequence[str]) -> None:
    process.confine = unconfined
    worker.main(descriptor, arguments)
