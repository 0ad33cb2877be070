"""Bind a component's imports to ours, once for all its instances, and refuse what is not ours.

Host functions of components are untyped in wasmtime: a component may declare any type for an import and is still
linked. So the count of parameters and the presence of a result are compared here, and kinds at each value that is read.
"""

import ctypes
import re
from ctypes import c_size_t, c_void_p
from typing import Final

from wasmtime import component as wit

from sandbox import interfaces, values, wasi2
from sandbox.component_guest import Ask, Guest, Import, Interface, Sleep
from sandbox.engine import Engine, EngineError, c_api, check, pointer_address, raise_error
from sandbox.fibers import Invocation, Stopped, Turn
from sandbox.outcome import Failure, FailureKind
from sandbox.wasi2_io import POLLABLE

_Entry = ctypes.CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)  # env, context, type, args, nargs, results, nresults, error, continuation
_Destructor = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, ctypes.c_uint32)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, c_void_p))
_VERSIONED: Final = re.compile(r"(wasi:[a-z-]+/[a-z0-9-]+)@([0-9.]+)")


def interface_for(name: str) -> Interface | None:
    """Our interface for an import's exact name, or None: then nothing of the kind exists here."""
    ours = interfaces.INTERFACES.get(name)
    if ours is not None:
        return ours
    match = _VERSIONED.fullmatch(name)
    if match is None or not wasi2.VERSION.fullmatch(match[2]):
        return None
    return wasi2.INTERFACES.get(match[1])


class LinkedComponent:
    """A component's linker and what its callbacks need to stay alive."""

    def __init__(self, engine: Engine, component: wit.Component, turn: Turn) -> None:
        """Define every import.

        Raises:
            EngineError: an import that does not exist here, or with another shape than ours.
        """
        self._turn = turn
        self._kept: list[object] = []
        self._linker = wit.Linker(engine.raw)
        self.imports = component.type.imports(engine.raw)
        with self._linker.root() as root:
            for name, item in self.imports.items():
                interface, declared = interface_for(name), item.ty
                if interface is None or not isinstance(declared, wit.ComponentInstanceType):
                    raise EngineError(f"expected imports that exist here, got {name}")
                with root.add_instance(name) as instance:
                    self._define(engine, instance, name, interface, declared)
        self.address = pointer_address(self._linker.ptr())

    def _define(
        self,
        engine: Engine,
        instance: wit.LinkerInstance,
        name: str,
        interface: Interface,
        declared: wit.ComponentInstanceType,
    ) -> None:
        for item_name, item in declared.exports(engine.raw).items():
            kind, where = item.ty, f"{name} {item_name}"
            if isinstance(kind, wit.FuncType):
                function = interface.get(item_name)
                if function is not None:
                    _check_shape(where, function, kind)
                self._add_function(
                    instance, item_name, self._entry(where, function) if function else self._refusal(where)
                )
            elif isinstance(kind, wit.ResourceType):
                resource = wasi2.RESOURCES.get(item_name)
                if resource is None:  # wasmtime aborts at instantiation when a resource is missing
                    raise EngineError(f"expected a resource that exists here, got {where}")
                self._add_resource(instance, item_name, resource)
            elif not isinstance(kind, wit.ValType):
                raise EngineError(f"expected functions, resources and types only, got {where}")

    def _add_function(self, instance: wit.LinkerInstance, name: str, callback: "ctypes._FuncPointer") -> None:
        self._kept.append(callback)
        encoded = name.encode()
        error = c_api.wasmtime_component_linker_instance_add_func_async(
            instance.ptr(),
            ctypes.create_string_buffer(encoded, len(encoded)),
            len(encoded),
            ctypes.cast(callback, c_api.wasmtime_component_func_async_callback_t),
            None,
            _NO_FINALIZER,
        )
        check(ctypes.cast(error, c_void_p).value)

    def _add_resource(self, instance: wit.LinkerInstance, name: str, resource: int) -> None:
        turn = self._turn
        is_pollable = resource == POLLABLE

        def drop(_data: int, _context: int, representation: int) -> int:
            guest: Guest = turn.invocation.guest
            guest.dropped(representation, is_pollable=is_pollable)
            return 0

        callback, kind = _Destructor(drop), wit.ResourceType.host(resource)
        self._kept.append(callback)
        encoded = name.encode()
        error = c_api.wasmtime_component_linker_instance_add_resource(
            instance.ptr(),
            ctypes.create_string_buffer(encoded, len(encoded)),
            len(encoded),
            kind.ptr(),
            ctypes.cast(callback, c_api.wasmtime_component_resource_destructor_t),
            None,
            _NO_FINALIZER,
        )
        check(ctypes.cast(error, c_void_p).value)

    def _entry(self, where: str, import_: Import) -> "ctypes._FuncPointer":
        """The callback of one import. Nothing may leave it: the engine would go on as if nothing were."""
        turn, function, is_host_call, put = self._turn, import_.function, import_.is_host_call, values.put

        def entry(
            _env: int, context: int, _type: int, args: int, _n: int, results: int, _m: int, error: int, after: int
        ) -> None:
            invocation = turn.invocation
            try:
                if not is_host_call:
                    invocation.enter_wasi()
                answer = function(invocation.guest, context, args)
                if answer is None:
                    invocation.answer_now(after)
                elif isinstance(answer, bytes):
                    put(results, answer)
                    invocation.answer_now(after)
                else:
                    _suspend(invocation, answer, results, after)
            except Stopped as stop:
                invocation.end(stop.failure)
                raise_error(error, stop.failure.message)
            except Exception as failure:  # noqa: BLE001 - the one guard at the edge to C
                raise_error(error, f"{where}: {failure}")

        return _Entry(entry)

    def _refusal(self, where: str) -> "ctypes._FuncPointer":
        """The callback of a function that exists in WASI and not here."""
        turn = self._turn

        def refuse(
            _env: int, _context: int, _type: int, _args: int, _n: int, _results: int, _m: int, error: int, _after: int
        ) -> None:
            stop = Stopped(FailureKind.POLICY, f"{where} does not exist in this sandbox")
            turn.invocation.end(stop.failure)
            raise_error(error, stop.failure.message)

        return _Entry(refuse)


def _suspend(invocation: Invocation, answer: Sleep | Ask, results: int, after: int) -> None:
    """Let the guest wait; what it waits for ends in ``results``.

    The import's error slot is not read once the callback has returned. So a failure is remembered, and the missing
    result makes the engine trap the guest.
    """

    def fail(message: str) -> None:
        invocation.end(Failure(FailureKind.TRAP, message))

    if isinstance(answer, Ask):
        answer_of = answer.result

        def finish(value: bytes) -> None:
            values.put(results, answer_of(value))

        invocation.call_host(answer.interface, answer.function, answer.argument, after, finish=finish, fail=fail)
    else:
        result = answer.result

        def wake(_value: bytes) -> None:
            value = result()
            if value is not None:
                values.put(results, value)

        invocation.sleep_until(answer.until_ns, after, finish=wake, fail=fail)


def _check_shape(where: str, import_: Import, declared: wit.FuncType) -> None:
    arity, has_result = len(declared.params), declared.result is not None
    if (arity, has_result) != (import_.arity, import_.has_result):
        raise EngineError(
            f"expected {where} with {import_.arity} parameters and {'a' if import_.has_result else 'no'} result, "
            f"got {arity} and {'a' if has_result else 'no'} result"
        )
