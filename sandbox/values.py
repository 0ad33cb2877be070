"""Values of components in C: read after kind and size were checked, written without a detour.

A value is 32 bytes in C: its kind, then a union that may point to memory of the engine's allocator. ``sandbox`` reads
and writes these bytes itself: wasmtime-py's types parse the type again for every value, convert before anybody could
look at a size, and take one Python object per byte of a ``list<u8>`` (sandbox notes, engine facts 10, 15).

Readers take the address of a value that stays the engine's, and raise ``WrongKindError`` when a component declared
another type for an import than ours has. Writers return the 32 bytes of a value; what they point to belongs to whoever
gets them.
"""

import ctypes
from ctypes import byref, c_bool, c_char_p, c_size_t, c_ubyte, c_uint32, c_uint64, c_void_p
from struct import Struct
from typing import Final

from sandbox.engine import bind, c_api

VALUE_BYTES: Final = ctypes.sizeof(c_api.wasmtime_component_val_t)
BOOL, U8, U32, U64, STRING, LIST, RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT, FLAGS, RESOURCE = (
    0, 2, 6, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
)  # fmt: skip

_P = c_void_p
_bytes_new = bind("wasm_byte_vec_new", None, _P, c_size_t, c_char_p)
_list_uninit = bind("wasmtime_component_vallist_new_uninit", None, _P, c_size_t)
_tuple_uninit = bind("wasmtime_component_valtuple_new_uninit", None, _P, c_size_t)
_flags_uninit = bind("wasmtime_component_valflags_new_uninit", None, _P, c_size_t)
_record_uninit = bind("wasmtime_component_valrecord_new_uninit", None, _P, c_size_t)
_value_new = bind("wasmtime_component_val_new", _P, c_char_p)
_value_delete = bind("wasmtime_component_val_delete", None, _P)
_to_host = bind("wasmtime_component_resource_any_to_host", _P, _P, _P, _P)
_host_new = bind("wasmtime_component_resource_host_new", _P, c_bool, c_uint32, c_uint32)
_host_rep = bind("wasmtime_component_resource_host_rep", c_uint32, _P)
_host_type = bind("wasmtime_component_resource_host_type", c_uint32, _P)
_host_delete = bind("wasmtime_component_resource_host_delete", None, _P)
_host_to_any = bind("wasmtime_component_resource_host_to_any", _P, _P, _P, _P)
_error_delete = bind("wasmtime_error_delete", None, _P)

_SCALAR = Struct("=B7xQ16x")
_TWO_WORDS = Struct("=B7xQQ8x")
_THREE_WORDS = Struct("=B7xQQQ")
_NAME = Struct("=QQ")
_string_at = ctypes.string_at
_memmove = ctypes.memmove


class WrongKindError(Exception):
    """A component passed a value of another type than the interface says."""


class TooLargeError(Exception):
    """A string or list is longer than its reader allows; nothing of it was converted."""

    def __init__(self, what: str, limit: int, length: int) -> None:
        super().__init__(f"expected at most {limit} {what}, got {length}")
        self.length = length


# --- reading


def _words(address: int, kind: int) -> tuple[int, int, int]:
    found, first, second, third = _THREE_WORDS.unpack(_string_at(address, VALUE_BYTES))
    if found != kind:
        raise WrongKindError(f"expected a value of kind {kind}, got {found}")
    return first, second, third


def read_number(address: int, kind: int) -> int:
    """An unsigned number: ``U8``, ``U32`` or ``U64``."""
    word = _words(address, kind)[0]
    return word if kind == U64 else word & (0xFFFFFFFF if kind == U32 else 0xFF)


def string_length(address: int) -> int:
    """Bytes of UTF-8, without converting any."""
    return _words(address, STRING)[0]


def read_string(address: int, bytes_max: int) -> bytes:
    """UTF-8 that the engine has validated.

    Raises:
        TooLargeError: longer than ``bytes_max``.
    """
    length, data, _ = _words(address, STRING)
    if length > bytes_max:
        raise TooLargeError("bytes of text", bytes_max, length)
    return _string_at(data, length) if length else b""


def read_string_start(address: int, bytes_max: int) -> bytes:
    """The first ``bytes_max`` bytes at most."""
    length, data, _ = _words(address, STRING)
    return _string_at(data, min(length, bytes_max)) if length else b""


