"""A worker without its jail, to measure what the jail costs. Only benches start it, on their own guests."""

from collections.abc import Sequence

from sandbox import jail, worker


def unconfined(limits: jail.ProcessLimits, *, launched: str, role: jail.Role) -> jail.Confinement:
    del limits, launched, role
    return jail.Confinement(level="rlimits-only", descriptors="/proc/self/fd")


def main(descriptor: int, arguments: Sequence[str]) -> None:
    jail.confine = unconfined
    worker.main(descriptor, arguments)
