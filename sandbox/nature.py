"""Time and chance of one invocation: the host's, noted down while they happen, or given again as they were noted.

Three natures, one interface. ``LiveNature`` is the host's clocks and randomness, shared by all. ``RecordingNature``
gives the same and keeps a **tape**: every reading in order, and where host calls happened between them.
``ReplayingNature`` takes every reading from a tape, never waits, and stops the guest at the first reading that the tape
does not have next.

A tape is a sequence of varints (LEB128), ``value << 2 | kind``:

| Kind | Value |
|---|---|
| 0 monotonic clock | microseconds since the last such reading (at first: since the invocation's arrival) |
| 1 wall clock | zigzag difference in microseconds to the last such reading (at first: to 1970) |
| 2 randomness | number of bytes; the bytes themselves follow from the seed |
| 3 host call | 0; what was asked and answered is kept by the broker |

Randomness of a recording is SHAKE-256 (FIPS 202) over a secret seed of 32 bytes and the number of the draw, so that a
seed stands for all of it. Slices and preemption leave no trace: nothing that a guest can see depends on them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module gives its exception a small letter
from typing import Final, Protocol

SEED_BYTES: Final = 32
TAPE_BYTES_CEILING: Final = 8 << 20
"""Longest tape that travels, whatever is asked for."""

_US: Final = 1_000
_VARINT_BYTES_MAX: Final = 10
_ORDER = Struct(f"<B?I{SEED_BYTES}s")
_RECORD, _REPLAY = 1, 2


class Clock(Protocol):
    """Time as the host chooses it, in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Return time since an arbitrary start; never goes back."""
        ...

    def wall_ns(self) -> int:
        """Return time since 1970."""
        ...


class Nature(Clock, Protocol):
    """What an invocation reads of time and chance, and which of its steps must be in order with that."""

    waits: bool
    """Whether a guest that sleeps is kept waiting."""

    def random_bytes(self, length: int) -> bytes: ...

    def called(self, interface: str, function: str) -> None:
        """Take note that a host call leaves the worker now."""
        ...

    def report(self) -> bytes:
        """Return what there is to say at the end, for ``read_report``; empty if nothing."""
        ...


class LiveNature:
    """The host's own clocks and randomness."""

    __slots__ = ("monotonic_ns", "random_bytes", "wall_ns")
    waits = True

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self.monotonic_ns, self.wall_ns, self.random_bytes = clock.monotonic_ns, clock.wall_ns, random_bytes

    def called(self, interface: str, function: str) -> None:
        pass

    def report(self) -> bytes:
        return b""


class Kind(IntEnum):
    """Of an event on a tape."""

    MONOTONIC = 0
    WALL = 1
    RANDOM = 2
    CALL = 3


_NAMES: Final = {
    Kind.MONOTONIC: "a reading of the monotonic clock",
    Kind.WALL: "a reading of the wall clock",
    Kind.RANDOM: "random bytes",
    Kind.CALL: "a host call",
}


class Verdict(IntEnum):
    """The first byte of a report. ``WHOLE`` and ``CUT`` are a recording's, the others a replay's."""

    WHOLE = 0
    CUT = 1
    FOLLOWED = 2
    ENDED = 3
    DIVERGED = 4


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first event that was not the next on the tape; ``event`` and ``calls`` count from 0 what had happened."""

    event: int
    calls: int
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Report:
    """``tape`` of a recording; ``divergence`` of a replay that left its tape."""

    verdict: Verdict
    tape: bytes = field(default=b"", repr=False)
    divergence: Divergence | None = None


class ReportError(Exception):
    """A worker's report does not parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOrder:
    """Record an invocation: its randomness comes from ``seed``, its tape is cut at ``tape_bytes_max``."""

    seed: bytes = field(repr=False)
    tape_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOrder:
    """Give an invocation what ``tape`` and ``seed`` say.

    ``ends_early``: the tape is cut, or the invocation was stopped from outside: going on after it is no divergence.
    """

    seed: bytes = field(repr=False)
    tape: bytes = field(repr=False)
    ends_early: bool = False


Order = RecordOrder | ReplayOrder


