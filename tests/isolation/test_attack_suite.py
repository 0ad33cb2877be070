"""Every attack that ships with the product, against one real node: what `agentctl selftest` runs on an operator's host.

Run by ``make isolation``, one case after the other: the neighbours of an attack are timed, so nothing else may run.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from client.selftest.attack import Case
from client.selftest.catalogue import all_cases
from client.selftest.runner import Runner
from client.selftest.suite import started

CASES = all_cases()

pytestmark = [pytest.mark.attack, pytest.mark.toolchain, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    directory: Path = tmp_path_factory.mktemp("selftest")
    async with started(CASES, directory=directory) as suite:
        yield Runner(suite)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.attack_class}/{case.name}")
async def test_it_holds(runner: Runner, case: Case) -> None:
    result = await runner.run(case)
    assert result.held, result.detail
