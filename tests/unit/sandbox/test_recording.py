"""The form of a recording: what was written is read, and nothing else is."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from sandbox.recording import (
    CUT_CALLS,
    RecordedCall,
    RecordedEnd,
    RecordedLine,
    Recording,
    RecordingFormatError,
    digest,
    read,
    write,
)
from tests.recorded import PROVENANCE

ANSWER = b'{"ok":{"value":"\xc3\xa9"}}'
WHOLE = Recording(
    provenance=PROVENANCE,
    abi="image",
    module_sha256="a" * 64,
    source=b"def process(text): return text",
    engine="e" * 64,
    input="héllo\0\n".encode(),
    config=b"{}",
    granted=frozenset({"agentfactory:runtime/kv@0.1.0"}),
    limits=SandboxLimits(wall_ms=7),
    seed=bytes(range(32)),
    tape=b"\x00\xff\x80",
    calls=(
        RecordedCall(
            interface="kv",
            function="get",
            argument_sha256=digest(b"{}"),
            argument_bytes=2,
            answer=ANSWER,
            answer_sha256=digest(ANSWER),
        ),
        RecordedCall(interface="kv", function="put", argument_sha256=digest(b"x"), argument_bytes=1),
    ),
    end=RecordedEnd(
        kind=FailureKind.DEADLINE,
        message="expected an answer within 7 ms",
        output=None,
        output_sha256="",
        fuel=3,
        host_calls=2,
        wasi_calls=1,
        from_outside=True,
        logs=(RecordedLine("info", "begun é"), RecordedLine("stdout", "")),
    ),
    cut=frozenset({CUT_CALLS}),
)


def changed(**members: Any) -> bytes:
    return json.dumps(json.loads(write(WHOLE)) | members).encode()


def test_what_was_written_is_read() -> None:
    assert read(write(WHOLE)) == WHOLE
    assert not WHOLE.calls[0].is_edited
    assert dataclasses.replace(WHOLE.calls[0], answer=b"{}").is_edited


def test_a_recording_from_before_log_lines_were_kept_is_read() -> None:
    document = json.loads(write(WHOLE))
    del document["end"]["logs"]
    assert read(json.dumps(document).encode()).end == dataclasses.replace(WHOLE.end, logs=None)


@given(st.binary(max_size=50), st.binary(max_size=50), st.none() | st.binary(max_size=50))
def test_bytes_of_any_kind_travel(tape: bytes, text: bytes, source: bytes | None) -> None:
    recording = dataclasses.replace(WHOLE, tape=tape, input=text, source=source)
    assert read(write(recording)) == recording


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":"agentfactory-recording/1"}',
        write(WHOLE).replace(b"recording/1", b"recording/2"),
        write(WHOLE).replace(b'{"format"', b'{"abi":"image","format"'),
        changed(abi="native"),
        changed(cut=["everything"]),
        changed(cut=[1]),
        changed(seed="00"),
        changed(seed="é" * 64),
        changed(module_sha256="../../etc/passwd"),
        changed(limits={"fuel": -1}),
        changed(limits={"fuel": 1 << 63}),
        changed(limits={"unknown": 1}),
        changed(limits=[]),
        changed(calls={}),
        changed(calls=[1]),
        changed(calls=[{"interface": "kv"}]),
        changed(granted="kv"),
        changed(granted=[1]),
        changed(input=1),
        changed(input="\ud800"),
        changed(tape_base64="not base64!"),
        changed(provenance=None),
        changed(end={**json.loads(write(WHOLE))["end"], "kind": "HAPPY"}),
        changed(end={**json.loads(write(WHOLE))["end"], "fuel": True}),
        changed(end={**json.loads(write(WHOLE))["end"], "from_outside": 1}),
        changed(end={**json.loads(write(WHOLE))["end"], "logs": "said"}),
        changed(end={**json.loads(write(WHOLE))["end"], "logs": [["info"]]}),
        changed(end={**json.loads(write(WHOLE))["end"], "logs": [["info", 1]]}),
        changed(end={**json.loads(write(WHOLE))["end"], "logs": [["info", "said", "twice"]]}),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(RecordingFormatError):
        read(data)


def test_a_recording_ends_early_when_it_was_cut_or_stopped_from_outside() -> None:
    own = dataclasses.replace(WHOLE.end, kind=FailureKind.FUEL, from_outside=False)
    assert WHOLE.ends_early
    assert dataclasses.replace(WHOLE, end=own).ends_early
    assert dataclasses.replace(WHOLE, cut=frozenset()).ends_early
    assert not dataclasses.replace(WHOLE, end=own, cut=frozenset()).ends_early