def require_list(address: int, count_max: int) -> None:
    """Check kind and length of a list whose elements nobody needs.

    Raises:
        TooLargeError: more than ``count_max``.
    """
    count, _, _ = _words(address, LIST)
    if count > count_max:
        raise TooLargeError("elements", count_max, count)


def read_bytes(address: int, bytes_max: int) -> bytes:
    """A ``list<u8>``: copied whole, then every thirty-second byte taken.

    Raises:
        TooLargeError: longer than ``bytes_max``.
    """
    length, data, _ = _words(address, LIST)
    if length > bytes_max:
        raise TooLargeError("bytes in a list", bytes_max, length)
    if not length:
        return b""
    raw = _string_at(data, length * VALUE_BYTES)
    if raw[0::VALUE_BYTES].count(U8) != length:
        raise WrongKindError("expected a list of u8, got other elements")
    return raw[8::VALUE_BYTES]


def read_elements(address: int, count_max: int) -> range:
    """The addresses of a list's elements.

    Raises:
        TooLargeError: more than ``count_max``.
    """
    count, data, _ = _words(address, LIST)
    if count > count_max:
        raise TooLargeError("elements", count_max, count)
    return range(data, data + count * VALUE_BYTES, VALUE_BYTES)


def read_enum(address: int) -> bytes:
    """The name of the case, which the component's own type bounds to a sensible length."""
    length, data, _ = _words(address, ENUM)
    return _string_at(data, min(length, 64))


def read_flags(address: int, count_max: int) -> frozenset[bytes]:
    """The names of the flags that are set.

    Raises:
        TooLargeError: more than ``count_max``.
    """
    count, data, _ = _words(address, FLAGS)
    if count > count_max:
        raise TooLargeError("flags", count_max, count)
    names = [_NAME.unpack(_string_at(data + at, _NAME.size)) for at in range(0, count * _NAME.size, _NAME.size)]
    return frozenset(_string_at(start, min(length, 64)) for length, start in names)


def read_variant(address: int) -> tuple[bytes, int]:
    """The name of the case, and the address of its payload, 0 for none."""
    length, data, payload = _words(address, VARIANT)
    return _string_at(data, min(length, 64)), payload


def read_field(address: int, index: int, name: bytes) -> int:
    """The address of the value of a record's field, which must have this place and name."""
    count, data, _ = _words(address, RECORD)
    if index >= count:
        raise WrongKindError(f"expected a record with more than {index} fields, got {count}")
    field = data + index * (_NAME.size + VALUE_BYTES)
    length, start = _NAME.unpack(_string_at(field, _NAME.size))
    if _string_at(start, min(length, 64)) != name:
        raise WrongKindError(f"expected a record with the field {name.decode()}, got another")
    return field + _NAME.size


def read_option(address: int) -> int:
    """The address of the value inside, 0 for none."""
    return _words(address, OPTION)[0]


def read_result(address: int) -> tuple[bool, int]:
    """Whether it is ok, and the address of the payload, 0 for none."""
    is_ok, payload, _ = _words(address, RESULT)
    return bool(is_ok & 0xFF), payload


def read_handle(address: int, context: int, resource: int) -> int:
    """The representation behind a borrowed or owned handle; a borrow is given back to the component by this.

    Raises:
        WrongKindError: not a handle of our resource type ``resource``.
    """
    pointer = _words(address, RESOURCE)[0]
    host = c_void_p()
    error = _to_host(context, pointer, byref(host))
    if error:
        _error_delete(error)
        raise WrongKindError("expected a handle of the host, got one of the guest")
    found, representation = _host_type(host), _host_rep(host)
    _host_delete(host)
    if found != resource:
        raise WrongKindError(f"expected a handle of type {resource}, got {found}")
    return representation


# --- writing


def put(address: int, value: bytes) -> None:
    """Hand ``value`` over: the slot at ``address`` owns from now on what it points to."""
    _memmove(address, value, VALUE_BYTES)


def u32(value: int) -> bytes:
    return _SCALAR.pack(U32, value)


def u64(value: int) -> bytes:
    return _SCALAR.pack(U64, value)


def boolean(value: bool) -> bytes:  # noqa: FBT001 - it is the value
    return _SCALAR.pack(BOOL, value)


