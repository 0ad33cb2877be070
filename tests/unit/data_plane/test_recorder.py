"""What a node keeps of an invocation that asks to be recorded, and when it refuses to."""

import asyncio
import json
from contextlib import ExitStack

import pytest

from data_plane.agents.access import RecordingAccess
from data_plane.agents.refusals import ConcurrencyExhaustedError, RecordingNotAllowedError, RecordingTooLargeError
from data_plane.invoker import InvocationFailedError
from data_plane.recorder import AT_ONCE_MAX
from sandbox.nature import RecordOrder, Verdict
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.recording import CUT_CALLS, CUT_LOGS, CUT_OUTPUT, CUT_TAPE, RecordedLine, Recording, read
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls
from service.telemetry import RECORDING_BYTES, RECORDINGS
from templates.grants import Grants, KvGrant
from templates.names import TemplateName, TemplatePattern
from templates.schemas import compile_schema
from tests.unit.data_plane.fake_worker import Behaviour, FakeWorker
from tests.unit.data_plane.test_invoker import World, ends_with, template_of, world

__all__ = ["world"]

KV = Grants(kv=KvGrant(namespace="notes", bytes_max=1_000_000))
TAPE = bytes((Verdict.WHOLE,)) + b"\x04\x08"


def only(world: World) -> Recording:
    (content,) = world.recordings.values()
    return read(content)


def asking(*calls: tuple[str, str, bytes], report: bytes = TAPE) -> Behaviour:
    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        for interface, function, argument in calls:
            await host.call(interface, function, argument)
        return Outcome(b"out", None, Usage(fuel=10, host_calls=len(calls)), report=report)

    return behave


async def test_nothing_is_recorded_that_did_not_ask(world: World) -> None:
    await world.invoker.run(world.call(world.activate()))
    assert world.recordings == {}
    assert world.worker.requests[0].order is None


async def test_a_recording_holds_what_the_guest_was_given_and_what_came_of_it(world: World) -> None:
    template = world.activate(template_of(world.accepted, grants=KV))
    put = json.dumps({"key": "k", "value": "v"}).encode()
    world.behave(asking(("kv", "put", put), ("kv", "get", b'{"key":"k"}'), ("kv", "nonsense", b"{}")))
    answer = await world.invoker.run(world.call(template, "héllo", record=True))
    found = only(world)
    assert found.provenance.invocation_id == answer.record.invocation_id
    assert (found.provenance.tenant, found.provenance.generation, found.provenance.node) == ("acme", 7, "n1")
    assert (found.input.decode(), found.config, found.seed) == ("héllo", template.default_config, b"r" * 32)
    assert (found.module_sha256, found.granted, found.engine) == (template.module_sha256, template.granted, "e" * 64)
    assert found.tape == b"\x04\x08"
    assert [call.name for call in found.calls] == ["kv.put", "kv.get", "kv.nonsense"]
    assert found.calls[0].argument_bytes == len(put)
    assert json.loads(found.calls[1].answer or b"")["ok"]["value"] == "v"
    assert "invalid" in (found.calls[2].answer or b"").decode()
    assert (found.end.kind, found.end.output, found.end.fuel, found.cut) == (None, b"out", 10, frozenset())
    order = world.worker.requests[0].order
    assert isinstance(order, RecordOrder)
    assert order.seed == found.seed


async def test_a_template_that_may_not_be_recorded_is_refused_before_it_runs(world: World) -> None:
    template = world.activate()
    with pytest.raises(RecordingNotAllowedError):
        await world.invoker.run(world.call(template, record=True, tenant="rival"))
    assert world.worker.requests == []
    assert world.invoker.in_flight == world.limit.in_flight == 0


