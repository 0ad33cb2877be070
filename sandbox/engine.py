"""The engine: configuration, stores, calls in progress and answers to imports.

The asynchronous C API, the pooling allocator and several switches exist only in ``wasmtime._bindings``. This module
checks at import that the wheel has them and wraps them thinly. Beside it, ``core_module`` wraps core modules and what
only components need builds on ``c_api``, ``Engine``, ``Store`` and ``Call``; nothing else in the product sees wasmtime.

Hot functions are bound a second time with plain addresses as parameters: it halves the cost of a call from Python and a
call through ``PyDLL`` keeps the interpreter lock, which a worker with one thread never needs to give away.
"""

import ctypes
import hashlib
import json
import re
from collections.abc import Callable
from ctypes import PyDLL, byref, c_bool, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from importlib.metadata import version
from struct import Struct
from typing import Final

import wasmtime
from wasmtime import _bindings, _ffi

c_api = _bindings

MIB: Final = 1 << 20

# Everything that changes compiled code or what a module may contain. Part of the fingerprint.
_CODE_SWITCHES: Final[dict[str, bool]] = {
    "consume_fuel": True,
    "epoch_interruption": False,
    "cranelift_nan_canonicalization": True,
    "memory_may_move": False,
    "memory_init_cow": True,
    "native_unwind_info": False,
    "debug_info": False,
    # Needed by the CPython, QuickJS, C, Go and Rust toolchains.
    "wasm_reference_types": True,
    "wasm_bulk_memory": True,
    "wasm_multi_value": True,
    "wasm_simd": True,
    "wasm_component_model": True,
    # Everything else is off: each proposal is attack surface (component-model-async: CVE-2026-115384).
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_gc": False,
    "gc_support": False,
    "wasm_exceptions": False,
    "wasm_tail_call": False,
    "wasm_relaxed_simd": False,
    "wasm_function_references": False,
    "wasm_wide_arithmetic": False,
    "wasm_stack_switching": False,
    "wasm_custom_page_sizes": False,
    "wasm_compact_imports": False,
    "wasm_branch_hinting": False,
    # Not a proposal, and off too: with it, wasmtime 50 traps on a host call with two borrowed handles, such as a `poll`
    # of two pollables ("deferred host scope has no call context").
    "concurrency_support": False,
    "wasm_component_model_async": False,
    "wasm_component_model_more_async_builtins": False,
    "wasm_component_model_async_stackful": False,
    "wasm_component_model_map": False,
    "wasm_component_model_implements": False,
    "wasm_component_model_accessors": False,
}
_CODE_SIZES: Final[dict[str, int]] = {"memory_reservation": 4 << 30, "memory_guard_size": 32 * MIB}
WASM_STACK_BYTES: Final = 2 * MIB  # CPython parses 200 nested brackets, its own limit
FIBER_STACK_BYTES: Final = 3 * MIB  # must exceed the guest's part: host functions run on the rest
FUEL_PER_SLICE: Final = 200_000

_SYMBOLS: Final = (
    "wasmtime_call_future_poll",
    "wasmtime_call_future_delete",
    "wasmtime_func_call_async",
    "wasmtime_instance_pre_instantiate_async",
    "wasmtime_linker_define_async_func",
    "wasmtime_component_func_call_async",
    "wasmtime_component_linker_instantiate_async",
    "wasmtime_component_linker_instance_add_func_async",
    "wasmtime_context_fuel_async_yield_interval",
    "wasmtime_config_async_stack_size_set",
    "wasmtime_pooling_allocation_strategy_set",
    *(f"wasmtime_config_{name}_set" for name in (*_CODE_SWITCHES, *_CODE_SIZES)),
)


class EngineError(Exception):
    """The engine refused something: a module, a link, an instance. Not a trap of running code."""


