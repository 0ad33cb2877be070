"""How long the node needs to refuse another tenant's agent and invocation, and ones that nobody has.

Source: CWE-208. Expected: no difference that a caller can measure: over many calls, taken in turn, less than a fifth of
a call. It is measured again before it counts.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import OTHER, Stage

_CALLS: Final = 60
_MEASURED_MAX: Final = 5
_DIFFERENCE_MAX: Final = 0.2


async def _run(stage: Stage) -> None:
    theirs = await stage.factory(OTHER).create_agent(stage.case.template("guest"))
    invoked = (await stage.invoke(text="theirs", tenant=OTHER)).invocation_id
    factory = stage.factory()
    no_agent = theirs.name[:-1] + ("y" if theirs.name[-1] != "y" else "z")
    nobodys = invoked[:-1] + ("0" if invoked[-1] != "0" else "1")
    pairs: tuple[tuple[Callable[[str], Awaitable[Any]], str, str], ...] = (
        (factory.get_agent, theirs.name, no_agent),
        (lambda name: factory.invoke(name, "text"), theirs.name, no_agent),
        (factory.get_invocation, invoked, nobodys),
    )
    try:
        for call, exists, absent in pairs:
            await _require_no_difference(stage, call, exists, absent)
    finally:
        await theirs.delete()


async def _require_no_difference(stage: Stage, call: Callable[[str], Awaitable[Any]], exists: str, absent: str) -> None:
    middle: dict[str, float] = {}
    for _ in range(_MEASURED_MAX):
        took: dict[str, list[float]] = {exists: [], absent: []}
        for number in range(2 * _CALLS):
            name = (exists, absent)[number % 2]
            started = time.perf_counter()
            seen = await stage.attempt(lambda: call(name))  # noqa: B023 - awaited here
            took[name].append(time.perf_counter() - started)
            stage.require(seen.reason != "OK", f"expected a refusal, got {seen}")
        middle = {name: statistics.median(each) for name, each in took.items()}
        difference = abs(middle[exists] - middle[absent]) / min(middle.values())
        if difference < _DIFFERENCE_MAX:
            return
    stage.require(False, f"expected calls that take as long for what exists as for what does not, got {middle}")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
