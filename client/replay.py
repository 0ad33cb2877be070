"""Run a recorded invocation again, here, in the same sandbox, and say where it went another way.

No node takes part: host calls are answered from the recording, time and randomness come from its tape, nothing is
waited for. What is compared: every host call in order, the order of all readings, log lines, the output, the kind of
failure, and, under the same engine build, the fuel (sandbox notes, engine fact 16: it is the same only then).
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.nature import ReplayOrder, Report, ReportError, Verdict, read_report
from sandbox.outcome import FailureKind, LogLine, Outcome
from sandbox.recording import CUT_CALLS, CUT_LOGS, RecordedCall, RecordedLine, Recording, digest
from sandbox.request import CompiledCode, FuelMeter, InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings

EXTRA_MS: Final = 60_000
"""A replay waits for nothing, but this machine may compute more slowly than the one that recorded."""

LINE_SHOWN_MAX: Final = 200
"""Characters of a log line that a difference shows."""

_CODE: Final = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where the replay differed: ``what`` is a host call (by ``call``, from 0), a reading, a log line, or the end."""

    what: str
    call: int | None
    name: str
    expected: str
    got: str

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what, "call": self.call, "name": self.name, "expected": self.expected, "got": self.got,
        }  # fmt: skip

    def __str__(self) -> str:
        place = self.what if self.call is None else f"{self.what} {self.call} ({self.name})"
        return f"{place}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came of it. ``ended_early``: the recording holds no more, and the replay followed it up to there."""

    recording: Recording
    engine: str
    differences: tuple[Difference, ...]
    ended_early: bool
    is_other_code: bool
    calls: int
    outcome: Outcome | None
    notes: tuple[str, ...] = ()
    logs: tuple[LogLine, ...] = field(default=(), repr=False)

    @property
    def is_identical(self) -> bool:
        return not self.differences

    @property
    def fuel_is_compared(self) -> bool:
        return not (self.ended_early or self.is_other_code) and self.engine == self.recording.engine

    @property
    def output(self) -> str | None:
        """What the replay answered, None when it did not."""
        if self.outcome is None or self.outcome.output is None:
            return None
        return self.outcome.output.decode(errors="backslashreplace")

    def to_json(self) -> dict[str, Any]:
        recording, outcome = self.recording, self.outcome
        return {
            "invocation": recording.provenance.invocation_id,
            "template": recording.provenance.template,
            "identical": self.is_identical,
            "ended_early": self.ended_early,
            "first_difference": self.differences[0].to_json() if self.differences else None,
            "differences": [each.to_json() for each in self.differences],
            "calls": {"recorded": len(recording.calls), "replayed": self.calls},
            "end": {
                "recorded": "OK" if recording.end.kind is None else str(recording.end.kind),
                "replayed": None if outcome is None else "OK" if outcome.failure is None else str(outcome.failure.kind),
            },
            "output_sha256": {
                "recorded": recording.end.output_sha256,
                "replayed": None if outcome is None or outcome.output is None else digest(outcome.output),
            },
            "output": self.output,
            "fuel": {
                "recorded": recording.end.fuel,
                "replayed": None if outcome is None else outcome.usage.fuel,
                "compared": self.fuel_is_compared,
            },
            "engine": {"recorded": recording.engine, "here": self.engine},
            "cut": sorted(recording.cut),
            "notes": list(self.notes),
        }


class _LeftError(Exception):
    """The guest asked for something else than it did when it was recorded, or for more than was recorded."""


