"""Every attack that ships with the product, against one real node: what `agentctl selftest` runs on an operator's host.

Run by ``make isolation``, one case after the other: the neighbours of an attack are timed, so nothing else may run.
"""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from client.selftest import deaths
from client.selftest.attack import Attack, AttackClass, Case, Guest, fails, once
from client.selftest.catalogue import all_cases
from client.selftest.guests import ECHO
from client.selftest.runner import Runner
from client.selftest.stage import Stage
from client.selftest.suite import started

CASES = all_cases()


async def _leak(stage: Stage) -> None:
    await stage.invoke(text=f"found: {stage.node.canary}")  # as if a guest had read the node's environment


async def _die(stage: Stage) -> None:
    await deaths.die_of(stage, signal.SIGKILL)


WEAK = {
    "an_attack_that_is_not_stopped": (once(Guest(wat=ECHO), expect=fails("FUEL")), "expected FUEL, got an answer"),
    "a_leak": (Attack(guests={"guest": Guest(wat=ECHO)}, run=_leak), "canary of the node's environment"),
    "a_death_that_is_no_attack": (Attack(guests=deaths.GUESTS, run=_die), "a worker died"),
}
"""What a node that is weaker than it should be would show, and how each must be found."""

WEAK_CASES = [
    Case(name=name, attack_class=AttackClass.HOST, text="", attack=attack) for name, (attack, _) in WEAK.items()
]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.attack,
    pytest.mark.toolchain,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    directory: Path = tmp_path_factory.mktemp("selftest")
    async with started([*CASES, *WEAK_CASES], directory=directory) as suite:
        yield Runner(suite)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.attack_class}/{case.name}")
async def test_it_holds(runner: Runner, case: Case) -> None:
    result = await runner.run(case)
    assert result.held, result.detail


@pytest.mark.parametrize("case", WEAK_CASES, ids=lambda case: case.name)
async def test_weakness_is_found(runner: Runner, case: Case) -> None:
    result = await runner.run(case)
    assert not result.held
    assert WEAK[case.name][1] in result.detail
