"""Fuel that others burn for a guest is the guest's: its limit bounds both together."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sandbox.outcome import FailureKind, Outcome
from sandbox.request import FuelMeter, InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import KV, LIMITS

CALL = b"kv.get", b'{"key":"a"}'
ASKER = guests.ask(*CALL)
LOOPER = guests.ask(*CALL, then="(loop $more (br $more))")
BURNER = guests.ask(
    *CALL,
    then="(local.set $n (i32.const 100000)) (loop $more (local.set $n (i32.sub (local.get $n) (i32.const 1)))"
    " (br_if $more (local.get $n)))",
)


class Costly:
    """Answers each call after others have burned so much for it."""

    def __init__(self, meter: FuelMeter, fuel: int) -> None:
        self.meter, self.fuel = meter, fuel
        self.used_before = -1

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        self.used_before = self.meter.used
        await asyncio.sleep(0)
        self.meter.charged += self.fuel
        return b'{"ok":null}'


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = await Worker.start(WorkerSettings(slots=4))
    yield made
    await made.stop()


async def run(worker: Worker, text: str, *, fuel: int, charged: int) -> tuple[Outcome, Costly]:
    await worker.load(text, guests.compiled(text))
    meter = FuelMeter()
    limits = replace(LIMITS, fuel=fuel, wall_ms=60_000)
    request = InvocationRequest(code_id=text, abi="command", limits=limits, granted=KV, meter=meter)
    host = Costly(meter, charged)
    return await worker.invoke(request, host), host


def kind_of(outcome: Outcome) -> FailureKind | None:
    return None if outcome.failure is None else outcome.failure.kind


async def test_what_was_charged_is_not_counted_as_its_own(worker: Worker) -> None:
    free, _ = await run(worker, BURNER, fuel=10_000_000, charged=0)
    costly, host = await run(worker, BURNER, fuel=10_000_000, charged=1_000_000)
    assert free.output == costly.output == b'{"ok":null}'
    assert costly.usage.fuel == free.usage.fuel > 100_000
    assert 0 < host.used_before < 1_000


async def test_a_guest_whose_children_burned_its_fuel_runs_out_of_it(worker: Worker) -> None:
    whole, _ = await run(worker, BURNER, fuel=10_000_000, charged=0)
    spare = 10_000_000 - whole.usage.fuel
    enough, _ = await run(worker, BURNER, fuel=10_000_000, charged=spare - 10)
    assert enough.output == b'{"ok":null}'
    short, _ = await run(worker, BURNER, fuel=10_000_000, charged=spare + 10)
    assert kind_of(short) is FailureKind.FUEL
    assert short.usage.fuel <= whole.usage.fuel


@pytest.mark.parametrize("charged", [10_000_000, 1 << 62])
async def test_more_than_it_has_left_ends_it_when_it_goes_on(worker: Worker, charged: int) -> None:
    outcome, _ = await run(worker, LOOPER, fuel=10_000_000, charged=charged)
    assert kind_of(outcome) is FailureKind.FUEL
    assert outcome.usage.fuel < 100_000


async def test_a_charged_guest_is_still_interrupted(worker: Worker) -> None:
    looping = asyncio.ensure_future(run(worker, LOOPER, fuel=2_000_000_000, charged=1_000_000_000))
    await asyncio.sleep(0.05)
    beside, _ = await run(worker, ASKER, fuel=1_000_000, charged=0)
    assert beside.output == b'{"ok":null}'
    assert not looping.done()
    outcome, _ = await looping
    assert kind_of(outcome) is FailureKind.FUEL


async def test_a_request_without_a_meter_may_be_sent_again(worker: Worker) -> None:
    await worker.load(BURNER, guests.compiled(BURNER))
    request = InvocationRequest(code_id=BURNER, abi="command", limits=LIMITS, granted=KV)
    outcomes = await asyncio.gather(*(worker.invoke(request, guests.Echoing()) for _ in range(3)))
    assert {outcome.output for outcome in outcomes} == {b'{"ok":{"key":"a"}}'}