async def test_a_tenant_has_no_more_than_its_share_recorded_at_once(world: World) -> None:
    template = world.activate()
    recorders = world.recorders
    with ExitStack() as held:
        for _ in range(AT_ONCE_MAX):
            held.enter_context(recorders.room(world.call(template)))
        with pytest.raises(ConcurrencyExhaustedError):
            await world.invoker.run(world.call(template, record=True))
        assert (await world.invoker.run(world.call(template))).output == "in"
    assert (await world.invoker.run(world.call(template, record=True))).output == "in"
    assert len(world.recordings) == 1


async def test_an_input_that_a_recording_cannot_hold_is_refused_before_it_runs(world: World) -> None:
    template = world.activate()
    with pytest.raises(RecordingTooLargeError):
        await world.invoker.run(world.call(template, "x" * 100_001, record=True))
    assert world.worker.requests == []


async def test_failures_are_recorded_and_a_worker_without_a_report_means_a_cut_tape(world: World) -> None:
    template = world.activate()
    world.behave(ends_with(FailureKind.CRASH))
    with pytest.raises(InvocationFailedError):
        await world.invoker.run(world.call(template, record=True))
    found = only(world)
    assert (found.end.kind, found.end.from_outside) == (FailureKind.CRASH, True)
    assert found.cut == {CUT_TAPE}
    assert found.ends_early


@pytest.mark.parametrize("report", [b"", b"\x01\x04", b"\x04[0,0,1,2]", b"\xff\xff", b"\x02"])
async def test_a_report_that_is_no_whole_tape_cuts_the_recording(world: World, report: bytes) -> None:
    world.behave(asking(report=report))
    await world.invoker.run(world.call(world.activate(), record=True))
    assert only(world).cut == {CUT_TAPE}


async def test_calls_and_output_beyond_the_bytes_are_cut_from_the_end_and_said(world: World) -> None:
    template = world.activate(template_of(world.accepted, grants=KV))

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        for index in range(10):
            await host.call("kv", "put", json.dumps({"key": f"k{index}", "value": "v" * 9_000}).encode())
            await host.call("kv", "get", json.dumps({"key": f"k{index}"}).encode())
        return Outcome(b"x" * 50_000, None, Usage(), report=TAPE)

    world.behave(behave)
    await world.invoker.run(world.call(template, record=True))
    found = only(world)
    assert found.cut == {CUT_CALLS, CUT_OUTPUT}
    assert 0 < len(found.calls) < 20
    assert found.calls[-1].answer is None
    assert all(call.answer is not None for call in found.calls[:-1])
    assert found.end.output is None
    assert len(found.end.output_sha256) == 64


async def test_the_outcome_of_the_sandbox_is_recorded_not_what_a_schema_made_of_it(world: World) -> None:
    template = world.activate(template_of(world.accepted, output_schema=compile_schema({"type": "object"})))
    world.behave(asking())
    with pytest.raises(InvocationFailedError):
        await world.invoker.run(world.call(template, record=True))
    assert only(world).end.output == b"out"


@pytest.mark.parametrize("has_last_word", [True, False])
async def test_an_invocation_that_its_caller_cancelled_leaves_a_recording(world: World, *, has_last_word: bool) -> None:
    template = world.activate(template_of(world.accepted, grants=KV))
    asked = asyncio.Event()

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        await host.call("kv", "get", b'{"key":"k"}')
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    world.behave(behave)
    if has_last_word:
        lines = (LogLine("info", "so far", 5),)
        cancelled = Failure(FailureKind.CANCELLED, "the caller cancelled it")
        world.worker.late = Outcome(None, cancelled, Usage(fuel=77), lines, report=TAPE)
    task = asyncio.create_task(world.invoker.run(world.call(template, record=True)))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = only(world)
    assert (found.end.kind, found.end.from_outside, found.ends_early) == (FailureKind.CANCELLED, True, True)
    assert [call.name for call in found.calls] == ["kv.get"]
    assert (found.tape, found.end.fuel, found.cut) == (
        (b"\x04\x08", 77, frozenset()) if has_last_word else (b"", 0, {CUT_TAPE})
    )
    assert found.end.logs == ((RecordedLine("info", "so far"),) if has_last_word else ())
    assert world.outcomes() == ["CANCELLED"]
    assert world.invoker.in_flight == world.limit.in_flight == 0


