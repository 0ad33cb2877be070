"""What metrics say of invocations: counted many at a time and off the way of the answers, for that is cheaper."""

import asyncio
from collections import Counter
from typing import Final

from data_plane.agents.invocations import OK, InvocationRecord
from service.telemetry import INVOCATION_FUEL, INVOCATION_SECONDS, INVOCATIONS, Telemetry

SETTLE_S: Final = 0.02
"""Longest that metrics lag behind an invocation."""


class InvocationMetrics:
    """Counts the records it is given, a moment later."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._ended: list[InvocationRecord] = []

    def add(self, record: InvocationRecord) -> None:
        self._ended.append(record)
        if len(self._ended) == 1:
            asyncio.get_running_loop().call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        ended, self._ended = self._ended, []
        outcomes, fuel = Counter[tuple[str, str]](), Counter[str]()
        for record in ended:
            template, usage = record.template, record.usage
            outcomes[template, "" if record.outcome == OK else record.outcome] += 1
            fuel[template] += usage.fuel
            self._telemetry.observe(INVOCATION_SECONDS, usage.wall_us / 1e6, template)
        for labels, invocations in outcomes.items():
            self._telemetry.count(INVOCATIONS, *labels, amount=invocations)
        for template, used in fuel.items():
            self._telemetry.count(INVOCATION_FUEL, template, amount=used)
