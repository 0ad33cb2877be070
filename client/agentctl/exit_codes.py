"""What agentctl's exit status says. Documented in docs/agentctl.md; scripts depend on it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    VALIDATION = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    CONFLICT = 6
    UNAVAILABLE = 7
    TRUST = 8
    PARTLY = 9
    WAITING = 10
