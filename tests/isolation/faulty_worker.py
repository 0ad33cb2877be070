"""A real worker whose native code goes wrong by itself: when it is told to cancel an invocation, it crashes."""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Final

from sandbox import worker
from sandbox.frames import Op

libc = ctypes.CDLL(None)
FAULTS: Final[dict[str, Callable[[], object]]] = {
    "SIGSEGV": lambda: ctypes.string_at(1),
    "SIGABRT": libc.abort,
    "SIGSYS": os.fork,
}


class Faulty(worker.Server):
    """Crashes at CANCEL."""

    fault = ""

    def _apply(self, op: int, number: int, payload: bytes) -> None:
        if op == Op.CANCEL:
            FAULTS[self.fault]()
        super()._apply(op, number, payload)


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """``arguments``: the launcher's, the fault, and a worker's."""
    launched, Faulty.fault, *rest = arguments
    worker.Server = Faulty  # type: ignore[misc]  # in this process, which is its own
    worker.main(descriptor, [launched, *rest])