async def test_one_that_was_cancelled_before_a_worker_had_it_is_recorded_at_once(world: World) -> None:
    template = world.activate()
    started = asyncio.Event()

    class Loading(FakeWorker):
        async def load(self, code_id: str, compiled: CompiledCode) -> None:
            started.set()
            await asyncio.sleep(60)

    world.worker = Loading()
    task = asyncio.create_task(world.invoker.run(world.call(template, record=True)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = only(world)
    assert (found.end.kind, found.calls, found.cut) == (FailureKind.CANCELLED, (), frozenset({CUT_TAPE}))


async def test_log_lines_are_recorded_and_cut_from_the_end(world: World) -> None:
    template = world.activate()
    lines = tuple(LogLine("info", f"{index} " + "x" * 1_000, index) for index in range(50))

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        return Outcome(b"out", None, Usage(), lines, report=TAPE)

    world.behave(behave)
    await world.invoker.run(world.call(template, record=True))
    found = only(world)
    assert found.cut == {CUT_LOGS}
    assert found.end.logs is not None
    assert 20 < len(found.end.logs) < 40
    assert found.end.logs == tuple(RecordedLine(line.level, line.message) for line in lines[: len(found.end.logs)])
    assert not found.ends_early


async def test_recordings_are_counted_by_what_became_of_them(world: World) -> None:
    template = world.activate()
    await world.invoker.run(world.call(template, record=True))
    with pytest.raises(RecordingNotAllowedError):
        await world.invoker.run(world.call(template, record=True, tenant="rival"))
    with pytest.raises(RecordingTooLargeError):
        await world.invoker.run(world.call(template, "x" * 100_001, record=True))
    world.recording_fails = True
    await world.invoker.run(world.call(template, record=True))
    (content,) = world.recordings.values()
    counted = world.recorders.telemetry.registry.get_sample_value
    counts = [counted(RECORDINGS.name, {"result": result}) for result in ("written", "refused", "lost")]
    assert counts == [1, 2, 1]
    assert counted(RECORDING_BYTES.name) == len(content)


async def test_a_store_that_fails_costs_the_recording_and_not_the_answer(world: World) -> None:
    world.recording_fails = True
    answer = await world.invoker.run(world.call(world.activate(), record=True))
    assert answer.output == "in"
    assert world.outcomes() == ["OK"]


async def test_a_child_is_not_recorded_but_its_answer_is(world: World) -> None:
    parent = template_of(
        world.accepted, grants=Grants(agents=(TemplatePattern.parse("docs/*"),)), name_text="docs/parent"
    )
    world.activate(parent, template_of(world.accepted, callers=(TemplatePattern.parse("docs/*"),)))
    calls = 0

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == 1:
            await host.call("agents", "invoke", b'{"template":"docs/hardware","input":"to the child"}')
        return Outcome(request.input, None, Usage(), report=TAPE if request.order else b"")

    world.behave(behave)
    await world.invoker.run(world.call(parent, record=True))
    assert calls == 2
    assert json.loads(only(world).calls[0].answer or b"") == {"ok": {"output": "to the child"}}


def test_recording_is_denied_until_an_operator_allows_it() -> None:
    name = TemplateName.parse("docs/hardware")
    assert not RecordingAccess({}).permits("acme", name)
    assert RecordingAccess({"acme": ["docs/*"]}).permits("acme", name)
    assert not RecordingAccess({"acme": ["other/*"]}).permits("acme", name)
    assert not RecordingAccess({"acme": ["docs/*"]}).permits("rival", name)
    assert RecordingAccess({"*": ["*/*"]}).permits("rival", name)