_vector = (c_uint64 * 2)()
_BYTES_AT_ONCE: Final = 16_384
_form_bytes = (c_ubyte * (_BYTES_AT_ONCE * VALUE_BYTES))()
_form_address = ctypes.addressof(_form_bytes)
_form = memoryview(_form_bytes).cast("B")
_form[0::VALUE_BYTES] = bytes((U8,)) * _BYTES_AT_ONCE


def _name(kind: int, text: bytes) -> bytes:
    _bytes_new(_vector, len(text), text)
    return _TWO_WORDS.pack(kind, _vector[0], _vector[1])


def string(utf8: bytes) -> bytes:
    """``utf8`` must be valid UTF-8: the engine aborts on anything else."""
    return _name(STRING, utf8)


def enum(case: bytes) -> bytes:
    return _name(ENUM, case)


def variant(case: bytes, payload: bytes | None = None) -> bytes:
    _bytes_new(_vector, len(case), case)
    inner = _value_new(payload) if payload is not None else 0
    return _THREE_WORDS.pack(VARIANT, _vector[0], _vector[1], inner)


def option(value: bytes | None) -> bytes:
    return _SCALAR.pack(OPTION, 0 if value is None else _value_new(value))


def ok(value: bytes | None = None) -> bytes:
    return _TWO_WORDS.pack(RESULT, 1, 0 if value is None else _value_new(value))


def err(value: bytes | None = None) -> bytes:
    return _TWO_WORDS.pack(RESULT, 0, 0 if value is None else _value_new(value))


def elements(values: list[bytes]) -> bytes:
    """A list of values."""
    _list_uninit(_vector, len(values))
    length, data = _vector[0], _vector[1]
    if values:
        _memmove(data, b"".join(values), length * VALUE_BYTES)
    return _TWO_WORDS.pack(LIST, length, data)


def pair(first: bytes, second: bytes) -> bytes:
    """A tuple of two."""
    _tuple_uninit(_vector, 2)
    count, data = _vector[0], _vector[1]
    _memmove(data, first + second, 2 * VALUE_BYTES)
    return _TWO_WORDS.pack(TUPLE, count, data)


def byte_list(data: bytes) -> bytes:
    """A ``list<u8>``."""
    size = len(data)
    _list_uninit(_vector, size)
    length, start = _vector[0], _vector[1]
    for at in range(0, size, _BYTES_AT_ONCE):  # through a form that is filled in: three times as fast as a new one
        piece = data[at : at + _BYTES_AT_ONCE]
        end = len(piece) * VALUE_BYTES
        _form[8:end:VALUE_BYTES] = piece
        _memmove(start + at * VALUE_BYTES, _form_address, end)
    return _TWO_WORDS.pack(LIST, length, start)


def record(*fields: tuple[bytes, bytes]) -> bytes:
    """Name and value of every field in the order of the type."""
    entries = []
    for name, value in fields:
        _bytes_new(_vector, len(name), name)
        entries.append(bytes(_vector) + value)
    _record_uninit(_vector, len(fields))
    count, data = _vector[0], _vector[1]
    _memmove(data, b"".join(entries), count * (16 + VALUE_BYTES))
    return _TWO_WORDS.pack(RECORD, count, data)


def flags(*names: bytes) -> bytes:
    """The flags that are set."""
    entries = []
    for name in names:
        _bytes_new(_vector, len(name), name)
        entries.append(bytes(_vector))
    _flags_uninit(_vector, len(names))
    count, data = _vector[0], _vector[1]
    if names:
        _memmove(data, b"".join(entries), count * _NAME.size)
    return _TWO_WORDS.pack(FLAGS, count, data)


def own(context: int, representation: int, resource: int) -> bytes:
    """A handle that the component will own; its end is reported to the resource's destructor."""
    host = _host_new(True, representation, resource)
    any_handle = c_void_p()
    error = _host_to_any(context, host, byref(any_handle))
    _host_delete(host)
    if error:
        _error_delete(error)
        raise WrongKindError("expected room for another handle, got none")
    return _SCALAR.pack(RESOURCE, any_handle.value or 0)


def delete(value: "ctypes.Array[ctypes.c_ubyte]") -> None:
    """Free what a value of ours points to; only for a slot that nobody else owns."""
    _value_delete(value)
