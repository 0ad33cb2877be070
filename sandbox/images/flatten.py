"""Take the component that componentize-qjs made out of the wrapper that it puts around it, and tie its event loop.

The tool lets its QuickJS find modules while it builds, through an import ``local:init/module-loader``. It then closes
that import by composing two components: the one with QuickJS, and a second one whose functions trap. Calls between two
components need code with two memories, and that proposal is switched off in our engine: wasmtime aborts on such a
binary. So the inner component is taken out, it is whole, and its open import gets the name of an interface of ours,
which answers that there is no such module (``wit/runtime.wit``, ``module-loader``).

The tool's QuickJS runs promises' jobs only while it ends a call of an export that is ``async``, and such exports need
a proposal that is off, too. Their core function, ``(i32, i32) -> i32``, needs nothing of it. Our worlds have one, last
of all, ``run-jobs: async func(nothing: string)``, and an import of the same core type, ``jobs.run: func(nothing:
string) -> u32``, which the tool has to bind late because of the text. In place of the import comes the export's core
function; nothing of either is left to be seen from outside. Each change takes the place of one section that defines one
item of the same index, so that no index moves.

Binary format: component model, Binary.md.
"""

from collections.abc import Callable, Iterator
from typing import Final

PREAMBLE: Final = b"\0asm\x0d\0\x01\0"
LOADER: Final = b"local:init/module-loader"
OURS: Final = b"agentfactory:runtime/module-loader@0.1.0"
JOBS: Final = b"agentfactory:runtime/jobs@0.1.0"
_CUSTOM, _COMPONENT, _INSTANCE, _ALIAS, _TYPE, _CANON, _IMPORT, _EXPORT = 0, 4, 5, 6, 7, 8, 10, 11
_PLAIN_NAME: Final = b"\0"
_ONE: Final = b"\x01"
_ONE_FUNCTION_OF_INSTANCE: Final = b"\x01\x01\x00"
_ONE_LOWERED: Final = b"\x01\x01\x00"
_LOWER: Final = b"\x01\x00"
_TASK_RETURN: Final = b"\x09\x01\x00"
_ONE_TASK_RETURN: Final = _ONE + _TASK_RETURN
_OPTIONS_WITH_INDEX: Final = frozenset({3, 4, 5, 7})
_NO_EXPORTS: Final = b"\x01\x01\x00"
_RUN_JOBS: Final = (_TYPE, _ALIAS, _CANON, _EXPORT)
_NAMES_OF_INDICES: Final = b"component-name"

_Section = tuple[int, bytes]


class FlattenError(Exception):
    """The binary is not one that componentize-qjs makes."""


def flatten(data: bytes) -> bytes:
    """Return the component with QuickJS in it, importing ``OURS`` instead of ``LOADER`` and running its own jobs.

    Raises:
        FlattenError: there is not exactly one inner component with that import, or its event loop is not as expected.
    """
    found = []
    for kind, body in _sections(data):
        if kind == _COMPONENT:
            inner = list(_sections(body))
            if any(_opens_loader(*section) for section in inner):
                found.append(inner)
    if len(found) != 1:
        raise FlattenError(f"expected one component that imports {LOADER.decode()}, got {len(found)}")
    sections = [(kind, _renamed(kind, body)) for kind, body in found[0]]
    if any(kind == _IMPORT and _name(JOBS) in body for kind, body in sections):
        sections = _tied([single for section in sections for single in _singles(*section)])
    return PREAMBLE + b"".join(_section(kind, body) for kind, body in sections)


def _opens_loader(kind: int, body: bytes) -> bool:
    return kind == _IMPORT and _name(LOADER) in body


def _renamed(kind: int, body: bytes) -> bytes:
    return body.replace(_name(LOADER), _name(OURS)) if kind == _IMPORT else body


# --- the event loop