class RecordedHost:
    """Answers host calls as they were answered; stops the guest at the first that is another one."""

    def __init__(self, recording: Recording) -> None:
        self._calls = recording.calls
        self.meter = FuelMeter()
        self._ends_early = recording.ends_early
        self._is_cut = CUT_CALLS in recording.cut
        self.count = 0
        self.difference: Difference | None = None
        self.is_over = False

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        index, name = self.count, f"{interface}.{function}"
        if index >= len(self._calls):
            if not self._ends_early:
                self._differ(index, name, "no further host call", described(name, digest(argument), len(argument)))
            self.is_over = True
            raise _LeftError
        expected = self._calls[index]
        if (expected.name, expected.argument_sha256) != (name, digest(argument)):
            self._differ(index, expected.name, _described(expected), described(name, digest(argument), len(argument)))
        if expected.answer is None:
            self.is_over = True
            raise _LeftError
        self.count += 1
        self.meter.charged += expected.fuel
        return expected.answer

    def _differ(self, index: int, name: str, expected: str, got: str) -> None:
        self.difference = Difference(what="host call", call=index, name=name, expected=expected, got=got)
        raise _LeftError


def described(name: str, sha256: str, length: int) -> str:
    """Return a host call as a difference shows it."""
    return f"{name} with an argument of {length} bytes, sha256 {sha256[:16]}…"


def _described(call: RecordedCall) -> str:
    return described(call.name, call.argument_sha256, call.argument_bytes)


async def replay(recording: Recording, compiled: CompiledCode, *, source: bytes | None = None) -> Replay:
    """Run ``recording`` again in a worker of its own; with ``source``, that one in place of the recorded one.

    Raises:
        WorkerError: there is no sandbox here, or it cannot load the code.
    """
    host = RecordedHost(recording)
    worker = await Worker.start(WorkerSettings(slots=1))
    outcome: Outcome | None = None
    try:
        await worker.load(_CODE, compiled)
        outcome = await worker.invoke(request_of(recording, host.meter, source=source), host)
    except _LeftError:
        pass
    finally:
        await worker.stop()
    is_other_code = source is not None and source != recording.source
    return judged(recording, host, outcome, engine=compiled.engine_fingerprint, is_other_code=is_other_code)


def request_of(recording: Recording, meter: FuelMeter, *, source: bytes | None) -> InvocationRequest:
    """Return what a worker is asked for."""
    return InvocationRequest(
        code_id=_CODE,
        abi=recording.abi,
        source=recording.source if source is None else source,
        input=recording.input,
        config=recording.config,
        limits=recording.limits,
        granted=recording.granted,
        invocation_id=recording.provenance.invocation_id,
        order=ReplayOrder(seed=recording.seed, tape=recording.tape, ends_early=recording.ends_early),
        meter=meter,
        extra_ms=0 if recording.end.kind is FailureKind.DEADLINE else EXTRA_MS,
    )


def judged(
    recording: Recording, host: RecordedHost, outcome: Outcome | None, *, engine: str, is_other_code: bool
) -> Replay:
    """Say what differed: edited answers first, then the first event that left the recording, else the end."""
    report = _report(outcome)
    differences = [
        Difference(
            what="answer of host call",
            call=index,
            name=call.name,
            expected=f"the recorded one, sha256 {call.answer_sha256[:16]}…",
            got=f"another in the file, sha256 {digest(call.answer or b'')[:16]}…",
        )
        for index, call in enumerate(recording.calls)
        if call.is_edited
    ]
    left = host.difference or _left(recording, report)
    is_over = host.is_over or (report is not None and report.verdict is Verdict.ENDED)
    ended_early = left is None and (is_over or recording.end.from_outside)
    if left is not None:
        differences.append(left)
    if outcome is not None and not is_other_code:
        differences += _compared_lines(recording, outcome, is_whole=left is None and not ended_early)
    if left is None and not ended_early:
        differences += _compared(recording, outcome, with_fuel=not is_other_code and engine == recording.engine)
    return Replay(
        recording=recording,
        engine=engine,
        differences=tuple(differences),
        ended_early=ended_early,
        is_other_code=is_other_code,
        calls=host.count,
        outcome=outcome,
        notes=tuple(_notes(recording, engine, is_other_code=is_other_code)),
        logs=() if outcome is None else outcome.logs,
    )


