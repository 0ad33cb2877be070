"""Worlds for one component, and components of componentize-qjs taken out of their wrapper."""

import pytest

from sandbox.images.flatten import JOBS, LOADER, OURS, PREAMBLE, FlattenError, flatten
from sandbox.images.javascript import WIT
from sandbox.images.python_module import authors_part
from sandbox.images.worlds import world_of

RUNTIME = (WIT / "runtime.wit").read_text(encoding="utf-8")


def test_a_module_imports_what_it_was_granted_and_log_and_context() -> None:
    world = world_of(RUNTIME, name="mine", interfaces=("kv", "files"))
    assert world.interfaces == ("log", "context", "kv")
    assert "import kv;" in world.text
    assert "agents" not in world.text
    assert "export process" in world.text


def test_an_image_imports_every_interface_but_the_internal_one() -> None:
    world = world_of(RUNTIME, name="mine", includes="image", more=("wasi:random/random@0.2.12",))
    assert {"log", "context", "kv", "agents"} <= set(world.interfaces)
    assert "module-loader" not in world.interfaces
    assert "include image;" in world.text
    assert "import wasi:random/random@0.2.12;" in world.text


def _section(kind: int, body: bytes) -> bytes:
    length, pieces = len(body), bytearray([kind])
    while length >= 0x80:
        pieces.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*pieces, length]) + body


def _import(name: bytes) -> bytes:
    return _section(10, b"\x01\0" + bytes([len(name)]) + name + b"\x05\0")


def test_the_inner_component_comes_out_with_its_open_import_renamed() -> None:
    inner = PREAMBLE + _section(0, b"x" * 300) + _import(LOADER)
    other = PREAMBLE + _import(b"a:b/c")
    assert flatten(PREAMBLE + _section(4, other) + _section(4, inner)) == PREAMBLE + _section(0, b"x" * 300) + _import(
        OURS
    )


@pytest.mark.parametrize(
    "data", [b"", b"\0asm\x01\0\0\0", PREAMBLE, PREAMBLE + _section(4, PREAMBLE), PREAMBLE + b"\x04\x80"]
)
def test_other_binaries_are_refused(data: bytes) -> None:
    with pytest.raises(FlattenError):
        flatten(data)


RUN_JOBS = b"[async-lift]run-jobs"
RUN = b"\x01\x01\x00\x13\x03run"
RESOLVE = b"\x01\x01\x00\x12\x07resolve"
LOWERED = b"\x01\x00\x1d\x02\x03\x00\x00"
RETURN = b"\x09\x01\x00\x02\x03\x00\x00"
RESET = b"\x01\x00\x00\x01\x02\x13reset_adapter_state"
START = b"\x00\x00\x01\x25" + bytes([len(RUN_JOBS)]) + RUN_JOBS
LAST = (
    _section(7, b"\x01C\x01\x07nothings\x01\x00")
    + _section(6, b"\x02" + START + b"\x00\x00\x01\x25\x01c")
    + _section(8, b"\x01\x00\x00\x8c\x01\x00\x30")
    + _section(11, b"\x01\x00\x08run-jobs\x01\x23\x00")
)


def _looping(lowered: bytes, *, last: bytes = LAST, run: bytes = RUN) -> bytes:
    middle = _section(6, RESET) + _section(6, RESOLVE) + _section(6, run) + _section(8, lowered)
    names = _section(0, b"\x0ecomponent-name\x01\x00")
    return PREAMBLE + _section(4, PREAMBLE + _import(LOADER) + _import(JOBS) + middle + last + names)


@pytest.mark.parametrize("lowered", [b"\x01" + LOWERED, b"\x02" + LOWERED + RETURN])
def test_the_export_that_runs_jobs_takes_the_place_of_the_import(lowered: bytes) -> None:
    returned = _section(6, RESET) if RETURN in lowered else b""
    middle = _section(6, RESET) + _section(6, RESOLVE) * 2 + _section(6, b"\x01" + START) + returned
    assert flatten(_looping(lowered)) == PREAMBLE + _import(OURS) + _section(5, b"\x01\x01\x00") + middle


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_looping(b"\x01" + LOWERED, last=LAST + _section(11, b"\x01\x00\x01x\x01\x24\x00")), "to be the last export"),
        (_looping(b"\x01" + LOWERED, run=RESOLVE), "got 0"),
        (_looping(b"\x01\x02\x00"), "to be lowered"),
        (_looping(b"\x02" + LOWERED + b"\x08\x00"), "got 0800"),
        (_looping(b"\x01" + LOWERED, last=LAST.replace(b"lift", b"left")), "core function of run-jobs"),
    ],
)
def test_an_event_loop_of_another_shape_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(FlattenError, match=said):
        flatten(data)


def test_of_what_the_tool_says_the_authors_own_lines_remain() -> None:
    said = (
        "AssertionError: Traceback (most recent call last):\n"
        '  File "/0/module_entry.py", line 19, in <module>\n    entry.load()\n    ~~~~\n'
        '  File "agent.py", line 3, in <module>\n    1 / 0\nZeroDivisionError: division by zero\n'
        "\n\nCaused by:\n    more\n"
    )
    assert authors_part(said) == (
        'Traceback (most recent call last):\n  File "agent.py", line 3, in <module>\n    1 / 0\n'
        "ZeroDivisionError: division by zero"
    )
    assert authors_part("no traceback here") == "no traceback here"
