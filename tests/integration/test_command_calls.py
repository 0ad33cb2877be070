"""What a command may ask without a grant and without the broker: log, configuration, its name, what is left."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import LIMITS, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings(slots=8))
    yield started
    await started.stop()


async def test_what_is_left_is_told_and_costs_no_host_call(worker: Worker) -> None:
    outcome = await run(worker, guests.ask(b"context.budget", b"{}"), granted=frozenset())
    left = json.loads(outcome.output or b"")["ok"]
    assert 0 < left["fuel"] < LIMITS.fuel
    assert 0 < left["wall_ms"] <= LIMITS.wall_ms
    assert (left["memory_bytes"], left["log_bytes"]) == (LIMITS.memory_bytes, LIMITS.log_bytes)
    assert left["host_calls"] == LIMITS.host_calls
    assert outcome.usage.host_calls == 0


async def test_configuration_and_name_are_json(worker: Worker) -> None:
    config = await run(worker, guests.ask(b"context.config", b""), config=b'{"a": 1}', granted=frozenset())
    assert json.loads(config.output or b"") == {"ok": {"a": 1}}
    name = await run(worker, guests.ask(b"context.invocation_id", b""), granted=frozenset())
    assert json.loads(name.output or b"") == {"ok": ""}


async def test_a_line_has_its_level_and_its_controls_escaped(worker: Worker) -> None:
    request = json.dumps({"level": "warning", "message": "one\x1b[31m\ntwo"}).encode()
    outcome = await run(worker, guests.ask(b"log.log", request), granted=frozenset())
    assert [(line.level, line.message) for line in outcome.logs] == [("warning", "one\\u001b[31m"), ("warning", "two")]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"", b"{}", b"[]", b"\xff", b'{"level":"fatal","message":"x"}', b'{"level":"info","message":7}',
        b'{"level":["info"],"message":"x"}', b"[" * 10_000, b'{"level":"info","message":"' + b"x" * 20_000 + b'"}',
    ],
)  # fmt: skip
async def test_a_line_out_of_shape_is_an_answer_and_not_a_failure(worker: Worker, request_bytes: bytes) -> None:
    outcome = await run(worker, guests.ask(b"log.log", request_bytes), granted=frozenset())
    assert json.loads(outcome.output or b"")["error"]["kind"] == "invalid"
    assert outcome.logs == ()


async def test_everything_else_still_needs_a_grant(worker: Worker) -> None:
    outcome = await run(worker, guests.ask(b"kv.get", b'{"key":"k"}'), granted=frozenset())
    assert json.loads(outcome.output or b"")["error"]["kind"] == "denied"
    assert outcome.usage.host_calls == 1
