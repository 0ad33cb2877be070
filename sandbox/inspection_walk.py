"""Find the memories and tables that the core modules inside a binary declare: a walk over section headers.

wasmtime's API tells a component's imports and exports, but not what its inner modules declare. The walk runs only
after wasmtime validated the same bytes, so it follows the format (WebAssembly core specification, chapter 5.5;
component model, Binary.md) without judging it, and still stops with ``WalkError`` at what it does not understand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PAGE_BYTES: Final = 65_536
NESTING_MAX: Final = 32

_PREAMBLE_BYTES: Final = 8
_COMPONENT_LAYER: Final = b"\x0d\x00\x01\x00"
_CORE_LAYER: Final = b"\x01\x00\x00\x00"
_COMPONENT_CORE_MODULE, _COMPONENT_COMPONENT = 1, 4
_CORE_IMPORT, _CORE_TABLE, _CORE_MEMORY = 2, 4, 5
_EXTERN_FUNC, _EXTERN_TABLE, _EXTERN_MEMORY, _EXTERN_GLOBAL, _EXTERN_TAG = range(5)
_HAS_MAXIMUM = 1
_FUNCREF, _EXTERNREF = 0x70, 0x6F
_LEB_BYTES_MAX: Final = 10


class WalkError(Exception):
    """The binary uses a form that this walk does not know: then its declarations are not known either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of a memory in bytes, of a table in elements; ``imported`` when the module expects it from outside."""

    minimum: int
    maximum: int | None
    imported: bool = False


@dataclass(slots=True)
class Declarations:
    """In the order of the binary."""

    memories: list[Limits]
    tables: list[Limits]


def walk(data: bytes) -> Declarations:
    """Return every memory and table that ``data`` or a core module nested in it declares.

    Raises:
        WalkError: an unknown form, or nesting beyond ``NESTING_MAX``.
    """
    found = Declarations([], [])
    try:
        _walk_binary(_Reader(memoryview(data)), found, depth=0)
    except IndexError:
        raise WalkError("expected more bytes, got the end of the binary") from None
    return found


class _Reader:
    """A position in a view of the binary."""

    __slots__ = ("position", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.position = 0

    def byte(self) -> int:
        value = self.view[self.position]
        self.position += 1
        return value

    def unsigned(self) -> int:
        """LEB128, at most 64 bits."""
        value = 0
        for shift in range(0, 7 * _LEB_BYTES_MAX, 7):
            piece = self.byte()
            value |= (piece & 0x7F) << shift
            if not piece & 0x80:
                return value
        raise WalkError(f"expected at most {_LEB_BYTES_MAX} bytes of LEB128, got more")

    def slice(self, length: int) -> "_Reader":
        end = self.position + length
        if end > len(self.view):
            raise IndexError
        inner = _Reader(self.view[self.position : end])
        self.position = end
        return inner

    def skip_name(self) -> None:
        self.slice(self.unsigned())

    def sections(self) -> Iterator[tuple[int, "_Reader"]]:
        while self.position < len(self.view):
            kind = self.byte()
            yield kind, self.slice(self.unsigned())


def _walk_binary(reader: _Reader, found: Declarations, *, depth: int) -> None:
    if depth > NESTING_MAX:
        raise WalkError(f"expected at most {NESTING_MAX} nested components, got more")
    layer = bytes(reader.slice(_PREAMBLE_BYTES).view[4:])
    if layer == _CORE_LAYER:
        _walk_core(reader, found)
    elif layer == _COMPONENT_LAYER:
        for kind, section in reader.sections():
            if kind in {_COMPONENT_CORE_MODULE, _COMPONENT_COMPONENT}:
                _walk_binary(section, found, depth=depth + 1)
    else:
        raise WalkError(f"expected a core module or a component, got version {layer.hex()}")


def _walk_core(reader: _Reader, found: Declarations) -> None:
    for kind, section in reader.sections():
        if kind == _CORE_IMPORT:
            for _ in range(section.unsigned()):
                _import(section, found)
        elif kind == _CORE_TABLE:
            for _ in range(section.unsigned()):
                found.tables.append(_table(section))
        elif kind == _CORE_MEMORY:
            for _ in range(section.unsigned()):
                found.memories.append(_memory(section))


def _import(section: _Reader, found: Declarations) -> None:
    section.skip_name()
    section.skip_name()
    kind = section.byte()
    if kind == _EXTERN_FUNC:
        section.unsigned()
    elif kind == _EXTERN_TABLE:
        found.tables.append(_table(section, imported=True))
    elif kind == _EXTERN_MEMORY:
        found.memories.append(_memory(section, imported=True))
    elif kind == _EXTERN_GLOBAL:
        section.byte()
        section.byte()
    elif kind == _EXTERN_TAG:
        section.byte()
        section.unsigned()
    else:
        raise WalkError(f"expected a kind of import from 0 to 4, got {kind}")


def _table(section: _Reader, *, imported: bool = False) -> Limits:
    reference = section.byte()
    if reference not in {_FUNCREF, _EXTERNREF}:  # typed references and initialisers need proposals that are off
        raise WalkError(f"expected a table of funcref or externref, got type {reference:#x}")
    flags = section.byte()
    if flags & ~_HAS_MAXIMUM:
        raise WalkError(f"expected a 32-bit table, got flags {flags:#x}")
    minimum = section.unsigned()
    return Limits(minimum=minimum, maximum=section.unsigned() if flags & _HAS_MAXIMUM else None, imported=imported)


def _memory(section: _Reader, *, imported: bool = False) -> Limits:
    flags = section.byte()
    if flags & ~_HAS_MAXIMUM:  # shared, 64-bit and small pages are proposals that are off
        raise WalkError(f"expected a 32-bit unshared memory, got flags {flags:#x}")
    minimum = section.unsigned() * PAGE_BYTES
    maximum = section.unsigned() * PAGE_BYTES if flags & _HAS_MAXIMUM else None
    return Limits(minimum=minimum, maximum=maximum, imported=imported)
