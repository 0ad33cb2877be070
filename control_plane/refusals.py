"""Floods of one refusal are counted, not written one by one: the first is written, then one entry for each window.

A refusal is the same as another when principal (or address, without one), action and code are the same. Pure: `now`
is an argument.

State     Fact                                   Next      Result
-         refused                                COUNTING  the caller writes it
COUNTING  refused within the window              COUNTING  counted
COUNTING  the window is over, nothing counted    -         -
COUNTING  the window is over, some counted       COUNTING  one summary; a new window begins
COUNTING  too many kinds at a time               -         its summary, if any: the oldest makes room
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.audit import Call, Decision

KINDS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes two refusals one."""

    who: str
    action: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """``count`` further refusals since ``since``, the newest of which was ``decision`` of ``call``."""

    call: Call
    decision: Decision
    count: int
    since: datetime


@dataclass(slots=True)
class _Window:
    ends: datetime
    count: int = 0
    since: datetime | None = None
    newest: tuple[Call, Decision] | None = None


@dataclass(slots=True, kw_only=True)
class Refusals:
    """Feed it every refusal; ask `due` from time to time."""

    window: timedelta
    kinds_max: int = KINDS_MAX
    _open: dict[Kind, _Window] = field(default_factory=dict)

    def refused(self, call: Call, decision: Decision, *, now: datetime) -> tuple[bool, list[Summary]]:
        """Take one refusal; return whether to write it, and summaries that are due because of it."""
        kind = Kind(call.principal or call.address, decision.action or call.action, decision.code)
        known = self._open.get(kind)
        summaries: list[Summary] = []
        if known is not None and now >= known.ends:
            summaries = self._close(kind)
            known = None
            if summaries:  # the flood goes on
                known = self._open[kind] = _Window(now + self.window)
        if known is not None:
            known.count += 1
            known.since = known.since or now
            known.newest = (call, decision)
            return False, summaries
        if len(self._open) >= self.kinds_max:
            summaries += self._close(next(iter(self._open)))
        self._open[kind] = _Window(now + self.window)
        return True, summaries

    def due(self, *, now: datetime) -> list[Summary]:
        """Return summaries of windows that are over; a flood that goes on is counted in a new window."""
        summaries: list[Summary] = []
        for kind in [kind for kind, window in self._open.items() if window.ends <= now]:
            closed = self._close(kind)
            summaries += closed
            if closed:
                self._open[kind] = _Window(now + self.window)
        return summaries

    def close(self) -> list[Summary]:
        """Return what was counted and not written yet: the process is about to end."""
        return [summary for kind in list(self._open) for summary in self._close(kind)]

    def _close(self, kind: Kind) -> list[Summary]:
        window = self._open.pop(kind)
        if window.newest is None or window.since is None:
            return []
        call, decision = window.newest
        return [Summary(call=call, decision=decision, count=window.count, since=window.since)]
