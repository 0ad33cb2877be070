"""The ABIs ``component`` and ``image``: a component linked to virtual WASI 0.2 and our interfaces, run as fibers.

Every invocation gets a fresh store and instance, ``load`` of the author's source for an image, and one ``process``.
"""

import ctypes
import json
from collections import OrderedDict
from collections.abc import Generator
from ctypes import byref, c_bool, c_size_t, c_ubyte, c_void_p
from pathlib import Path
from typing import Any, Final, Literal, Self

import wasmtime
from wasmtime import TrapCode
from wasmtime import component as wit

from sandbox import interfaces, values
from sandbox.component_guest import Guest
from sandbox.component_linker import LinkedComponent
from sandbox.engine import Call, Engine, EngineError, Trapped, TwoPointers, bind, c_api, pointer_address
from sandbox.fibers import Invocation, Steps, Stopped, Turn
from sandbox.outcome import FailureKind, printable

ERROR_BYTES_MAX: Final = 65_536
MESSAGE_BYTES_MAX: Final = 2_048
PREPARED_BYTES_MAX: Final = 16 << 20
PREPARED_MAX: Final = 64
PREPARED_BYTES_IN_ALL_MAX: Final = 64 << 20
ARCHIVE_MAGIC: Final = b"PK\x03\x04"
_RETURNS_TEXT: Final = frozenset({"process", "prepare"})

