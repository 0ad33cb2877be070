"""Python agents that take too much memory, randomness or handles, or look for what others left."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker
from tests.isolation.python_agents import answer, is_healthy, python_worker, run

pytestmark = [pytest.mark.toolchain, pytest.mark.asyncio(loop_scope="module")]

CANARY = "canary-7f3a91c2"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    async with python_worker() as started:
        yield started


@pytest.mark.parametrize(
    "body",
    [
        "kept = []\n    while True: kept.append(bytearray(1 << 20))",
        "return 'x' * (1 << 30)",
        "return str(len(bytearray((1 << 31) - 1)))",
        "kept = []\n    while True: kept.append((kept, {}))",
    ],
)
async def test_an_allocation_bomb_is_a_memory_failure(worker: Worker, body: str) -> None:
    outcome = await run(worker, f"def process(text):\n    {body}", fuel=10**12, wall_ms=60_000, memory_bytes=64 << 20)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.MEMORY
    assert await is_healthy(worker)


async def test_an_allocation_bomb_while_loading_is_a_memory_failure(worker: Worker) -> None:
    outcome = await run(worker, "kept = [bytearray(1 << 20) for _ in range(10_000)]", memory_bytes=64 << 20)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.MEMORY


async def test_a_limit_below_the_images_own_memory_is_a_memory_failure(worker: Worker) -> None:
    outcome = await run(worker, "def process(text): return text", memory_bytes=1 << 20)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.MEMORY
    assert await is_healthy(worker)


@pytest.mark.parametrize("body", ["os.urandom(1 << 30)", "while True: os.urandom(60_000)"])
async def test_gigabytes_of_randomness_are_refused(worker: Worker, body: str) -> None:
    outcome = await run(worker, f"import os\ndef process(text):\n    {body}", fuel=10**12, wall_ms=60_000)
    assert outcome.failure is not None
    assert outcome.failure.kind in {FailureKind.HOST_CALLS, FailureKind.MEMORY}
    assert await is_healthy(worker)


async def test_randomness_differs_between_invocations(worker: Worker) -> None:
    source = """
        import os, random, uuid
        def process(text): return [random.random(), os.urandom(8).hex(), str(uuid.uuid4())]
        """
    first, second = answer(await run(worker, source)), answer(await run(worker, source))
    assert all(one != other for one, other in zip(first, second, strict=True))


async def test_a_module_keeps_nothing_for_the_next_invocation(worker: Worker) -> None:
    source = """
        import builtins, json, sys
        seen = getattr(json, "kept", None) or getattr(builtins, "kept", None)
        def process(text):
            json.kept = builtins.kept = text
            sys.modules["kept"] = text
            return str(seen)
        """
    for _ in range(5):
        assert (await run(worker, source, CANARY)).output == b"None"
