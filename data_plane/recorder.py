"""Record one invocation: what it was given, what its host calls were answered, what came of it.

Time and randomness are noted where they are read, in the worker (`sandbox.nature`); its tape comes back with the
outcome and is kept as bytes: nothing here makes anything of them. Everything is bounded by one number of bytes, and
what does not fit is cut from the end and said to be.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Protocol

from data_plane.agents.access import RecordingAccess
from data_plane.agents.refusals import ConcurrencyExhaustedError, RecordingNotAllowedError, RecordingTooLargeError
from data_plane.invoker import Call, Running
from sandbox.limits import SandboxLimits
from sandbox.nature import SEED_BYTES, TAPE_BYTES_CEILING, RecordOrder, Verdict
from sandbox.outcome import Outcome
from sandbox.recording import (
    CUT_CALLS,
    CUT_LOGS,
    CUT_OUTPUT,
    CUT_TAPE,
    STOPPED_FROM_OUTSIDE,
    Provenance,
    RecordedCall,
    RecordedEnd,
    RecordedLine,
    Recording,
    digest,
    write,
)
from sandbox.request import FuelMeter
from sandbox.supervisor import HostCalls
from service.logs import get_logger
from service.telemetry import RECORDING_BYTES, RECORDINGS, Field, Telemetry
from templates.reasons import AgentFactoryError

AT_ONCE_MAX: Final = 32
"""Of one tenant: each holds what it has recorded in the node's memory until it ends."""

LAST_WORD_S: Final = 2.0
"""How long a worker may take to end an invocation that was stopped; it is killed earlier if it does not obey."""

_CALL_COST: Final = 256
"""Bytes that a call takes besides its answer."""
_LINE_COST: Final = 16
"""Bytes that a log line takes besides its text."""

log = get_logger("recorder")


class RecordingStore(Protocol):
    """Where finished recordings go: `data_plane.recording_files.RecordingFiles`."""

    async def keep(self, tenant: str, invocation_id: str, content: bytes) -> None: ...


