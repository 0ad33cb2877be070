"""How many invocations that may invoke agents run at once for a tenant: few enough that they cannot wait in a circle.

An invocation keeps its slot in the worker while it waits for a child, which needs a slot of the same worker. With every
slot held by somebody who waits, nobody would go on before their deadlines. A chain of callers holds at most as many
slots as agents may be deep, so with ``slots`` of them there is always one left as long as all chains together need
fewer.
"""

from collections import Counter


class CallerRoom:
    """Call `enter` before such an invocation and, if it let it in, `leave` after it."""

    def __init__(self, *, slots: int, depth_max: int) -> None:
        """``slots`` of one worker, the least that a tenant has; ``depth_max`` of agents below the first."""
        self.most = max(1, (slots - 1) // max(1, depth_max))
        self._inside: Counter[str] = Counter()

    def enter(self, tenant: str) -> bool:
        if self._inside[tenant] >= self.most:
            return False
        self._inside[tenant] += 1
        return True

    def leave(self, tenant: str) -> None:
        self._inside[tenant] -= 1
        if not self._inside[tenant]:
            del self._inside[tenant]