class Trapped(Exception):  # noqa: N818 - it is what happened to the guest, not an error of ours
    """Guest code ended in a trap. ``code`` is the engine's, or None for a trap that a host function raised."""

    def __init__(self, code: "wasmtime.TrapCode | None", message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_out_of_fuel(self) -> bool:
        return self.code is wasmtime.TrapCode.OUT_OF_FUEL

    @property
    def is_unreachable(self) -> bool:
        """The guest gave up by itself, as allocators do that find no memory."""
        return self.code is wasmtime.TrapCode.UNREACHABLE


def _check_symbols() -> None:
    missing = [name for name in _SYMBOLS if not hasattr(c_api, name)]
    if missing:
        raise EngineError(f"expected a wasmtime wheel with {', '.join(missing)}, got {version('wasmtime')}")


_check_symbols()
_lib = PyDLL(str(_ffi.filename))


def bind(name: str, result: type | None, *parameters: type) -> Callable[..., int]:
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, parameters
    return function  # type: ignore[no-any-return]  # ctypes functions are untyped


_P = c_void_p
_store_new = bind("wasmtime_store_new", _P, _P, _P, _P)
_store_delete = bind("wasmtime_store_delete", None, _P)
_store_context = bind("wasmtime_store_context", _P, _P)
_store_limiter = bind("wasmtime_store_limiter", None, _P, c_int64, c_int64, c_int64, c_int64, c_int64)
_set_fuel = bind("wasmtime_context_set_fuel", _P, _P, c_uint64)
_get_fuel = bind("wasmtime_context_get_fuel", _P, _P, _P)
_yield_interval = bind("wasmtime_context_fuel_async_yield_interval", _P, _P, c_uint64)
_future_poll = bind("wasmtime_call_future_poll", c_bool, _P)
_future_delete = bind("wasmtime_call_future_delete", None, _P)
_trap_new = bind("wasmtime_trap_new", _P, _P, c_size_t)
_error_new = bind("wasmtime_error_new", _P, ctypes.c_char_p)

# A continuation is {callback(env) -> bool, env, finalizer}. Most imports are answered when they return; for them the
# callback is libc's labs with env 1: true at once, without a second way through the interpreter.
_CONTINUATION = Struct("=QQQ")
_CONTINUATION_BYTES: Final = _CONTINUATION.size
_AT_ONCE: Final = _CONTINUATION.pack(ctypes.cast(ctypes.CDLL(None).labs, c_void_p).value, 1, 0)
_memmove = ctypes.memmove

ContinuationCallback = ctypes.CFUNCTYPE(c_bool, c_void_p)
HostEntry = ctypes.CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)  # env, caller, args, nargs, results, nresults, trap, continuation


def answer_at_once(continuation: int) -> None:
    """Tell the engine that the import's results are in place when the host function returns."""
    _memmove(continuation, _AT_ONCE, _CONTINUATION_BYTES)


def answer_when(continuation: int, callback: int, env: int) -> None:
    """Tell the engine to ask ``callback(env)`` at every poll until it says True."""
    _memmove(continuation, _CONTINUATION.pack(callback, env, 0), _CONTINUATION_BYTES)


def address_of(callback: "ctypes._FuncPointer") -> int:
    """Return the address of a ctypes callback, which the caller must keep alive."""
    address = ctypes.cast(callback, c_void_p).value
    if address is None:
        raise EngineError("expected a callback, got a null pointer")
    return address


def raise_trap(trap: int, message: str) -> None:
    """Make the running import trap; ``trap`` is the address of its trap slot, read when the host function returns."""
    raw = message.encode()
    c_uint64.from_address(trap).value = _trap_new(raw, len(raw))


def raise_error(error: int, message: str) -> None:
    """Make the running import of a component fail; ``error`` is the address of its error slot, read when it returns."""
    c_uint64.from_address(error).value = _error_new(message.encode().replace(b"\0", b" "))


def _error_text(address: int) -> str:
    pointer = ctypes.cast(address, ctypes.POINTER(c_api.wasmtime_error_t))
    return str(wasmtime.WasmtimeError._from_ptr(pointer))  # noqa: SLF001 - takes ownership; there is no public way