def _report(outcome: Outcome | None) -> Report | None:
    if outcome is None or not outcome.report:
        return None
    try:
        return read_report(outcome.report)
    except ReportError:
        return None


def _left(recording: Recording, report: Report | None) -> Difference | None:
    """The event that the worker found out of order. One that is a host call is told by its number and name."""
    if report is None or report.divergence is None:
        return None
    found = report.divergence
    is_call = "host call" in found.expected or "host call" in found.got
    name = recording.calls[found.calls].name if found.calls < len(recording.calls) else ""
    return Difference(
        what="host call" if is_call else f"reading {found.event}",
        call=found.calls if is_call else None,
        name=name,
        expected=f"{found.expected} {name}".strip() if found.expected == "a host call" else found.expected,
        got=found.got,
    )


def _compared_lines(recording: Recording, outcome: Outcome, *, is_whole: bool) -> list[Difference]:
    """Return the first log line that differs; where one of the two ended before the other, what both have is compared.

    Lines written by a guest that has left its recording are compared all the same: they may say why.
    """
    expected = recording.end.logs
    if expected is None:
        return []
    got = [RecordedLine(line.level, line.message) for line in outcome.logs]
    for number, (one, other) in enumerate(zip(expected, got, strict=False)):
        if one != other:
            return [_line(number, one, other)]
    number = min(len(expected), len(got))
    if not is_whole or len(expected) == len(got) or (CUT_LOGS in recording.cut and len(got) > number):
        return []
    return [_line(number, *(lines[number] if number < len(lines) else None for lines in (expected, got)))]


def _line(number: int, expected: RecordedLine | None, got: RecordedLine | None) -> Difference:
    shown = ["no further line" if each is None else str(each)[:LINE_SHOWN_MAX] for each in (expected, got)]
    return Difference(what=f"log line {number}", call=None, name="", expected=shown[0], got=shown[1])


def _compared(recording: Recording, outcome: Outcome | None, *, with_fuel: bool) -> list[Difference]:
    """The end of a replay that followed the recording to its end."""
    if outcome is None:
        return [_at_end("outcome", "one", "none")]
    end, found = recording.end, []
    kinds = ["OK" if kind is None else str(kind) for kind in (end.kind, outcome.failure and outcome.failure.kind)]
    if kinds[0] != kinds[1]:
        message = "" if outcome.failure is None else f": {outcome.failure.message}"
        return [_at_end("outcome", kinds[0], kinds[1] + message)]
    if outcome.output is not None and digest(outcome.output) != end.output_sha256:
        found.append(_at_end("output", f"sha256 {end.output_sha256[:16]}…", f"sha256 {digest(outcome.output)[:16]}…"))
    if with_fuel and outcome.usage.fuel != end.fuel:
        found.append(_at_end("fuel", f"{end.fuel:,}", f"{outcome.usage.fuel:,}"))
    return found


def _at_end(what: str, expected: str, got: str) -> Difference:
    return Difference(what=what, call=None, name="", expected=expected, got=got)


def _notes(recording: Recording, engine: str, *, is_other_code: bool) -> list[str]:
    notes = []
    if is_other_code:
        notes.append("replayed with another source than was recorded: fuel and log lines are not compared")
    if engine != recording.engine:
        notes.append(f"recorded by engine {recording.engine[:12]}, replayed by {engine[:12]}: fuel is not compared")
    if recording.cut:
        notes.append(f"the recording was cut at its limit of bytes ({', '.join(sorted(recording.cut))})")
    if recording.end.from_outside:
        notes.append(f"the invocation was stopped from outside ({recording.end.kind}): its end is not compared")
    return notes


def run(recording: Recording, compiled: CompiledCode, *, source: bytes | None = None) -> Replay:
    """`replay`, for whoever has no event loop."""
    return asyncio.run(replay(recording, compiled, source=source))
