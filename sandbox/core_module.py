"""Core modules: loading, linking host functions, instances and their memory."""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_bool, c_size_t, c_ubyte, c_void_p
from dataclasses import dataclass
from typing import Final, Self

import wasmtime

from sandbox.engine import (
    Call,
    Engine,
    EngineError,
    HostEntry,
    Store,
    TwoPointers,
    bind,
    c_api,
    check,
    pointer_address,
)

_P = c_void_p
_instantiate = bind("wasmtime_instance_pre_instantiate_async", _P, _P, _P, _P, _P, _P)
_func_call = bind("wasmtime_func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P, _P)
_export_get = bind("wasmtime_instance_export_get", c_bool, _P, _P, _P, c_size_t, _P)
_caller_export_get = bind("wasmtime_caller_export_get", c_bool, _P, _P, c_size_t, _P)
_memory_data = bind("wasmtime_memory_data", _P, _P, _P)
_memory_size = bind("wasmtime_memory_data_size", c_size_t, _P, _P)

HostFunction = Callable[[int, int, int, int, int], None]
"""``(caller, args, results, trap, continuation)``, all of them addresses. It must not raise."""


@dataclass(frozen=True, slots=True)
class ImportedFunction:
    """A function that a core module imports; its parameter and result types as ``i32`` and so on."""

    module: str
    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    type: wasmtime.FuncType


class CoreModule:
    """Compiled core module."""

    def __init__(self, engine: Engine, raw: wasmtime.Module) -> None:
        self.engine, self.raw = engine, raw

    @classmethod
    def compile(cls, engine: Engine, wasm: bytes) -> Self:
        """Compile a module. Starts threads: never in a worker."""
        try:
            return cls(engine, wasmtime.Module(engine.raw, wasm))
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error

    @classmethod
    def deserialize(cls, engine: Engine, compiled: bytes) -> Self:
        """Load compiled code from bytes (copied into private memory). Trusted input only: it is native code."""
        try:
            return cls(engine, wasmtime.Module.deserialize(engine.raw, compiled))
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error

    @classmethod
    def deserialize_file(cls, engine: Engine, path: str) -> Self:
        """Load compiled code by mapping a file. Trusted input only: it is native code."""
        try:
            return cls(engine, wasmtime.Module.deserialize_file(engine.raw, path))
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error

    def serialize(self) -> bytes:
        return bytes(self.raw.serialize())

    def imports(self) -> list[ImportedFunction]:
        """Return the imported functions.

        Raises:
            EngineError: the module imports something that is not a function.
        """
        found = []
        for item in self.raw.imports:
            if not isinstance(item.type, wasmtime.FuncType):
                raise EngineError(f"expected imports of functions only, got {item.module}.{item.name}")
            parameters, results = (tuple(map(str, types)) for types in (item.type.params, item.type.results))
            found.append(ImportedFunction(item.module, item.name or "", parameters, results, item.type))
        return found


class CoreLinker:
    """Host functions by name; ``link`` binds a module to them once for all its instances."""

    def __init__(self, engine: Engine) -> None:
        self._raw = wasmtime.Linker(engine.raw)
        self._kept: list[object] = []

    def define(self, item: ImportedFunction, function: HostFunction) -> None:
        """Serve an import by ``function``, which must set the continuation and must not raise."""

        def entry(_env: int, caller: int, args: int, _n: int, results: int, _m: int, trap: int, after: int) -> None:
            function(caller, args, results, trap, after)

        callback = HostEntry(entry)
        self._kept.append(callback)
        module, name = item.module.encode(), item.name.encode()
        error = c_api.wasmtime_linker_define_async_func(
            self._raw.ptr(),
            ctypes.create_string_buffer(module, len(module)),
            len(module),
            ctypes.create_string_buffer(name, len(name)),
            len(name),
            item.type.ptr(),
            ctypes.cast(callback, c_api.wasmtime_func_async_callback_t),
            None,
            ctypes.cast(0, ctypes.CFUNCTYPE(None, c_void_p)),
        )
        check(ctypes.cast(error, c_void_p).value)

    def link(self, module: CoreModule) -> "LinkedModule":
        try:
            return LinkedModule(self._raw.instantiate_pre(module.raw), self._kept)
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error


class LinkedModule:
    """A core module with all imports bound, ready to be instantiated any number of times."""

    __slots__ = ("_address", "_kept", "_raw")

    def __init__(self, raw: wasmtime._instance_pre.InstancePre, kept: list[object]) -> None:
        self._raw, self._kept, self._address = raw, kept, pointer_address(raw.ptr())

    def instantiate(self, store: Store) -> "tuple[Call, Instance]":
        """Start instantiation, which runs a start function if there is one. The instance is valid once it finished."""
        slots, instance = TwoPointers(), _Instance()
        future = _instantiate(self._address, store.context, instance, slots, byref(slots, 8))
        return Call(future, slots, instance), Instance(store, instance)


_Instance = c_ubyte * ctypes.sizeof(c_api.wasmtime_instance_t)
_Extern = c_ubyte * ctypes.sizeof(c_api.wasmtime_extern_t)
_EXTERN_OF: Final = c_api.wasmtime_extern_t.of.offset
_EXTERN_FUNC: Final = 0
_EXTERN_MEMORY: Final = 3
VAL_BYTES: Final = ctypes.sizeof(c_api.wasmtime_val_t)
VAL_VALUE_OFFSET: Final = c_api.wasmtime_val_t.of.offset


class Instance:
    """A core instance: its exported functions and memory."""

    __slots__ = ("_raw", "_store")

    def __init__(self, store: Store, raw: "ctypes.Array[c_ubyte]") -> None:
        self._store, self._raw = store, raw

    def memory_bytes(self) -> int:
        """Return the present size of the exported memory, 0 if there is none."""
        context, extern = self._store.context, _Extern()
        if not _export_get(context, self._raw, b"memory", 6, extern) or extern[0] != _EXTERN_MEMORY:
            return 0
        return _memory_size(context, byref(extern, _EXTERN_OF))

    def start(self, name: bytes) -> Call:
        """Start a call of an exported function without parameters and results.

        Raises:
            EngineError: there is no such function.
        """
        store, extern, slots = self._store, _Extern(), TwoPointers()
        if not _export_get(store.context, self._raw, name, len(name), extern) or extern[0] != _EXTERN_FUNC:
            raise EngineError(f"expected an exported function {name.decode()}, got none")
        future = _func_call(store.context, byref(extern, _EXTERN_OF), None, 0, None, 0, slots, byref(slots, 8))
        return Call(future, slots, extern)


class GuestMemory:
    """The exported memory of the instance whose import is running; every access is checked against its present size.

    It does not move (pooled, ``memory_may_move`` off), it only grows: so the view is renewed when an access lies past
    its end. It must be forgotten before its store is closed.
    """

    __slots__ = ("_base", "_context", "_extern", "size", "view")

    def __init__(self, caller: int, store: Store) -> None:
        extern = _Extern()
        if not _caller_export_get(caller, b"memory", 6, extern) or extern[0] != _EXTERN_MEMORY:
            raise EngineError("expected an exported memory, got none")
        self._context, self._extern = store.context, extern
        self._base = _memory_data(self._context, byref(extern, _EXTERN_OF))
        self.size = 0
        self.view = memoryview(b"")
        self._renew()

    def _renew(self) -> None:
        size = _memory_size(self._context, byref(self._extern, _EXTERN_OF))
        if size != self.size:
            self.view = memoryview((c_ubyte * size).from_address(self._base)).cast("B")
            self.size = size

    def reach(self, offset: int, length: int) -> memoryview:
        """Return the view of the whole memory after checking that ``length`` bytes lie in it at ``offset``.

        Raises:
            OutOfBoundsError: they do not.
        """
        if offset + length > self.size:
            self._renew()
            if offset + length > self.size:
                raise OutOfBoundsError(offset, length, self.size)
        return self.view


class OutOfBoundsError(Exception):
    """A guest passed a pointer outside its memory."""

    def __init__(self, offset: int, length: int, size: int) -> None:
        super().__init__(f"expected {length} bytes at {offset} inside a memory of {size} bytes")
