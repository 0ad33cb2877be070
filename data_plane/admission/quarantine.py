"""Which templates may not run for a while because workers keep dying under them.

A dead worker does not say who killed it, so its death is charged in equal parts to the templates that ran in it, for
its tenant alone: a tenant cannot take a template away from another. A template whose charge reaches the threshold
within the window is refused for a pause that doubles each time, and then gets one more chance per threshold.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSettings:
    crashes: float = 3.0
    window_s: float = 60.0
    pause_s_first: float = 10.0
    pause_s_max: float = 3600.0
    forgiven_after_s: float = 3600.0


@dataclass(slots=True)
class _Record:
    charge: float = 0.0
    charged_at: float = 0.0
    until: float = 0.0
    times: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A template that is refused for a tenant, for ``remaining_s`` more, for the ``times``-th time."""

    tenant: str
    template: str
    remaining_s: float
    times: int


class Quarantine:
    """Keyed by (tenant, digest of the resolved template). Times are monotonic seconds."""

    def __init__(self, settings: QuarantineSettings) -> None:
        self._settings = settings
        self._records: dict[tuple[str, str], _Record] = {}

    def worker_died(self, tenant: str, templates: Iterable[str], *, now: float) -> tuple[str, ...]:
        """Charge the templates that were running; return those that are quarantined from now on."""
        suspects = frozenset(templates)
        self._forgive(now)
        quarantined = []
        for digest in sorted(suspects):
            record = self._records.setdefault((tenant, digest), _Record())
            if now - record.charged_at > self._settings.window_s:
                record.charge = 0.0
            record.charge += 1 / len(suspects)
            record.charged_at = now
            if record.charge >= self._settings.crashes:
                pause_s = min(self._settings.pause_s_first * 2**record.times, self._settings.pause_s_max)
                record.until = now + pause_s
                record.times = min(record.times + 1, 32)
                record.charge = 0.0
                quarantined.append(digest)
        return tuple(quarantined)

    def remaining_s(self, tenant: str, template: str, *, now: float) -> float:
        """Return for how long ``template`` stays refused; 0.0 when it may run."""
        if not self._records:
            return 0.0
        record = self._records.get((tenant, template))
        return 0.0 if record is None else max(0.0, record.until - now)

    def held(self, *, now: float) -> tuple[Held, ...]:
        """Return what is refused now, by tenant and digest."""
        return tuple(
            Held(tenant, template, record.until - now, record.times)
            for (tenant, template), record in sorted(self._records.items())
            if record.until > now
        )

    def release(self, *, tenant: str, templates: Iterable[str] | None, now: float) -> int:
        """Let templates run again and forget what was charged; return how many were refused until now.

        An empty ``tenant`` means every one, None for every template: an operator knows better than a pause.
        """
        wanted = None if templates is None else frozenset(templates)
        found = [key for key in self._records if tenant in {"", key[0]} and (wanted is None or key[1] in wanted)]
        return sum(self._records.pop(key).until > now for key in found)

    def _forgive(self, now: float) -> None:
        old = [
            key
            for key, record in self._records.items()
            if now - max(record.charged_at, record.until) > self._settings.forgiven_after_s
        ]
        for key in old:
            del self._records[key]
