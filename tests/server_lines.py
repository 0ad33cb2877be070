"""What a server wrote about a call, for tests that look for it."""

import time
from collections.abc import Sequence
from typing import Any


def logged(lines: Sequence[dict[str, Any]], *, reason: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """Wait for the server's line about that call: it is written after the answer."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        for line in list(lines):
            if line.get("reason") == reason:
                return line
        time.sleep(0.02)
    raise RuntimeError(f"expected a line with the reason {reason}, got {lines[-5:]}")
