"""The CPython image for tests: built once by whoever needs it first (`make images` does the same), compiled once, kept.

Compiled code lives under ``build/`` beside the image, in the product's own cache. pytest-xdist starts several
processes: the build holds a file lock of its own, the compilation one from here.
"""

import asyncio
import fcntl
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sandbox.compile_cache import CompileCache
from sandbox.images.build import build
from sandbox.request import CompiledCode

BUILD = Path(__file__).resolve().parent.parent / "build"
_KEY = hashlib.sha256(b"a key for tests").digest()


@cache
def image_bytes(name: str = "cpython") -> bytes:
    """The image as it would be submitted: its ``.wasm`` bytes."""
    return build(name, BUILD / "images").read_bytes()


@cache
def compiled_image(name: str = "cpython") -> CompiledCode:
    """The image's code for the workers' engine. Takes seconds the first time after a change, milliseconds later."""
    wasm = image_bytes(name)
    with _alone(BUILD / ".compile.lock"):
        cache_of_tests = CompileCache(BUILD / "test-compile-cache", key=_KEY)
        with ThreadPoolExecutor(1) as thread:  # the caller may be inside a running event loop
            return thread.submit(lambda: asyncio.run(cache_of_tests.compile(wasm))).result()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
