"""Find the module that a recording names by digest: given, kept by this machine, or fetched from the control plane."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.inspection_cache import ModuleRefusedError
from client.local_run import IMAGES_DIRECTORY, LocalRunError, local_cache

if TYPE_CHECKING:
    import grpc

    from sandbox.recording import Recording
    from sandbox.request import CompiledCode

BUILT_DIRECTORIES: Final = (IMAGES_DIRECTORY, IMAGES_DIRECTORY.parent / "catalog")
FETCH_TIMEOUT_S: Final = 120.0
FETCHED_BYTES_MAX: Final = 256 << 20


def find_code(
    recording: "Recording",
    *,
    module: Path | None,
    directories: Sequence[Path],
    fetch: "Callable[[Recording], bytes | None]",
    tell: Callable[[str], None],
) -> "CompiledCode":
    """Return the recorded module's code for the engine of this machine.

    Args:
        recording: names the module.
        module: its file, if the user knows it; nothing else is looked at then.
        directories: where modules lie, beside those that were built here.
        fetch: asked last.
        tell: called with a line where something takes its time.

    Raises:
        LocalRunError: no such module was found, or the file given is another one.
        ModuleRefusedError: the module is none that a node would compile.
    """
    from sandbox.compiler import CompilerError

    digest, cache = recording.module_sha256, local_cache()
    wasm = _given(module, digest) if module is not None else None
    if wasm is None:
        if kept := cache.get(digest):
            return kept
        wasm = _lying_in((*directories, *BUILT_DIRECTORIES), digest) or fetch(recording)
    if wasm is None:
        raise LocalRunError(
            f"expected the module {digest} of {recording.provenance.template} on this machine; name it with --module, "
            "or a directory that holds it with --code"
        )
    if cache.get(digest) is None:
        tell(f"compiling {len(wasm) / 1e6:.1f} MB of wasm, once")
    try:
        return asyncio.run(cache.compile(wasm))
    except CompilerError as error:
        raise ModuleRefusedError(f"{error.code}: {error.message}") from error


def fetched(channel: "grpc.Channel", recording: "Recording") -> bytes | None:
    """Return the module from the change that the recorded template was submitted with, None without such a change."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    from client.requests import all_pages

    stub = ChangeServiceStub(channel)
    changes = all_pages(
        lambda token: stub.ListChanges(pb.ListChangesRequest(page_size=200, page_token=token), timeout=10.0),
        lambda page: list(page.changes),
    )
    wanted = bytes.fromhex(recording.module_sha256)
    for change in changes:
        if change.template != recording.provenance.template:
            continue
        found = bytearray()
        for part in stub.FetchChange(pb.FetchChangeRequest(name=change.name), timeout=FETCH_TIMEOUT_S):
            if part.piece.sha256 == wanted:
                found += part.piece.data
            if len(found) > FETCHED_BYTES_MAX:
                raise LocalRunError(f"expected a module of at most {FETCHED_BYTES_MAX} bytes, got more")
        if hashlib.sha256(found).digest() == wanted:
            return bytes(found)
    return None


def _given(module: Path, digest: str) -> bytes:
    try:
        wasm = module.read_bytes()
    except OSError as error:
        raise LocalRunError(f"expected a module at {module}, got: {error.strerror}") from error
    if (got := hashlib.sha256(wasm).hexdigest()) != digest:
        raise LocalRunError(f"expected the recorded module {digest}, got {got}: {module}")
    return wasm


def _lying_in(directories: Sequence[Path], digest: str) -> bytes | None:
    """Look for files that are called by the digest, or are modules with it."""
    for directory in directories:
        for path in (directory / digest, *sorted(directory.glob("*.wasm"))):
            if path.is_file() and hashlib.sha256(data := path.read_bytes()).hexdigest() == digest:
                return data
    return None
