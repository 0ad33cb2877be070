"""Builds ``hardware.wasm`` once and runs it on wasmtime's own WASI: in tests only, the product links nothing native."""

import tempfile
from functools import cache
from pathlib import Path

import wasmtime

from templates.catalog.build import build_hardware

ROOT = Path(__file__).resolve().parents[3]


@cache
def _linked() -> tuple[wasmtime.Engine, wasmtime.Module, wasmtime.Linker]:
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    return engine, wasmtime.Module.from_file(engine, str(build_hardware(ROOT / "build" / "catalog"))), linker


def imports() -> set[str]:
    return {f"{entry.module}.{entry.name}" for entry in _linked()[1].imports}


def run_hardware(data: bytes) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    engine, module, linker = _linked()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in ("in", "out", "err")}
        for path in files.values():
            path.write_bytes(b"")
        files["in"].write_bytes(data)
        wasi = wasmtime.WasiConfig()
        wasi.stdin_file, wasi.stdout_file, wasi.stderr_file = (str(files[name]) for name in ("in", "out", "err"))
        store = wasmtime.Store(engine)
        store.set_wasi(wasi)
        start = linker.instantiate(store, module).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        code = 0
        try:
            start(store)
        except wasmtime.ExitTrap as ended:
            code = ended.code
        return code, files["out"].read_text(encoding="utf-8"), files["err"].read_text(encoding="utf-8")
