"""Under which limits an invocation runs: of each amount the least that node, tenant, template, agent and caller say.

The rule is `templates.limits.least`. Here it is applied once for each template, tenant and set of an agent's limits, so
that an invocation finds its limits by one look-up; a caller's own, which are rare, come on top.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sandbox.limits import SandboxLimits
from templates.limits import LIMIT_NAMES, Limits, least

KNOWN_MAX: Final = 10_000

Ceilings = Mapping[str, int]
NO_CEILINGS: Final[Ceilings] = {}


class EffectiveLimits:
    """``node`` holds for everybody, ``tenants`` for one tenant each; a missing amount is no ceiling."""

    def __init__(self, *, node: Ceilings = NO_CEILINGS, tenants: Mapping[str, Ceilings] | None = None) -> None:
        """Raise ValueError for a name that is no limit, and for limits that no sandbox can carry out."""
        self._node = node
        self._tenants = tenants or {}
        self._known: dict[tuple[str, str, tuple[tuple[str, int], ...]], SandboxLimits] = {}
        for ceilings in (node, *self._tenants.values()):
            require_names(ceilings)
            SandboxLimits(**{name: min(amount, getattr(SandboxLimits(), name)) for name, amount in ceilings.items()})

    def of(
        self,
        template_sha256: str,
        template: Limits,
        *,
        tenant: str,
        agent: tuple[tuple[str, int], ...] = (),
        caller: Ceilings = NO_CEILINGS,
    ) -> SandboxLimits:
        """Return the least.

        Raises:
            ValueError: an agent or a caller leaves too little to run at all, such as less memory than one page.
        """
        key = (template_sha256, tenant, agent)
        limits = self._known.get(key)
        if limits is None:
            amounts = least(template, self._node, self._tenants.get(tenant, NO_CEILINGS), dict(agent))
            limits = SandboxLimits(**amounts.amounts())
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = limits
        if not caller:
            return limits
        return replace(limits, **{name: min(amount, getattr(limits, name)) for name, amount in caller.items()})


def require_names(ceilings: Ceilings) -> None:
    """Raise ValueError for a name that is no limit."""
    for name in ceilings:
        if name not in LIMIT_NAMES:
            raise ValueError(f"expected one of {', '.join(LIMIT_NAMES)}, got {name!r}")
