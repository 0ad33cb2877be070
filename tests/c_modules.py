"""Commands of the ABI preview 1 from C, compiled by the toolchain that authors use; kept under ``build/``."""

import hashlib
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "test-c-modules"


@cache
def c_module(source: str) -> bytes:
    """Return the module that zig's C compiler makes of ``source``."""
    name = hashlib.sha256(f"{version('ziglang')}\n{source}".encode()).hexdigest()
    module = BUILD / f"{name}.wasm"
    if not module.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            text, out = Path(scratch) / "main.c", Path(scratch) / "main.wasm"
            text.write_text(source, encoding="utf-8")
            command = [sys.executable, "-m", "ziglang", "cc", "--target=wasm32-wasi", "-Os", "-s", str(text), "-o"]
            cache_directory = str(BUILD / "zig-cache")
            environment = {
                **os.environ,
                "ZIG_GLOBAL_CACHE_DIR": cache_directory,
                "ZIG_LOCAL_CACHE_DIR": cache_directory,
            }
            subprocess.run([*command, str(out)], check=True, env=environment, capture_output=True)
            out.replace(module)
    return module.read_bytes()
