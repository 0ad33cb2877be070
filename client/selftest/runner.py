"""Runs attacks one after the other and says what held.

For each: carry it out while neighbours invoke ordinary agents; then the node must serve, no worker may have died, its
log must be clean, no canary may have been seen, and the neighbours must have got their answers in time. Only the last
is a measurement: on a machine that does other things it is repeated before it counts, with what the neighbours need
without an attack measured anew. Noise makes calls slower, never faster, so one good round is enough.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

from client.selftest.attack import AttackClass, BreachError, Case, Timed
from client.selftest.neighbours import Measured
from client.selftest.stage import ATTACKER, Stage

RATIO_MAX: Final = 2.0
FLOOR_MS: Final = 50.0
"""A neighbour's p99 may be this much over its own before: it is the slowest of a handful of calls beside a short one,
and a few time slices of other processes are not the attack's. The ratio itself is measured by ``make bench``.
"""
ROUNDS_MAX: Final = 6
PAUSE_S: Final = 0.25
"""Before the second round, and twice as long before each further one: what else the machine does may end meanwhile."""
QUIET_S: Final = 0.5
CASE_TIMEOUT_S: Final = 240.0
_DETAIL_CHARACTERS_MAX: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one attack; ``detail`` is empty when nothing is to be said."""

    name: str
    attack_class: str
    held: bool
    detail: str = ""

    def to_json(self) -> dict[str, str | bool]:
        """``{"name", "class", "held", "detail"}``."""
        found = asdict(self)
        return {"name": self.name, "class": found.pop("attack_class"), "held": self.held, "detail": self.detail}


class House(Protocol):
    """Where attacks take place: the real node of `client.selftest.suite`, and the fake of the runner's tests."""

    def stage(self, case: Case) -> Stage:
        """Return what the case is given."""
        ...

    async def start_neighbours(self) -> None:
        """Let the neighbours begin."""
        ...

    async def stop_neighbours(self) -> Measured:
        """Return what the neighbours saw since."""
        ...

    async def ailments(self, case: Case) -> Sequence[str]:
        """Return what is wrong with the node, or was logged, since the last call."""
        ...


class Runner:
    """Runs cases in one house. Not for two at a time. ``sleep`` is how it lets time pass."""

    def __init__(self, house: House, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._house = house
        self._sleep = sleep
        self._usual: dict[str, float] = {}

    async def run(self, case: Case) -> Result:
        """Carry out one attack, again if only the neighbours' times speak against it."""
        late: list[str] = []
        for number in range(ROUNDS_MAX):
            if number:
                await self._sleep(PAUSE_S * 2 ** (number - 1))
            if not self._usual:
                self._usual = await self._quiet()
            problems, measured = await self._round(case)
            if problems:
                return _result(case, problems)
            late = self._late(case, measured)
            if late:  # what else the machine does may have begun meanwhile: then it is there without the attack too
                after = await self._quiet()
                self._usual = {tenant: max(p99, after[tenant]) for tenant, p99 in self._usual.items()}
                late = self._late(case, measured)
                self._usual = after
            if not late:
                return _result(case, [])
        return _result(case, late)

    async def _quiet(self) -> dict[str, float]:
        """Return what the neighbours need while nobody attacks: p99 in milliseconds, by tenant."""
        await self._house.start_neighbours()
        await self._sleep(QUIET_S)
        return {tenant: beside.p99_ms for tenant, beside in (await self._house.stop_neighbours()).items()}

    async def _round(self, case: Case) -> tuple[list[str], Measured]:
        """Return what did not hold, and what the neighbours saw."""
        stage = self._house.stage(case)
        await self._house.start_neighbours()
        problems = await _carried_out(case, stage)
        measured = await self._house.stop_neighbours()
        problems += [f"the attacker saw the canary of {place}" for place in stage.leaks()]
        problems += await self._house.ailments(case)
        problems += [f"neighbour of {tenant}: {each}" for tenant, one in measured.items() for each in one.problems[:2]]
        return problems, measured

    def _late(self, case: Case, measured: Measured) -> list[str]:
        late = []
        for tenant, beside in measured.items():
            if case.timed is Timed.NOBODY or (case.timed is Timed.OTHER_TENANTS and tenant == ATTACKER):
                continue
            usual = self._usual[tenant]
            bound = max(RATIO_MAX * usual, usual + FLOOR_MS)
            if beside.p99_ms > bound:
                late.append(
                    f"neighbour of {tenant}: p99 {beside.p99_ms:.1f} ms of {len(beside.milliseconds)} calls, "
                    f"at most {bound:.1f} ms allowed ({usual:.1f} ms without the attack), in {ROUNDS_MAX} rounds"
                )
        return late


async def _carried_out(case: Case, stage: Stage) -> list[str]:
    try:
        async with asyncio.timeout(CASE_TIMEOUT_S):
            await case.attack.carry_out(stage)
    except BreachError as breach:
        return [str(breach)]
    except TimeoutError:
        return [f"expected an end within {CASE_TIMEOUT_S:.0f} s, got none"]
    except Exception as error:  # noqa: BLE001 - a case that cannot be carried out proves nothing, and says so
        return [f"the case itself failed: {type(error).__name__}: {error}"]
    return []


def _result(case: Case, problems: Sequence[str]) -> Result:
    detail = "; ".join(problems)
    if len(detail) > _DETAIL_CHARACTERS_MAX:
        detail = detail[:_DETAIL_CHARACTERS_MAX] + "…"
    return Result(name=case.name, attack_class=str(case.attack_class), held=not problems, detail=detail)


def level_result(reached: str, *, demanded: str, levels: Sequence[str]) -> Result:
    """Say which level of isolation was reached, and whether it is at least ``demanded``; ``levels``: weakest first."""
    held = reached in levels and levels.index(reached) >= levels.index(demanded)
    detail = reached if held else f"expected at least {demanded}, got {reached or 'none'}"
    return Result(name="isolation_level", attack_class=str(AttackClass.HOST), held=held, detail=detail)