def check(error: int | None) -> None:
    if error:
        raise EngineError(_error_text(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Sizes of the pool that one worker's instances come from; ``slots=0`` allocates on demand (to compile).

    Address space, not memory, is reserved. The kernel's ``vm.max_map_count`` (65,530) bounds ``slots`` at about 12,000.
    """

    slots: int = 0
    memory_slot_bytes: int = 256 * MIB
    instances_per_slot: int = 24
    memories_per_slot: int = 2
    tables_per_slot: int = 8
    table_elements: int = 20_000
    memory_keep_resident_bytes: int = 256 << 10


class Engine:
    """One engine with every unneeded proposal off, fuel on, NaNs canonical."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings()
        config = wasmtime.Config()
        for name, value in (_CODE_SWITCHES | _CODE_SIZES).items():
            getattr(c_api, f"wasmtime_config_{name}_set")(config.ptr(), value)
        config.max_wasm_stack = WASM_STACK_BYTES
        c_api.wasmtime_config_async_stack_size_set(config.ptr(), FIBER_STACK_BYTES)
        if settings.slots:
            _use_pool(config, settings)
        self.raw = wasmtime.Engine(config)
        self.address = pointer_address(self.raw.ptr())
        self.settings = settings


def _use_pool(config: wasmtime.Config, settings: EngineSettings) -> None:
    pool = c_api.wasmtime_pooling_allocation_config_new()
    sizes = {
        "total_component_instances": settings.slots,
        "total_core_instances": settings.slots * settings.instances_per_slot,
        "total_memories": settings.slots * settings.memories_per_slot,
        "total_tables": settings.slots * settings.tables_per_slot,
        "total_stacks": settings.slots,
        "total_gc_heaps": 0,
        "max_memory_size": settings.memory_slot_bytes,
        "table_elements": settings.table_elements,
        "max_tables_per_module": 8,
        "max_memories_per_module": 1,
        "max_core_instances_per_component": 64,
        "max_memories_per_component": 8,
        "max_tables_per_component": 40,
        "linear_memory_keep_resident": settings.memory_keep_resident_bytes,
        "table_keep_resident": 64 << 10,
        "async_stack_keep_resident": 16 << 10,
    }
    for name, value in sizes.items():
        getattr(c_api, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    c_api.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    c_api.wasmtime_pooling_allocation_config_delete(pool)


def fingerprint() -> str:
    """Return the digest of the wheel's version and code-changing settings: which engine compiled code belongs to."""
    facts = {"wasmtime": version("wasmtime"), "switches": _CODE_SWITCHES, "sizes": _CODE_SIZES}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def wat2wasm(text: str) -> bytes:
    """Assemble WebAssembly text (for tests and small guests)."""
    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise EngineError(str(error)) from error


def pointer_address(pointer: object) -> int:
    """Return the address a ctypes pointer holds, which must not be null."""
    address = ctypes.cast(pointer, c_void_p).value  # type: ignore[arg-type]  # any ctypes pointer
    if address is None:
        raise EngineError("expected an object of the engine, got a null pointer")
    return address


class Store:
    """Everything one invocation owns inside the engine. Made fresh, closed once, never used again."""

    __slots__ = ("_engine", "_fuel", "_limits", "_ptr", "context")

    def __init__(
        self,
        engine: Engine,
        *,
        fuel: int,
        memory_bytes: int,
        table_elements: int,
        instances: int,
        tables: int,
        memories: int,
    ) -> None:
        self._engine, self._fuel = engine, fuel
        self._limits = (memory_bytes, table_elements, instances, tables, memories)
        self._open()

    def _open(self) -> None:
        self._ptr = _store_new(self._engine.address, None, None)
        self.context = _store_context(self._ptr)
        _store_limiter(self._ptr, *self._limits)
        check(_set_fuel(self.context, self._fuel))
        check(_yield_interval(self.context, FUEL_PER_SLICE))

    def renew(self) -> None:
        """Discard everything in it and begin again with all the fuel. No call may be in progress."""
        self.close()
        self._open()

    @property
    def raw_context(self) -> "ctypes._Pointer[c_api.wasmtime_context_t]":
        """The context as the typed pointer that ``c_api`` functions take."""
        return ctypes.cast(self.context, ctypes.POINTER(c_api.wasmtime_context_t))

    def fuel_used(self) -> int:
        """Return the fuel burnt so far."""
        left = c_uint64()
        check(_get_fuel(self.context, byref(left)))
        return self._fuel - left.value

    def charge(self, fuel: int) -> None:
        """Take fuel that others burned for this store; `fuel_used` does not count it. No guest code may be running.

        A guest whose fuel does not suffice for it runs out of fuel when it goes on.
        """
        left = c_uint64()
        check(_get_fuel(self.context, byref(left)))
        taken = min(fuel, left.value)
        check(_set_fuel(self.context, left.value - taken))
        self._fuel -= taken

    def close(self) -> None:
        """Discard the store and all its memory. Every call in it must be finished or cancelled before."""
        if self._ptr:
            _store_delete(self._ptr)
            self._ptr = self.context = 0


class Call:
    """A call into a store that has been started: polled until done, then finished; or cancelled at any time.

    Between two polls the guest is suspended on its own stack. The objects in ``keep`` (argument and result memory) live
    as long as the call.
    """

    __slots__ = ("_future", "_slots", "keep")

    def __init__(self, future: int, slots: "ctypes.Array[c_void_p]", keep: object = None) -> None:
        self._future, self._slots, self.keep = future, slots, keep

    @staticmethod
    def slots() -> "ctypes.Array[c_void_p]":
        """Return memory for the trap (first) and the error (second) that a call may end in."""
        return TwoPointers()

    def poll(self) -> bool:
        """Run one slice of the guest; True once the call has ended."""
        return _future_poll(self._future)  # type: ignore[return-value]  # c_bool

    def finish(self) -> None:
        """Free a call that has ended.

        Raises:
            Trapped: guest code, or a host function on its behalf, trapped.
            EngineError: the engine refused (a link, a limit at instantiation, a component's rule).
        """
        self.cancel()
        trap, error = self._slots
        if trap:
            raise _trapped(ctypes.cast(trap, ctypes.POINTER(c_api.wasm_trap_t)))
        if error:
            raise _error(error)

    def cancel(self) -> None:
        """Free a call, ended or not; a suspended guest is unwound and never runs again."""
        if self._future:
            _future_delete(self._future)
            self._future = 0


TwoPointers = c_void_p * 2


def _trapped(pointer: "ctypes._Pointer[c_api.wasm_trap_t]") -> Trapped:
    trap = wasmtime.Trap._from_ptr(pointer)  # noqa: SLF001 - takes ownership; there is no public way
    code = trap.trap_code
    return Trapped(code, _plain(trap.message))


# wasmtime-py has no accessor for the trap inside an error, as components report it: its text is the only source.
_TRAP_TEXTS: Final = {
    "all fuel consumed by WebAssembly": wasmtime.TrapCode.OUT_OF_FUEL,
    "call stack exhausted": wasmtime.TrapCode.STACK_OVERFLOW,
    "wasm `unreachable` instruction executed": wasmtime.TrapCode.UNREACHABLE,
    "out of bounds memory access": wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS,
    "integer divide by zero": wasmtime.TrapCode.INTEGER_DIVISION_BY_ZERO,
}


def _error(address: int) -> Trapped | EngineError:
    text = _error_text(address)
    for phrase, code in _TRAP_TEXTS.items():
        if phrase in text:
            return Trapped(code, phrase)
    return Trapped(None, _plain(text)) if "wasm trap" in text or "wasm backtrace" in text else EngineError(text)


def _plain(text: str) -> str:
    """Return the last cause in an engine's message, without the guest's backtrace."""
    _, _, causes = text.rpartition("Caused by:")
    lines = [line.strip() for line in causes.splitlines() if line.strip()]
    chosen = lines[-1] if "Caused by:" in text and lines else (lines[0] if lines else "trap")
    return re.sub(r"^(\d+: )?(wasm trap: )?", "", chosen)