class Recorder:
    """Of one invocation: ``order`` for the worker, ``listening`` for each worker that is tried, ``keep`` at the end."""

    def __init__(
        self, running: Running, data: bytes, limits: SandboxLimits, started_at: float, *, recorders: "Recorders"
    ) -> None:
        template = running.call.template
        self._running, self._data, self._limits, self._started_at = running, data, limits, started_at
        self._recorders = recorders
        room = recorders.bytes_max - len(data) - len(running.call.config) - len(template.source or b"")
        if room < 0:
            recorders.telemetry.count(RECORDINGS, "refused")
            raise RecordingTooLargeError(bytes_max=recorders.bytes_max)
        self.order = RecordOrder(seed=recorders.entropy(SEED_BYTES), tape_bytes_max=min(room // 3, TAPE_BYTES_CEILING))
        self._calls_room = self._room = room // 3
        self._calls: list[RecordedCall] = []
        self._are_calls_cut = False
        self._last_word: asyncio.Future[Outcome] | None = None

    def listening(self, host: HostCalls) -> HostCalls:
        """Return ``host``, heard; what an earlier worker may have asked is forgotten."""
        self._last_word = asyncio.get_running_loop().create_future()
        self._calls.clear()
        self._calls_room, self._are_calls_cut = self._room, False
        return _Heard(host, self, self._running.budget.meter)

    def asked(self, interface: str, function: str, argument: bytes) -> int:
        """Take note of a host call; return its index, -1 when there is no room for it."""
        self._calls_room -= _CALL_COST
        self._are_calls_cut |= self._calls_room < 0
        if self._are_calls_cut:
            return -1
        self._calls.append(
            RecordedCall(
                interface=interface,
                function=function,
                argument_sha256=digest(argument),
                argument_bytes=len(argument),
            )
        )
        return len(self._calls) - 1

    def answered(self, index: int, answer: bytes, *, fuel: int) -> None:
        """Take note of an answer and what fuel it cost; without room for it, the recording ends with this call."""
        self._calls_room -= len(answer)
        if self._calls_room < 0:
            self._are_calls_cut = True
        else:
            self._calls[index] = replace(self._calls[index], answer=answer, answer_sha256=digest(answer), fuel=fuel)

    def ended_late(self, outcome: Outcome) -> None:
        if self._last_word is not None and not self._last_word.done():
            self._last_word.set_result(outcome)

    async def keep(self, outcome: Outcome, *, was_stopped: bool) -> None:
        """Put the recording into the store. A store that fails costs the recording, not the invocation."""
        running, telemetry = self._running, self._recorders.telemetry
        if was_stopped and self._last_word is not None:
            with suppress(TimeoutError):
                last = await asyncio.wait_for(self._last_word, self._recorders.last_word_s)
                outcome = replace(last, output=None, failure=outcome.failure)
        try:
            content = await asyncio.to_thread(write, self.made(outcome, was_stopped=was_stopped))
            await self._recorders.store.keep(running.call.tenant, running.invocation_id, content)
        except AgentFactoryError as error:
            telemetry.count(RECORDINGS, "lost")
            log.warning("recording_lost", **{Field.INVOCATION: running.invocation_id, Field.ERROR: str(error)})
        else:
            telemetry.count(RECORDINGS, "written")
            telemetry.count(RECORDING_BYTES, amount=len(content))

    def made(self, outcome: Outcome, *, was_stopped: bool = False) -> Recording:
        """Return the recording of an invocation that ended so."""
        call, template = self._running.call, self._running.call.template
        tape, is_whole = _tape_of(outcome)
        cut = set() if is_whole else {CUT_TAPE}
        if self._are_calls_cut:
            cut.add(CUT_CALLS)
        output = outcome.output
        if output is not None and len(output) > self._room:
            cut.add(CUT_OUTPUT)
        lines = self._lines(outcome, self._room - (0 if output is None or CUT_OUTPUT in cut else len(output)))
        if len(lines) < len(outcome.logs):
            cut.add(CUT_LOGS)
        return Recording(
            provenance=Provenance(
                invocation_id=self._running.invocation_id,
                tenant=call.tenant,
                caller=call.caller,
                agent=call.agent_id,
                node=self._recorders.node_id,
                generation=call.generation,
                template=template.ref_text,
                template_sha256=template.sha256,
                started=datetime.fromtimestamp(self._started_at, UTC).isoformat(),
            ),
            abi=template.abi,
            module_sha256=template.module_sha256,
            source=template.source,
            engine=self._recorders.engine,
            input=self._data,
            config=call.config,
            granted=template.granted,
            limits=self._limits,
            seed=self.order.seed,
            tape=tape,
            calls=tuple(self._calls),
            end=RecordedEnd(
                kind=None if outcome.failure is None else outcome.failure.kind,
                message="" if outcome.failure is None else outcome.failure.message,
                output=None if CUT_OUTPUT in cut else output,
                output_sha256="" if output is None else digest(output),
                fuel=outcome.usage.fuel,
                host_calls=outcome.usage.host_calls,
                wasi_calls=outcome.usage.wasi_calls,
                from_outside=was_stopped
                or not outcome.report
                or (outcome.failure is not None and outcome.failure.kind in STOPPED_FROM_OUTSIDE),
                logs=lines,
            ),
            cut=frozenset(cut),
        )

    def _lines(self, outcome: Outcome, room: int) -> tuple[RecordedLine, ...]:
        """Return the log lines that have room, from the first."""
        lines: list[RecordedLine] = []
        for line in outcome.logs:
            room -= _LINE_COST + len(line.message.encode())
            if room < 0:
                break
            lines.append(RecordedLine(line.level, line.message))
        return tuple(lines)


class Recorders:
    """Makes a recorder for each invocation that asks for one, where that is allowed."""

    def __init__(
        self,
        *,
        node_id: str,
        engine: str,
        access: RecordingAccess,
        store: RecordingStore,
        bytes_max: int,
        telemetry: Telemetry,
        last_word_s: float = LAST_WORD_S,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.node_id, self.engine, self.store, self.telemetry = node_id, engine, store, telemetry
        self.bytes_max, self.last_word_s, self.entropy = bytes_max, last_word_s, entropy
        self._access = access
        self._inside: Counter[str] = Counter()

    @contextmanager
    def room(self, call: Call) -> Iterator[None]:
        """Hold room for one recording.

        Raises:
            RecordingNotAllowedError: not this template, or not for this tenant.
            ConcurrencyExhaustedError: the tenant has `AT_ONCE_MAX` invocations recorded right now.
        """
        tenant = call.tenant
        if not self._access.permits(tenant, call.template.name):
            self.telemetry.count(RECORDINGS, "refused")
            raise RecordingNotAllowedError(call.template.name_text)
        if self._inside[tenant] >= AT_ONCE_MAX:
            self.telemetry.count(RECORDINGS, "refused")
            raise ConcurrencyExhaustedError(
                f"expected at most {AT_ONCE_MAX} invocations of {tenant} recorded at once", retry_s=1.0
            )
        self._inside[tenant] += 1
        try:
            yield
        finally:
            self._inside[tenant] -= 1
            if not self._inside[tenant]:
                del self._inside[tenant]

    def __call__(self, running: Running, data: bytes, limits: SandboxLimits, started_at: float) -> Recorder:
        """Return a recorder of ``running``, which has room.

        Raises:
            RecordingTooLargeError: what it is given alone does not fit.
        """
        return Recorder(running, data, limits, started_at, recorders=self)


class _Heard:
    """Host calls of one invocation, told to its recorder."""

    __slots__ = ("_host", "_meter", "_recorder")

    def __init__(self, host: HostCalls, recorder: Recorder, meter: FuelMeter) -> None:
        self._host, self._recorder, self._meter = host, recorder, meter

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        index, charged = self._recorder.asked(interface, function, argument), self._meter.charged
        answer = await self._host.call(interface, function, argument)
        if index >= 0:
            self._recorder.answered(index, answer, fuel=self._meter.charged - charged)
        return answer


def _tape_of(outcome: Outcome) -> tuple[bytes, bool]:
    """Return the tape, and whether it is whole; a worker that ended without a word leaves none."""
    if not outcome.report or outcome.report[0] not in {Verdict.WHOLE, Verdict.CUT}:
        return b"", False
    return outcome.report[1:], outcome.report[0] == Verdict.WHOLE
