"""One recorded invocation: everything that decides what its guest does, and what came of it.

A recording is JSON. Text stands in it as text, other bytes under ``<name>_base64``. It names its module by digest and
holds the author's source, which is small. ``read`` takes a recording from anywhere: it is strict, bounded, and believes
nothing but its form.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sandbox.limits import SandboxLimits
from sandbox.nature import SEED_BYTES
from sandbox.outcome import FailureKind
from sandbox.request import Abi

FORMAT: Final = "agentfactory-recording/1"
RECORDING_BYTES_CEILING: Final = 64 << 20
"""Longest recording that is read."""
CUT_TAPE: Final = "tape"
CUT_CALLS: Final = "calls"
CUT_OUTPUT: Final = "output"
CUT_LOGS: Final = "logs"
CUTS: Final = frozenset({CUT_TAPE, CUT_CALLS, CUT_OUTPUT, CUT_LOGS})

STOPPED_FROM_OUTSIDE: Final = frozenset(
    {FailureKind.DEADLINE, FailureKind.CANCELLED, FailureKind.CRASH, FailureKind.REVOKED}
)
"""Failures that are not the guest's doing."""

_ABIS: Final = frozenset({"component", "image", "command"})


class RecordingFormatError(Exception):
    """The bytes are not a recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One host call. ``answer`` is None when the invocation ended before it came.

    ``fuel`` is what others burned for it, which the guest's own fuel was reduced by when the answer came.
    """

    interface: str
    function: str
    argument_sha256: str
    argument_bytes: int
    answer: bytes | None = field(default=None, repr=False)
    answer_sha256: str = ""
    fuel: int = 0

    @property
    def name(self) -> str:
        return f"{self.interface}.{self.function}"

    @property
    def is_edited(self) -> bool:
        """The answer is not the one that was recorded."""
        return self.answer is not None and digest(self.answer) != self.answer_sha256


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """A log line, without the moment."""

    level: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEnd:
    """What the sandbox made of it. ``output`` is None when there was none, or when it was too long to be kept.

    ``logs`` is None in recordings from before they were kept.

    ``from_outside``: something else than the guest ended it (its deadline, a revocation, the death of its worker), at a
    moment that no replay meets again.
    """

    kind: FailureKind | None
    message: str
    output: bytes | None = field(repr=False)
    output_sha256: str
    fuel: int
    host_calls: int
    wasi_calls: int
    from_outside: bool = False
    logs: tuple[RecordedLine, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where and when it ran. For people: nothing of it but ``invocation_id`` reaches the guest."""

    invocation_id: str
    tenant: str
    caller: str
    agent: str
    node: str
    generation: int
    template: str
    template_sha256: str
    started: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """``granted`` are full interface names; ``engine`` is the fingerprint; ``cut`` says what was left out for size."""

    provenance: Provenance
    abi: Abi
    module_sha256: str
    source: bytes | None = field(repr=False)
    engine: str
    input: bytes = field(repr=False)
    config: bytes = field(repr=False)
    granted: frozenset[str]
    limits: SandboxLimits
    seed: bytes = field(repr=False)
    tape: bytes = field(repr=False)
    calls: tuple[RecordedCall, ...]
    end: RecordedEnd
    cut: frozenset[str] = frozenset()

    @property
    def ends_early(self) -> bool:
        """It does not hold all that the guest read: a replay that follows it to its end has no more to follow."""
        return bool(self.cut & {CUT_TAPE, CUT_CALLS}) or self.end.from_outside


def digest(data: bytes) -> str:
    """Return the sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write(recording: Recording) -> bytes:
    """Return the bytes of a recording."""
    end = recording.end
    document = {
        "format": FORMAT,
        "provenance": dataclasses.asdict(recording.provenance),
        "abi": recording.abi,
        "module_sha256": recording.module_sha256,
        **_bytes("source", recording.source),
        "engine": recording.engine,
        **_bytes("input", recording.input),
        **_bytes("config", recording.config),
        "granted": sorted(recording.granted),
        "limits": dataclasses.asdict(recording.limits),
        "seed": recording.seed.hex(),
        "tape_base64": base64.b64encode(recording.tape).decode(),
        "calls": [_call(call) for call in recording.calls],
        "end": {
            "kind": None if end.kind is None else str(end.kind),
            "message": end.message,
            **_bytes("output", end.output),
            "output_sha256": end.output_sha256,
            "fuel": end.fuel,
            "host_calls": end.host_calls,
            "wasi_calls": end.wasi_calls,
            "from_outside": end.from_outside,
            "logs": None if end.logs is None else [[each.level, each.message] for each in end.logs],
        },
        "cut": sorted(recording.cut),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read(data: bytes) -> Recording:
    """Read a recording.

    Raises:
        RecordingFormatError: these bytes are none.
    """
    if len(data) > RECORDING_BYTES_CEILING:
        raise RecordingFormatError(f"expected at most {RECORDING_BYTES_CEILING} bytes, got {len(data)}")
    try:
        document = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise RecordingFormatError(f"expected a recording in JSON, got {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordingFormatError(f"expected the format {FORMAT}, got another document")
    members = _Members(document, "recording")
    abi = members.text("abi")
    seed = bytes.fromhex(_hexadecimal(members.text("seed"), 2 * SEED_BYTES))
    cut = frozenset(members.texts("cut"))
    if abi not in _ABIS or not cut <= CUTS:
        raise RecordingFormatError(f"expected a known abi and known cuts, got {abi[:20]!r} and {len(cut)} cuts")
    provenance, end = members.inner("provenance"), members.inner("end")
    kind = end.optional_text("kind")
    try:
        limits = SandboxLimits(**_numbers(members.inner("limits")))
        failure = None if kind is None else FailureKind(kind)
    except (TypeError, ValueError) as error:
        raise RecordingFormatError(f"expected limits and a kind of failure, got {error}") from error
    return Recording(
        provenance=Provenance(
            invocation_id=provenance.text("invocation_id"),
            tenant=provenance.text("tenant"),
            caller=provenance.text("caller"),
            agent=provenance.text("agent"),
            node=provenance.text("node"),
            generation=provenance.number("generation"),
            template=provenance.text("template"),
            template_sha256=provenance.text("template_sha256"),
            started=provenance.text("started"),
        ),
        abi=cast("Abi", abi),
        module_sha256=_hexadecimal(members.text("module_sha256"), 64),
        source=members.optional_data("source"),
        engine=members.text("engine"),
        input=members.data("input"),
        config=members.data("config"),
        granted=frozenset(members.texts("granted")),
        limits=limits,
        seed=seed,
        tape=members.data("tape"),
        calls=tuple(_read_call(_Members(each, "call")) for each in members.items("calls")),
        end=RecordedEnd(
            kind=failure,
            message=end.text("message"),
            output=end.optional_data("output"),
            output_sha256=end.text("output_sha256"),
            fuel=end.number("fuel"),
            host_calls=end.number("host_calls"),
            wasi_calls=end.number("wasi_calls"),
            from_outside=end.truth("from_outside"),
            logs=_read_lines(end),
        ),
        cut=cut,
    )


def _call(call: RecordedCall) -> dict[str, Any]:
    return {
        "interface": call.interface,
        "function": call.function,
        "argument_sha256": call.argument_sha256,
        "argument_bytes": call.argument_bytes,
        **_bytes("answer", call.answer),
        "answer_sha256": call.answer_sha256,
        "fuel": call.fuel,
    }


def _read_call(members: "_Members") -> RecordedCall:
    return RecordedCall(
        interface=members.text("interface"),
        function=members.text("function"),
        argument_sha256=members.text("argument_sha256"),
        argument_bytes=members.number("argument_bytes"),
        answer=members.optional_data("answer"),
        answer_sha256=members.text("answer_sha256"),
        fuel=members.number("fuel"),
    )


def _read_lines(end: "_Members") -> tuple[RecordedLine, ...] | None:
    if not end.has("logs"):
        return None
    pairs = end.items("logs")
    for each in pairs:
        if not isinstance(each, list) or [type(part) for part in each] != [str, str]:
            raise RecordingFormatError("expected a level and a text as each of end.logs")
    return tuple(RecordedLine(*each) for each in pairs)


def _bytes(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member twice")
    return found


def _hexadecimal(text: str, length: int) -> str:
    if len(text) != length or set(text) - set("0123456789abcdef"):
        raise RecordingFormatError(f"expected {length} hexadecimal digits, got {text[:80]!r}")
    return text


def _numbers(members: "_Members") -> dict[str, int]:
    return {name: members.number(name) for name in members.names}


class _Members:
    """Members of an object, by the type they must have."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise RecordingFormatError(f"expected an object as {where}, got {type(value).__name__}")
        self._value: dict[str, Any] = value
        self._where = where

    @property
    def names(self) -> list[str]:
        return list(self._value)

    def has(self, name: str) -> bool:
        """Say whether there is such a member that is not null."""
        return self._value.get(name) is not None

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if name in self._value and self._value[name] is None else self.text(name)

    def number(self, name: str) -> int:
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(name, "a number", value)
        return value

    def truth(self, name: str) -> bool:
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def items(self, name: str) -> list[Any]:
        value = self._value.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def texts(self, name: str) -> list[str]:
        found = self.items(name)
        if not all(isinstance(each, str) for each in found):
            raise self._wrong(name, "texts", found)
        return found

    def inner(self, name: str) -> "_Members":
        return _Members(self._value.get(name), name)

    def data(self, name: str) -> bytes:
        if f"{name}_base64" not in self._value:
            try:
                return self.text(name).encode()
            except UnicodeEncodeError as error:
                raise self._wrong(name, "text that is Unicode", "a lone surrogate") from error
        try:
            return base64.b64decode(self.text(f"{name}_base64"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._wrong(name, "base64", str(error)) from error

    def optional_data(self, name: str) -> bytes | None:
        return None if name in self._value and self._value[name] is None else self.data(name)

    def _wrong(self, name: str, expected: str, got: object) -> RecordingFormatError:
        return RecordingFormatError(f"expected {expected} as {self._where}.{name}, got {str(got)[:40]!r}")