class Draws:
    """A stream of randomness that one seed stands for."""

    __slots__ = ("_number", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed, self._number = seed, 0

    def next(self, length: int) -> bytes:
        self._number += 1
        return hashlib.shake_256(self._seed + self._number.to_bytes(8, "little")).digest(length)


Draws(bytes(SEED_BYTES)).next(1)  # what hashing loads when it is first used, it loads before a jail closes around it


class RecordingNature:
    """The host's clocks, in microseconds since the arrival, and randomness from a seed; every reading is noted."""

    __slots__ = ("_arrived_ns", "_clock", "_draws", "_is_cut", "_last_us", "_left", "_tape", "_wall_us")
    waits = True

    def __init__(self, order: RecordOrder, clock: Clock, arrived_ns: int) -> None:
        self._clock, self._arrived_ns, self._draws = clock, arrived_ns, Draws(order.seed)
        self._last_us = self._wall_us = 0
        self._tape, self._left, self._is_cut = bytearray(), order.tape_bytes_max, False

    def monotonic_ns(self) -> int:
        now_us = (self._clock.monotonic_ns() - self._arrived_ns) // _US
        self._note(Kind.MONOTONIC, now_us - self._last_us)
        self._last_us = now_us
        return self._arrived_ns + now_us * _US

    def wall_ns(self) -> int:
        now_us = self._clock.wall_ns() // _US
        change = now_us - self._wall_us
        self._note(Kind.WALL, change << 1 if change >= 0 else (-change << 1) - 1)
        self._wall_us = now_us
        return now_us * _US

    def random_bytes(self, length: int) -> bytes:
        self._note(Kind.RANDOM, length)
        return self._draws.next(length)

    def called(self, interface: str, function: str) -> None:  # noqa: ARG002 - the broker keeps the names
        self._note(Kind.CALL, 0)

    def report(self) -> bytes:
        return bytes((Verdict.CUT if self._is_cut else Verdict.WHOLE,)) + self._tape

    def _note(self, kind: Kind, value: int) -> None:
        if self._is_cut:
            return
        encoded = encode(kind, value)
        self._left -= len(encoded)
        if self._left < 0:
            self._is_cut = True
        else:
            self._tape += encoded


class LeftTapeError(Exception):
    """The guest read what the tape does not have next; ``is_end`` when the tape has nothing more and need not."""

    def __init__(self, message: str, *, is_end: bool) -> None:
        super().__init__(message)
        self.is_end = is_end


class ReplayingNature:
    """Every reading as the tape says. Nothing is waited for."""

    __slots__ = (
        "_arrived_ns", "_calls", "_divergence", "_draws", "_ends_early", "_events", "_is_over", "_last_us",
        "_on_leaving", "_position", "_tape", "_wall_us",
    )  # fmt: skip
    waits = False

    def __init__(self, order: ReplayOrder, arrived_ns: int, on_leaving: Callable[[str], None]) -> None:
        """``on_leaving`` is told, once, why the guest must be stopped; after it `LeftTapeError` is raised."""
        self._tape, self._draws, self._ends_early = order.tape, Draws(order.seed), order.ends_early
        self._arrived_ns, self._on_leaving = arrived_ns, on_leaving
        self._position = self._events = self._calls = self._last_us = self._wall_us = 0
        self._divergence: Divergence | None = None
        self._is_over = False

    def monotonic_ns(self) -> int:
        self._last_us += self._next(Kind.MONOTONIC)
        return self._arrived_ns + self._last_us * _US

    def wall_ns(self) -> int:
        change = self._next(Kind.WALL)
        self._wall_us += -((change + 1) >> 1) if change & 1 else change >> 1
        return self._wall_us * _US

    def random_bytes(self, length: int) -> bytes:
        noted = self._next(Kind.RANDOM, f"{length} random bytes")
        if noted != length:
            raise self._left(f"{noted} random bytes", f"{length}", events=self._events - 1)
        return self._draws.next(length)

    def called(self, interface: str, function: str) -> None:
        self._next(Kind.CALL, f"the host call {interface}.{function}")
        self._calls += 1

    def report(self) -> bytes:
        if self._divergence is None and not self._is_over and self._position < len(self._tape) and not self._ends_early:
            self._divergence = Divergence(self._events, self._calls, self._described_next(), "the end")
        if self._divergence is not None:
            facts = [
                self._divergence.event, self._divergence.calls, self._divergence.expected, self._divergence.got,
            ]  # fmt: skip
            return bytes((Verdict.DIVERGED,)) + json.dumps(facts).encode()
        return bytes((Verdict.ENDED if self._is_over else Verdict.FOLLOWED,))

    def _next(self, wanted: Kind, described: str = "") -> int:
        got = described or _NAMES[wanted]
        if self._is_over or self._divergence is not None:
            raise LeftTapeError("the replay has ended", is_end=self._is_over)
        if self._position >= len(self._tape):
            if not self._ends_early:
                raise self._left("the end of the recording", got, events=self._events)
            self._is_over = True
            message = "the recording ends here, before the invocation does"
            self._on_leaving(message)
            raise LeftTapeError(message, is_end=True)
        try:
            kind, value, position = decode(self._tape, self._position)
        except ReportError as error:
            raise self._left(str(error), got, events=self._events) from error
        if kind is not wanted:
            raise self._left(_NAMES[kind], got, events=self._events)
        self._position, self._events = position, self._events + 1
        return value

    def _described_next(self) -> str:
        try:
            return _NAMES[decode(self._tape, self._position)[0]]
        except ReportError as error:
            return str(error)

    def _left(self, expected: str, got: str, *, events: int) -> LeftTapeError:
        message = f"the replay left the recording at event {events}: expected {expected}, got {got}"
        if self._divergence is None:
            self._divergence = Divergence(events, self._calls, expected, got)
            self._on_leaving(message)
        return LeftTapeError(message, is_end=False)


def nature_of(order: Order, clock: Clock, arrived_ns: int, on_leaving: Callable[[str], None]) -> Nature:
    """Return the nature that an order asks for."""
    if isinstance(order, RecordOrder):
        return RecordingNature(order, clock, arrived_ns)
    return ReplayingNature(order, arrived_ns, on_leaving)


# --- bytes


def encode(kind: Kind, value: int) -> bytes:
    """Return one event of a tape; ``value`` is not negative and fits 64 bits with its kind."""
    rest = value << 2 | kind
    if rest < 0x80:
        return bytes((rest,))
    made = bytearray()
    while rest >= 0x80:
        made.append(rest & 0x7F | 0x80)
        rest >>= 7
    made.append(rest)
    return bytes(made)


def decode(tape: bytes, position: int) -> tuple[Kind, int, int]:
    """Return kind and value of the event at ``position``, and where the next one begins.

    Raises:
        ReportError: no event stands there.
    """
    found = shift = 0
    for index in range(position, min(position + _VARINT_BYTES_MAX, len(tape))):
        found |= (tape[index] & 0x7F) << shift
        shift += 7
        if tape[index] < 0x80:
            return Kind(found & 3), found >> 2, index + 1
    raise ReportError(f"expected an event at byte {position} of the tape, got none")


def pack_order(order: Order | None) -> bytes:
    """Return an order as it travels to a worker; empty for a live nature."""
    if order is None:
        return b""
    if isinstance(order, RecordOrder):
        return _ORDER.pack(_RECORD, False, order.tape_bytes_max, order.seed)
    return _ORDER.pack(_REPLAY, order.ends_early, len(order.tape), order.seed) + order.tape


def read_order(raw: bytes) -> Order | None:
    """Read `pack_order`.

    Raises:
        ValueError: it does not parse.
    """
    if not raw:
        return None
    try:
        mode, ends_early, length, seed = _ORDER.unpack_from(raw)
    except StructError as error:
        raise ValueError(str(error)) from error
    tape = raw[_ORDER.size :]
    if mode == _RECORD and not tape and length <= TAPE_BYTES_CEILING:
        return RecordOrder(seed=seed, tape_bytes_max=length)
    if mode == _REPLAY and len(tape) == length <= TAPE_BYTES_CEILING:
        return ReplayOrder(seed=seed, tape=tape, ends_early=ends_early)
    raise ValueError("expected an order to record or to replay, got something else")


_REPORTED_TEXT_MAX: Final = 200
_REPLAY_REPORT_BYTES_MAX: Final = 4_096


def report_bytes_max(order: Order) -> int:
    """Return how long the report about an invocation with this order may be."""
    return 1 + order.tape_bytes_max if isinstance(order, RecordOrder) else _REPLAY_REPORT_BYTES_MAX


def read_report(payload: bytes) -> Report:
    """Read what a worker reported about a recording or a replay; the worker is not believed to have told the truth.

    Raises:
        ReportError: it does not parse.
    """
    try:
        verdict = Verdict(payload[0])
        if verdict in {Verdict.WHOLE, Verdict.CUT}:
            return Report(verdict, tape=payload[1:])
        if verdict is not Verdict.DIVERGED:
            return Report(verdict)
        event, calls, expected, got = json.loads(payload[1:])
    except (IndexError, ValueError, TypeError, RecursionError) as error:
        raise ReportError(f"expected a report, got {error}") from error
    if not (isinstance(event, int) and isinstance(calls, int) and isinstance(expected, str) and isinstance(got, str)):
        raise ReportError("expected two numbers and two texts in a report, got others")
    return Report(
        verdict,
        divergence=Divergence(event, calls, expected[:_REPORTED_TEXT_MAX], got[:_REPORTED_TEXT_MAX]),
    )
