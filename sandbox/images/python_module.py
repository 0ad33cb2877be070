"""An author's Python as a component of its own: componentize-py, from PyPI."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sandbox.images.javascript import ToolchainError, run
from sandbox.images.worlds import world_of

HERE: Final = Path(__file__).resolve().parent / "cpython"
SDK: Final = HERE.parent.parent / "sdk" / "python"
WIT: Final = HERE.parent.parent / "wit"
_WORLD: Final = "python-module"
_BUILD_TIMEOUT_S: Final = 300
_TRACEBACK: Final = "Traceback (most recent call last):"


def module(files: Mapping[str, bytes], out: Path, *, interfaces: Iterable[str]) -> None:
    """Build a module from the author's files, importing only these interfaces besides log and context.

    Args:
        files: by name with ``/``; ``agent.py`` is the one that is started.
        out: where the module goes.
        interfaces: those that the template's grants open.

    Raises:
        ToolchainError: componentize-py is missing or failed; the message is its own, with the author's traceback.
    """
    tool = Path(sys.executable).with_name("componentize-py")
    if not tool.exists():
        what = "expected componentize-py, got none: `make images` installs it into .venv"
        raise ToolchainError(what, is_missing=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        wit, app = root / "wit", root / "app"
        wit.mkdir()
        shutil.copyfile(WIT / "runtime.wit", wit / "runtime.wit")
        described = world_of((WIT / "runtime.wit").read_text(encoding="utf-8"), name=_WORLD, interfaces=interfaces)
        (wit / "world.wit").write_text(described.text, encoding="utf-8")
        shutil.copytree(HERE, app, ignore=shutil.ignore_patterns("__pycache__"))
        for name, data in files.items():
            target = app / "author" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        made = root / "made.wasm"
        command = (str(tool), "-q", "-d", str(wit), "-w", _WORLD, "componentize", "module_entry")
        paths = ("-p", str(app), "-p", str(SDK))
        try:
            run((*command, *paths, "-o", str(made)), cwd=root, timeout_s=_BUILD_TIMEOUT_S)
        except ToolchainError as error:
            raise ToolchainError(authors_part(str(error))) from error
        shutil.copyfile(made, out)


def authors_part(said: str) -> str:
    """Of what componentize-py says, the traceback in the author's own files; all of it where there is none."""
    before = said.partition("\n\nCaused by:")[0]
    _, marker, traceback = before.rpartition(_TRACEBACK)
    if not marker:
        return said
    kept, is_ours = [], False
    for line in traceback.strip("\n").split("\n"):
        if line.startswith("  File "):
            is_ours = line.startswith('  File "/')  # the author's files are imported under names without a folder
        elif not line.startswith(" "):
            is_ours = False
        if not is_ours:
            kept.append(line)
    return "\n".join([_TRACEBACK, *kept]).strip()
