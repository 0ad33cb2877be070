"""Take the component that componentize-qjs made out of the wrapper that it puts around it.

The tool lets its QuickJS find modules while it builds, through an import ``local:init/module-loader``. It then closes
that import by composing two components: the one with QuickJS, and a second one whose functions trap. Calls between two
components need code with two memories, and that proposal is switched off in our engine: wasmtime aborts on such a
binary. So the inner component is taken out, it is whole, and its open import gets the name of an interface of ours,
which answers that there is no such module (``wit/runtime.wit``, ``module-loader``).

Binary format: component model, Binary.md.
"""

from collections.abc import Iterator
from typing import Final

PREAMBLE: Final = b"\0asm\x0d\0\x01\0"
LOADER: Final = b"local:init/module-loader"
OURS: Final = b"agentfactory:runtime/module-loader@0.1.0"
_COMPONENT, _IMPORT = 4, 10
_PLAIN_NAME: Final = b"\0"


class FlattenError(Exception):
    """The binary is not one that componentize-qjs makes."""


def flatten(data: bytes) -> bytes:
    """Return the component with QuickJS in it, importing ``OURS`` instead of ``LOADER``.

    Raises:
        FlattenError: there is not exactly one inner component with that import.
    """
    found = []
    for kind, body in _sections(data):
        if kind == _COMPONENT:
            inner = list(_sections(body))
            if any(_opens_loader(*section) for section in inner):
                found.append(inner)
    if len(found) != 1:
        raise FlattenError(f"expected one component that imports {LOADER.decode()}, got {len(found)}")
    return PREAMBLE + b"".join(_section(kind, _renamed(kind, body)) for kind, body in found[0])


def _opens_loader(kind: int, body: bytes) -> bool:
    return kind == _IMPORT and _name(LOADER) in body


def _renamed(kind: int, body: bytes) -> bytes:
    return body.replace(_name(LOADER), _name(OURS)) if kind == _IMPORT else body


def _name(name: bytes) -> bytes:
    return _PLAIN_NAME + _unsigned(len(name)) + name


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _unsigned(len(body)) + body


def _sections(data: bytes) -> Iterator[tuple[int, bytes]]:
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
