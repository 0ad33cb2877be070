"""Record in one worker, replay in another: real processes, the real CPython image, commands with every import."""

import dataclasses
import json
from collections.abc import AsyncIterator
from textwrap import dedent

import pytest

from client.replay import Replay, replay
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from sandbox.recording import CUT_CALLS, CUT_LOGS, CUT_TAPE, RecordedLine, Recording, read, write
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import compiled_image
from tests.isolation import guests
from tests.isolation.guests import Echoing
from tests.isolation.python_agents import IMAGE, KV, Broker
from tests.recorded import TAPE_BYTES_MAX, record

EVERYTHING = """
    import os, random, secrets, time, uuid
    from agentfactory_sdk import kv, log

    def process(text):
        began = time.monotonic()
        first = (time.time(), time.perf_counter_ns(), random.random(), secrets.token_hex(8), str(uuid.uuid4()))
        time.sleep(0.05)
        kv.put("first", repr(first))
        kept = kv.get("first")
        order = list(range(20))
        random.shuffle(order)
        log.info("in the middle")
        kv.put("order", ",".join(map(str, order)))
        print("printed", time.time())
        return repr((first, kept, order, os.urandom(4).hex(), time.monotonic() - began, time.time()))
"""


class Store(Broker):
    """A key-value store that counts up."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, int]] = {}
        super().__init__({"kv.get": self._get, "kv.put": self._put})

    def _get(self, asked: dict[str, str]) -> object:
        found = self.entries.get(asked["key"])
        return None if found is None else {"value": found[0], "version": found[1]}

    def _put(self, asked: dict[str, str]) -> object:
        version = self.entries.get(asked["key"], ("", 0))[1] + 1
        self.entries[asked["key"]] = (asked["value"], version)
        return {"version": version}


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = await Worker.start(WorkerSettings(slots=8))
    await worker.load(IMAGE, compiled_image())
    yield worker
    await worker.stop()


def python(source: str, text: str, **limits: int) -> InvocationRequest:
    return InvocationRequest(
        code_id=IMAGE,
        abi="image",
        source=dedent(source).encode(),
        input=text.encode(),
        limits=SandboxLimits(**limits),
        granted=frozenset({KV}),
    )


async def recorded(worker: Worker, source: str, *, tape_bytes_max: int = TAPE_BYTES_MAX, **limits: int) -> Recording:
    made = await record(
        worker, python(source, "", **limits), Store(), compiled=compiled_image(), tape_bytes_max=tape_bytes_max
    )
    return read(write(made))  # as it travels


async def again(recording: Recording) -> Replay:
    return await replay(recording, compiled_image())


def edited(recording: Recording, index: int, **changes: object) -> Recording:
    calls = list(recording.calls)
    calls[index] = dataclasses.replace(calls[index], **changes)  # type: ignore[arg-type]  # the fields of a call
    return dataclasses.replace(recording, calls=tuple(calls))


async def test_a_replay_reads_the_same_clocks_randomness_and_answers(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    assert recording.end.kind is None, recording.end.message
    assert [call.name for call in recording.calls] == ["kv.put", "kv.get", "kv.put"]
    for _ in range(2):
        found = await again(recording)
        assert found.differences == ()
        assert found.outcome is not None
        assert found.outcome.output == recording.end.output
        assert found.outcome.usage.fuel == recording.end.fuel
        assert not found.ended_early
        assert found.fuel_is_compared


async def test_a_worker_that_translated_the_source_before_records_the_same(worker: Worker) -> None:
    source = EVERYTHING + "\n    # another source than in other tests\n"
    cold, warm = await recorded(worker, source), await recorded(worker, source)
    assert cold.tape[:1] == warm.tape[:1]
    assert (await again(cold)).differences == ()
    assert (await again(warm)).differences == ()


async def test_a_replay_does_not_sleep(worker: Worker) -> None:
    recording = await recorded(
        worker,
        "import time\ndef process(text):\n    began = time.time(); time.sleep(1.5); return str(time.time() - began)",
    )
    found = await again(recording)
    assert found.is_identical
    assert found.outcome is not None
    assert found.outcome.usage.wall_us < 1_400_000
    assert float((found.outcome.output or b"0").decode()) >= 1.5


async def test_failures_are_replayed_with_their_kind_and_fuel(worker: Worker) -> None:
    for source, kind, limits in (
        ("def process(text): raise ValueError(text)", FailureKind.GUEST_ERROR, {}),
        ("def process(text):\n    while True: pass", FailureKind.FUEL, {"fuel": 300_000_000}),
        ("def process(text): return 'x' * 100", FailureKind.OUTPUT, {"output_bytes": 10}),
        ("this is not python", FailureKind.GUEST_ERROR, {}),
    ):
        recording = await recorded(worker, source, **limits)
        assert recording.end.kind is kind
        found = await again(recording)
        assert found.differences == ()
        assert found.outcome is not None
        assert found.outcome.usage.fuel == recording.end.fuel


async def test_an_invocation_that_its_deadline_ended_is_followed_to_where_it_was(worker: Worker) -> None:
    recording = await recorded(
        worker,
        "import time\nfrom agentfactory_sdk import kv\n"
        "def process(text):\n    kv.put('k', str(time.time()))\n    time.sleep(60)\n    return str(time.time())",
        wall_ms=2_000,
    )
    assert recording.end.kind is FailureKind.DEADLINE
    found = await again(recording)
    assert found.is_identical
    assert found.ended_early
    assert not found.fuel_is_compared
    assert found.calls == 1


async def test_an_argument_that_was_changed_in_the_file_is_named(worker: Worker) -> None:
    found = await again(edited(await recorded(worker, EVERYTHING), 2, argument_sha256="0" * 64))
    first = found.differences[0]
    assert (first.what, first.call, first.name) == ("host call", 2, "kv.put")
    assert "sha256 0000000000000000" in first.expected
    assert "kv.put" in first.got


async def test_an_answer_that_was_changed_in_the_file_is_named_and_so_is_what_followed(worker: Worker) -> None:
    source = """
        from agentfactory_sdk import kv
        def process(text):
            kv.put("a", "1")
            kv.put("b", kv.get("a").value + "!")
            return "done"
    """
    recording = await recorded(worker, source)
    answer = b'{"ok":{"value":"2","version":1}}'
    found = await again(edited(recording, 1, answer=answer))
    assert [(each.what, each.call, each.name) for each in found.differences] == [
        ("answer of host call", 1, "kv.get"),
        ("host call", 2, "kv.put"),
    ]


async def test_a_call_that_was_dropped_or_added_in_the_file_is_named(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    fewer = await again(dataclasses.replace(recording, calls=recording.calls[:1]))
    assert (fewer.differences[0].call, fewer.differences[0].expected) == (1, "no further host call")
    swapped = await again(dataclasses.replace(recording, calls=recording.calls[1:]))
    assert (swapped.differences[0].call, swapped.differences[0].name) == (0, "kv.get")


async def test_a_tape_that_was_changed_in_the_file_is_found_where_it_differs(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    for tape in (b"", recording.tape[:-1], recording.tape[1:], recording.tape + b"\x00", b"\xff" * 20):
        found = await again(dataclasses.replace(recording, tape=tape))
        assert not found.is_identical, tape
        assert found.differences[0].what != "fuel"


async def test_another_source_than_the_recorded_one_is_found_at_its_first_other_call(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    other = EVERYTHING.replace('"order"', '"another key"')
    found = await again(dataclasses.replace(recording, source=dedent(other).encode()))
    assert (found.differences[0].what, found.differences[0].call) == ("host call", 2)
    fewer = EVERYTHING.replace("kept = kv.get", "kept = str; str")
    found = await again(dataclasses.replace(recording, source=dedent(fewer).encode()))
    assert not found.is_identical
    assert found.differences[0].call == 1
    last = EVERYTHING.replace('kv.put("order", ",".join(map(str, order)))', "pass")
    found = await again(dataclasses.replace(recording, source=dedent(last).encode()))
    first = found.differences[0]
    assert (first.what, first.call, first.name, first.expected) == ("host call", 2, "kv.put", "a host call kv.put")


async def test_a_source_in_place_of_the_recorded_one_is_asked_whether_it_does_the_same(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    same = dedent(EVERYTHING).replace('log.info("in the middle")', 'log.info("in the middle"); more = sum(range(1000))')
    found = await replay(recording, compiled_image(), source=same.encode())
    assert found.differences == ()
    assert not found.fuel_is_compared
    assert "another source" in found.notes[0]
    other = dedent(EVERYTHING).replace('kv.get("first")', 'kv.get("second")')
    found = await replay(recording, compiled_image(), source=other.encode())
    assert (found.differences[0].call, found.differences[0].name) == (1, "kv.get")


async def test_under_another_engine_fuel_is_not_compared_and_that_is_said(worker: Worker) -> None:
    recording = dataclasses.replace(await recorded(worker, EVERYTHING), engine="f" * 64)
    recording = dataclasses.replace(recording, end=dataclasses.replace(recording.end, fuel=1))
    found = await again(recording)
    assert found.is_identical
    assert not found.fuel_is_compared
    assert "fuel is not compared" in found.notes[0]


async def test_other_fuel_under_the_same_engine_is_a_difference(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    found = await again(dataclasses.replace(recording, end=dataclasses.replace(recording.end, fuel=1)))
    assert [each.what for each in found.differences] == ["fuel"]


async def test_another_output_is_a_difference(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    end = dataclasses.replace(recording.end, output_sha256="0" * 64)
    found = await again(dataclasses.replace(recording, end=end))
    assert [each.what for each in found.differences] == ["output"]


def with_logs(recording: Recording, *lines: RecordedLine, cut: frozenset[str] = frozenset()) -> Recording:
    return dataclasses.replace(recording, end=dataclasses.replace(recording.end, logs=lines), cut=cut)


async def test_log_lines_are_compared_and_the_first_other_one_is_named(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    logs = recording.end.logs
    assert logs is not None
    first, second = logs
    assert (first, second.message[:7]) == (RecordedLine("info", "in the middle"), "printed")
    assert (await again(recording)).is_identical
    other = RecordedLine("info", "at the end")
    for lines, what, expected, got in (
        ((other, second), "log line 0", "info: at the end", "info: in the middle"),
        ((first,), "log line 1", "no further line", str(second)),
        ((first, second, other), "log line 2", "info: at the end", "no further line"),
    ):
        (found,) = (await again(with_logs(recording, *lines))).differences
        assert (found.what, found.call, found.expected, found.got) == (what, None, expected, got)


async def test_log_lines_that_were_not_recorded_or_cut_are_not_compared(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    older = dataclasses.replace(recording, end=dataclasses.replace(recording.end, logs=None))
    assert (await again(older)).is_identical
    assert recording.end.logs is not None
    cut = frozenset({CUT_LOGS})
    assert (await again(with_logs(recording, recording.end.logs[0], cut=cut))).is_identical
    assert not (await again(with_logs(recording, RecordedLine("info", "another"), cut=cut))).is_identical


async def test_what_a_guest_logged_until_its_deadline_is_compared(worker: Worker) -> None:
    recording = await recorded(
        worker,
        "import time\ndef process(text):\n    print('before')\n    time.sleep(60)\n    print('never')",
        wall_ms=700,
    )
    assert recording.end.logs == (RecordedLine("info", "before"),)
    found = await again(recording)
    assert (found.is_identical, found.ended_early) == (True, True)
    (difference,) = (await again(with_logs(recording, RecordedLine("info", "after")))).differences
    assert difference.what == "log line 0"


async def test_a_tape_that_was_cut_is_followed_up_to_there_and_says_so(worker: Worker) -> None:
    source = "import time\ndef process(text):\n    return str([time.time() for _ in range(500)])"
    recording = await recorded(worker, source, tape_bytes_max=100)
    assert recording.cut == {CUT_TAPE}
    assert 0 < len(recording.tape) <= 100
    found = await again(recording)
    assert found.is_identical
    assert found.ended_early
    assert "cut" in found.notes[0]


async def test_calls_that_were_cut_are_followed_up_to_there(worker: Worker) -> None:
    recording = await recorded(worker, EVERYTHING)
    found = await again(dataclasses.replace(recording, calls=recording.calls[:2], cut=frozenset({CUT_CALLS})))
    assert found.is_identical
    assert found.ended_early
    assert found.calls == 2


@pytest.mark.parametrize(
    "text",
    [guests.ECHO, guests.sleeper(20_000_000), guests.ask(b"kv.get", b'{"key":"k"}'), guests.say(2, b"said\n")],
    ids=["echo", "sleeper", "host call", "log"],
)
async def test_commands_are_replayed_too(text: str) -> None:
    compiled = guests.compiled(text)
    worker = await Worker.start(WorkerSettings(slots=2))
    try:
        await worker.load("code", compiled)
        request = InvocationRequest(
            code_id="code", abi="command", input=b"hello", limits=guests.LIMITS, granted=guests.KV
        )
        recording = await record(worker, request, Echoing(), compiled=compiled)
    finally:
        await worker.stop()
    found = await replay(recording, compiled)
    assert found.differences == ()
    assert found.outcome is not None
    assert found.outcome.output == recording.end.output
    assert found.outcome.usage.fuel == recording.end.fuel


async def test_a_recording_says_in_json_what_was_compared(worker: Worker) -> None:
    facts = (await again(await recorded(worker, EVERYTHING))).to_json()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["identical"] is True
    assert facts["first_difference"] is None
    assert facts["calls"] == {"recorded": 3, "replayed": 3}
    assert facts["fuel"]["recorded"] == facts["fuel"]["replayed"] > 0
