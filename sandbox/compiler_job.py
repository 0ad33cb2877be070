"""What the compiler's process does with its one module: compile it, or say what it declares."""

import ctypes
from collections.abc import Callable
from typing import Final

import wasmtime
from wasmtime import component as wit

from sandbox import engine
from sandbox.compiler import COMPONENT_PREAMBLE
from sandbox.engine import c_api
from sandbox.inspection_walk import WalkError, walk

Answer = tuple[dict[str, object], bytes]
_STRATEGY_WINCH: Final = 2  # wasmtime_strategy_t


class RefusedModuleError(Exception):
    """wasmtime does not accept the module; the message is its own, cut."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(" ".join(str(cause).split())[:2_000])


def compile_code(wasm: bytes) -> Answer:
    """Machine code for the workers' engine, with the names that decide the ABI."""
    for_workers = engine.Engine().raw
    try:
        raw = _load(for_workers, wasm)
        code = bytes(raw.serialize())
    except wasmtime.WasmtimeError as error:
        raise RefusedModuleError(error) from error
    header: dict[str, object] = {
        "engine_fingerprint": engine.fingerprint(),
        "kind": _kind(raw),
        "exports": sorted(_exports(for_workers, raw)),
    }
    return header, code


def inspect_module(wasm: bytes) -> Answer:
    """Names and declarations. Winch, the baseline compiler, validates the same and translates four times as fast."""
    try:
        chosen, raw = _load_quickly(wasm)
        declared = walk(wasm)
    except (wasmtime.WasmtimeError, WalkError) as error:
        raise RefusedModuleError(error) from error
    return {
        "kind": _kind(raw),
        "imports": sorted(_imports(chosen, raw)),
        "exports": sorted(_exports(chosen, raw)),
        "memories": [(one.minimum, one.maximum, one.imported) for one in declared.memories],
        "tables": [(one.minimum, one.maximum, one.imported) for one in declared.tables],
    }, b""


JOBS: Final[dict[str, Callable[[bytes], Answer]]] = {"compile": compile_code, "inspect": inspect_module}

Loaded = wasmtime.Module | wit.Component


def _load(raw_engine: wasmtime.Engine, wasm: bytes) -> Loaded:
    if wasm.startswith(COMPONENT_PREAMBLE):
        return wit.Component(raw_engine, wasm)
    return wasmtime.Module(raw_engine, wasm)


def _load_quickly(wasm: bytes) -> tuple[wasmtime.Engine, Loaded]:
    """With Winch; where it lacks an instruction or the platform, with the workers' compiler, whose verdict counts."""
    config = wasmtime.Config()
    for name, value in engine._CODE_SWITCHES.items():  # noqa: SLF001 - one configuration, in the module that owns it
        getattr(c_api, f"wasmtime_config_{name}_set")(config.ptr(), value)
    config.cranelift_nan_canonicalization = False  # not one of Winch's, and nothing runs here
    c_api.wasmtime_config_strategy_set(config.ptr(), ctypes.c_uint8(_STRATEGY_WINCH))
    try:
        baseline = wasmtime.Engine(config)
        return baseline, _load(baseline, wasm)
    except wasmtime.WasmtimeError:
        for_workers = engine.Engine().raw
        return for_workers, _load(for_workers, wasm)


def _kind(raw: Loaded) -> str:
    return "component" if isinstance(raw, wit.Component) else "module"


def _imports(raw_engine: wasmtime.Engine, raw: Loaded) -> list[str]:
    if isinstance(raw, wit.Component):
        return list(raw.type.imports(raw_engine))
    return [f"{item.module}.{item.name}" for item in raw.imports]


def _exports(raw_engine: wasmtime.Engine, raw: Loaded) -> list[str]:
    if isinstance(raw, wit.Component):
        return list(raw.type.exports(raw_engine))
    return [item.name for item in raw.exports]