_P = c_void_p
_instantiate = bind("wasmtime_component_linker_instantiate_async", _P, _P, _P, _P, _P, _P)
_get_func = bind("wasmtime_component_instance_get_func", c_bool, _P, _P, _P, _P)
_func_call = bind("wasmtime_component_func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P)
_Instance = c_ubyte * ctypes.sizeof(c_api.wasmtime_component_instance_t)
_Func = c_ubyte * ctypes.sizeof(c_api.wasmtime_component_func_t)
_Value = c_ubyte * values.VALUE_BYTES
_ERROR_SLOT: Final = 8  # of the two pointers of a call, components use only the second

_RUNTIME: Final = f"{interfaces.PACKAGE}/"

ComponentAbi = Literal["component", "image"]


class ComponentProgram:
    """A loaded component, linked, ready to be instantiated any number of times. A ``fibers.Program``."""

    def __init__(self, engine: Engine, component: wit.Component, turn: Turn, *, abi: ComponentAbi) -> None:
        """Link the component.

        Raises:
            EngineError: an import that does not exist here, or an export that is missing or has another type.
        """
        self._component = component
        self._linked = LinkedComponent(engine, component, turn)
        self._is_image = abi == "image"
        self._address = pointer_address(component.ptr())
        self._process = _export(engine, component, "process")
        self._loader = _Loader(engine, component) if self._is_image else None
        self._grantable = frozenset(name for name in self._linked.imports if _is_grantable(name))

    @classmethod
    def deserialize(cls, engine: Engine, compiled: bytes, turn: Turn, *, abi: ComponentAbi) -> Self:
        """Load compiled code from bytes (copied into private memory). Trusted input only: it is native code."""
        try:
            component = wit.Component.deserialize(engine.raw, compiled)
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error
        return cls(engine, component, turn, abi=abi)

    @classmethod
    def deserialize_file(cls, engine: Engine, path: str | Path, turn: Turn, *, abi: ComponentAbi) -> Self:
        """Load compiled code by mapping a file. Trusted input only: it is native code."""
        try:
            component = wit.Component.deserialize_file(engine.raw, str(path))
        except wasmtime.WasmtimeError as error:
            raise EngineError(str(error)) from error
        return cls(engine, component, turn, abi=abi)

    def run(self, invocation: Invocation) -> Steps:
        """The life of one invocation: instantiate, ``load`` for an image, ``process`` unless this is a dry run."""
        invocation.guest = Guest(invocation)
        try:
            self._check(invocation)
            if self._loader is None:
                instance = yield from self._instantiate(invocation)
            else:
                instance = yield from self._load_source(invocation, self._loader)
            if not invocation.process:
                return b""
            return (yield from self._call(invocation, instance, self._process, invocation.input))
        finally:
            invocation.guest.flush()

    def _check(self, invocation: Invocation) -> None:
        """What would otherwise abort the engine (text that is not UTF-8) or reach past the grants."""
        if not self._is_image and not self._grantable <= invocation.granted:
            missing = ", ".join(sorted(self._grantable - invocation.granted))
            raise Stopped(FailureKind.POLICY, f"expected grants for all imports, got none for {missing}")
        if self._is_image and invocation.source is None:
            raise Stopped(FailureKind.INPUT, "expected a source for an image, got none")
        for what, text in (
            ("input", invocation.input),
            ("source", b"" if _is_archive(invocation.source) else invocation.source or b""),
            ("configuration", invocation.config),
        ):
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise Stopped(FailureKind.INPUT, f"expected {what} in UTF-8, got {error.reason}") from None

    def _instantiate(self, invocation: Invocation) -> "Generator[Call, None, ctypes.Array[c_ubyte]]":
        instance, slots = _Instance(), TwoPointers()
        future = _instantiate(
            self._linked.address, invocation.store.context, self._address, instance, byref(slots, _ERROR_SLOT)
        )
        call = Call(future, slots, instance)
        yield call
        call.finish()
        return instance

    def _load_source(self, invocation: Invocation, loader: "_Loader") -> "Generator[Call, None, ctypes.Array[c_ubyte]]":
        """Instantiate and have the image execute the author's source, which each worker has it translate only once.

        The translation happens in an instance of its own, which is discarded: whoever comes first burns the same fuel
        in the same memory as everybody after. It is bounded by the same limits.
        """
        source = invocation.source or b""
        if loader.prepare is None or loader.load_prepared is None:
            instance = yield from self._instantiate(invocation)
            yield from self._call(invocation, instance, loader.load, _as_text(source))
            return instance
        prepared = loader.prepared(source)
        if prepared is None:
            prepared = yield from self._prepare(invocation, loader.prepare, _as_text(source))
            loader.keep(source, prepared)
            invocation.store.renew()
            invocation.guest.flush()
            invocation.guest, invocation.wasi_calls = Guest(invocation), 0
        instance = yield from self._instantiate(invocation)
        yield from self._call(invocation, instance, loader.load_prepared, prepared)
        return instance

    def _prepare(self, invocation: Invocation, prepare: wit.ExportIndex, source: bytes) -> Generator[Call, None, bytes]:
        """Translate a source. What it reads of time and chance is on no tape: most invocations find it done."""
        nature, invocation.nature = invocation.nature, invocation.turn.live
        try:
            invocation.guest = Guest(invocation)
            instance = yield from self._instantiate(invocation)
            return (yield from self._call(invocation, instance, prepare, source, bytes_max=PREPARED_BYTES_MAX))
        finally:
            invocation.nature = nature

    def _call(
        self,
        invocation: Invocation,
        instance: "ctypes.Array[c_ubyte]",
        export: wit.ExportIndex,
        text: bytes,
        *,
        bytes_max: int | None = None,
    ) -> Generator[Call, None, bytes]:
        """Call an export of text to ``result<string, string>`` or ``result<_, string>``; the error is raised."""
        context, function, slots = invocation.store.context, _Func(), TwoPointers()
        if not _get_func(instance, context, export.ptr(), function):
            raise EngineError("expected an exported function, got none")
        argument, result = _Value.from_buffer_copy(values.string(text)), _Value()
        try:
            future = _func_call(function, context, argument, 1, result, 1, byref(slots, _ERROR_SLOT))
            call = Call(future, slots, (argument, result, function))
            yield call
            self._finish(call)
            return _output(result, invocation, invocation.limits.output_bytes if bytes_max is None else bytes_max)
        finally:
            values.delete(argument)
            values.delete(result)

    def _finish(self, call: Call) -> None:
        """``call.finish()`` with the hint that an interpreter's traps need.

        Raises:
            Trapped, EngineError: as the call.
        """
        try:
            call.finish()
        except Trapped as trap:
            if trap.code is TrapCode.STACK_OVERFLOW:
                raise Trapped(
                    trap.code, f"{trap}: calls are nested too deeply; does a function call itself without an end?"
                ) from None
            if self._is_image and trap.code is not TrapCode.OUT_OF_FUEL:
                raise Trapped(trap.code, f"{trap} (an interpreter that used up its memory_bytes may end so)") from None
            raise


def _as_text(source: bytes) -> bytes:
    """A source as an image takes it: UTF-8; a zip with every byte one character (ADR 16)."""
    return source.decode("latin-1").encode() if _is_archive(source) else source


def _is_archive(source: bytes | None) -> bool:
    return source is not None and source.startswith(ARCHIVE_MAGIC)


class _Loader:
    """How an image takes a source, and what it prepared of those that this worker has seen lately."""

    def __init__(self, engine: Engine, component: wit.Component) -> None:
        self.load = _export(engine, component, "load")
        has_both = {"prepare", "load-prepared"} <= component.type.exports(engine.raw).keys()
        self.prepare = _export(engine, component, "prepare") if has_both else None
        self.load_prepared = _export(engine, component, "load-prepared") if has_both else None
        self._prepared: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def prepared(self, source: bytes) -> bytes | None:
        found = self._prepared.get(source)
        if found is not None:
            self._prepared.move_to_end(source)
        return found

    def keep(self, source: bytes, prepared: bytes) -> None:
        """Remember it unless another invocation was faster; the least recently used go first."""
        if source in self._prepared:
            return
        self._prepared[source] = prepared
        self._bytes += len(source) + len(prepared)
        while self._bytes > PREPARED_BYTES_IN_ALL_MAX or len(self._prepared) > PREPARED_MAX:
            oldest, dropped = self._prepared.popitem(last=False)
            self._bytes -= len(oldest) + len(dropped)


def _is_grantable(name: str) -> bool:
    if not name.startswith(_RUNTIME):
        return False
    return name.removeprefix(_RUNTIME).partition("@")[0] not in interfaces.GRANTED_ALWAYS


def _export(engine: Engine, component: wit.Component, name: str) -> wit.ExportIndex:
    index, item = component.get_export_index(name), component.type.exports(engine.raw).get(name)
    declared = item.ty if item is not None else None
    if index is None or not isinstance(declared, wit.FuncType):
        raise EngineError(f"expected the export {name}, got none")
    parameters, result = declared.params, declared.result
    if (
        len(parameters) != 1
        or not isinstance(parameters[0][1], wit.String)
        or not isinstance(result, wit.ResultType)
        or not isinstance(result.err, wit.String)
        or not isinstance(result.ok, wit.String if name in _RETURNS_TEXT else type(None))
    ):
        raise EngineError(f"expected {name}: func(string) -> result<…, string>, got another type")
    return index


def _output(result: "ctypes.Array[c_ubyte]", invocation: Invocation, limit: int) -> bytes:
    """What the export returned.

    Raises:
        Stopped: it returned its error, or more than ``limit`` bytes.
    """
    address = ctypes.addressof(result)
    is_ok, payload = values.read_result(address)
    if not is_ok:
        raise _guest_error(values.read_string_start(payload, ERROR_BYTES_MAX), invocation)
    if not payload:
        return b""
    length = values.string_length(payload)
    if length > limit:
        raise Stopped(FailureKind.OUTPUT, f"expected at most {limit} bytes of output, got {length}")
    return values.read_string(payload, limit)


def _guest_error(text: bytes, invocation: Invocation) -> Stopped:
    """The guest's own account of its failure. A traceback goes to the log, line by line, inside its limit."""
    report = _report(text)
    if report is None:
        return Stopped(FailureKind.GUEST_ERROR, printable(text[:MESSAGE_BYTES_MAX]))
    kind = FailureKind.MEMORY if report.get("kind") == "memory" else FailureKind.GUEST_ERROR
    for text_line in str(report.get("traceback", "")).splitlines():
        invocation.log("error", text_line.encode("utf-8", "replace"))
    message = str(report["message"]).encode("utf-8", "replace")[:MESSAGE_BYTES_MAX]
    number = report.get("line")
    place = f" (line {number})" if isinstance(number, int) else ""
    return Stopped(kind, printable(message) + place)


def _report(text: bytes) -> dict[str, Any] | None:
    """The JSON form of an error, if it is one: see ``process`` in ``wit/runtime.wit``."""
    if not text.startswith(b"{"):
        return None
    try:
        report = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) and isinstance(report.get("message"), str) else None