def _tied(sections: list[_Section]) -> list[_Section]:
    """Put the core function of ``run-jobs`` in place of the import ``jobs.run``, and leave both out."""
    last = max(at for at, (kind, _) in enumerate(sections) if kind == _EXPORT)
    exported = sections[last - 3 : last + 1]
    if tuple(kind for kind, _ in exported) != _RUN_JOBS or b"run-jobs" not in exported[-1][1]:
        raise FlattenError("expected run-jobs to be the last export, with its type, its functions and its lifting")
    start = _first_alias(exported[1][1])
    jobs = _only(sections, _IMPORT, lambda body: _name(JOBS) in body)
    looked_up = _only(sections, _ALIAS, lambda body: _looks_up(body, b"run"))
    if sections[looked_up + 1][0] != _CANON or not sections[looked_up + 1][1].startswith(_ONE_LOWERED):
        raise FlattenError("expected jobs.run to be lowered where it is looked up")
    loader = _only(sections, _ALIAS, lambda body: _looks_up(body, b"resolve"))
    never_called = _only(sections, _ALIAS, lambda body: body.startswith(_ONE) and body.endswith(b"reset_adapter_state"))
    changed = dict(enumerate(sections))
    changed[jobs] = (_INSTANCE, _NO_EXPORTS)
    changed[looked_up] = sections[loader]  # another function that is there: nobody asks for this one any more
    changed[looked_up + 1] = (_ALIAS, _ONE + start)
    for at, (kind, body) in enumerate(sections):
        if kind == _CANON and body.startswith(_ONE_TASK_RETURN):
            changed[at] = sections[never_called]  # of the same type; run-jobs never returns (quickjs/loop.js)
        if kind == _CUSTOM and body.startswith(_name(_NAMES_OF_INDICES)[1:]):
            del changed[at]
    for at in range(last - 3, last + 1):
        del changed[at]
    return list(changed.values())


def _singles(kind: int, body: bytes) -> Iterator[_Section]:
    """Give the lowering of ``jobs.run`` and what returns from ``run-jobs`` a section each: they may share one."""
    count, position = _read_unsigned(body, 0)
    if kind != _CANON or count == 1 or not body.startswith(_LOWER, position):
        yield kind, body
        return
    for _ in range(count):
        start = position
        if body.startswith(_LOWER, position):
            _, position = _read_unsigned(body, position + len(_LOWER))
        elif body.startswith(_TASK_RETURN, position):
            position += len(_TASK_RETURN)
        else:
            raise FlattenError(
                f"expected a lowering or the return of a task, got {body[position : position + 2].hex()}"
            )
        options, position = _read_unsigned(body, position)
        for _ in range(options):
            option, position = _read_unsigned(body, position)
            if option in _OPTIONS_WITH_INDEX:
                _, position = _read_unsigned(body, position)
        yield kind, _ONE + body[start:position]


def _only(sections: list[_Section], kind: int, matches: Callable[[bytes], bool]) -> int:
    found = [at for at, (each, body) in enumerate(sections) if each == kind and matches(body)]
    if len(found) != 1:
        raise FlattenError(f"expected one section of the event loop of kind {kind}, got {len(found)}")
    return found[0]


def _looks_up(body: bytes, function: bytes) -> bool:
    """Whether a section takes this one function, and nothing else, out of an instance."""
    return body.startswith(_ONE_FUNCTION_OF_INSTANCE) and body.endswith(_name(function)[1:])


def _first_alias(body: bytes) -> bytes:
    """The first entry of a section of aliases of core exports: sort, target, instance, name."""
    count, position = _read_unsigned(body, 0)
    start = position
    _, position = _read_unsigned(body, position + 3)  # sort of two bytes, target of one
    length, position = _read_unsigned(body, position)
    entry = body[start : position + length]
    if count == 0 or not entry.endswith(b"[async-lift]run-jobs"):
        raise FlattenError("expected the core function of run-jobs first")
    return entry


# --- bytes


def _name(name: bytes) -> bytes:
    return _PLAIN_NAME + _unsigned(len(name)) + name


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _unsigned(len(body)) + body


def _sections(data: bytes) -> Iterator[_Section]:
    if not data.startswith(PREAMBLE):
        raise FlattenError("expected a component, got other bytes")
    position = len(PREAMBLE)
    try:
        while position < len(data):
            kind = data[position]
            length, start = _read_unsigned(data, position + 1)
            position = start + length
            yield kind, data[start:position]
    except IndexError:
        raise FlattenError("expected whole sections, got the end of the binary") from None


def _unsigned(value: int) -> bytes:
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _read_unsigned(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
