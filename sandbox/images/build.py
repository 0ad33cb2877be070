"""Build the images: ``python -m sandbox.images.build [cpython quickjs] [--out build/images]``.

An image is built again only when something it is made of changed: the toolchain's version, the WIT, the SDK, the entry
module or this file. Beside ``NAME.wasm`` stands ``NAME.json`` with the digest of all that and of the result; an image
that does not match its note is built again. componentize-py's output differs from build to build, so the digest of an
image names one build: publish it once and pin it (ADR 8).
"""

import argparse
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.images import javascript

_HERE = Path(__file__).resolve().parent
_WIT = _HERE.parent / "wit"
_SDK = _HERE.parent / "sdk" / "python"
_CHUNK_BYTES = 1 << 20


class BuildError(Exception):
    """The toolchain is missing or failed; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one image is made: by which tool (a package of PyPI and its version), of what, and by which function.

    The version of what npm installs stands in the lock among the inputs, so the QuickJS image names no toolchain.
    """

    toolchain: str | None
    inputs: tuple[Path, ...]
    make: Callable[[Path], None]


def _componentize(out: Path) -> None:
    tool = Path(sys.executable).with_name("componentize-py")
    paths = ("-p", str(_HERE / "cpython"), "-p", str(_SDK))
    run_tool((str(tool), "-q", "-d", str(_WIT), "-w", "image", "componentize", "entry", *paths, "-o", str(out)))


def _quickjs(out: Path) -> None:
    try:
        javascript.image(out)
    except javascript.ToolchainError as error:
        raise BuildError(str(error)) from error


_TOOLS = ("flatten.py", "javascript.py", "worlds.py")
RECIPES = {
    "cpython": Recipe(toolchain="componentize-py", inputs=(_WIT, _SDK, _HERE / "cpython"), make=_componentize),
    "quickjs": Recipe(
        toolchain=None,
        inputs=(_WIT, javascript.SDK, javascript.HERE, *(_HERE / name for name in _TOOLS)),
        make=_quickjs,
    ),
}


def build(name: str, out: Path) -> Path:
    """Return the image's path in ``out``, building it if need be. Safe to call from several processes at once.

    Raises:
        BuildError: the toolchain is missing or failed.
    """
    recipe = RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    image, note = out / f"{name}.wasm", out / f"{name}.json"
    with javascript.alone(out / f".{name}.lock"):
        inputs = inputs_digest(recipe)
        if _is_current(image, note, inputs):
            return image
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            fresh = Path(scratch) / image.name
            recipe.make(fresh)
            facts = {"inputs_sha256": inputs, "sha256": _digest(fresh), "length": fresh.stat().st_size}
            note.unlink(missing_ok=True)
            fresh.replace(image)
        note.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return image


def inputs_digest(recipe: Recipe) -> str:
    """The digest of everything that the image is made of."""
    digest = hashlib.sha256()
    if recipe.toolchain is not None:
        try:
            digest.update(f"{recipe.toolchain} {importlib.metadata.version(recipe.toolchain)}\n".encode())
        except importlib.metadata.PackageNotFoundError:
            raise BuildError(f"expected {recipe.toolchain} to be installed (requirements/guests.txt)") from None
    for path in (Path(__file__).resolve(), *sorted(_files(recipe.inputs))):
        digest.update(f"{path.relative_to(_HERE.parent)} {_digest(path)}\n".encode())
    return digest.hexdigest()


def _files(folders: tuple[Path, ...]) -> Iterator[Path]:
    for folder in folders:
        for path in (folder,) if folder.is_file() else folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_current(image: Path, note: Path, inputs: str) -> bool:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        return bool(facts["inputs_sha256"] == inputs and facts["sha256"] == _digest(image))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def run_tool(command: Sequence[str]) -> None:
    """Run a toolchain's command.

    Raises:
        BuildError: it is missing or failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"expected {command[0]} to be installed (requirements/guests.txt)") from None
    if done.returncode != 0:
        raise BuildError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr[-4000:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.images.build", description="Build the sandbox's images.")
    parser.add_argument("names", nargs="*", choices=[[], *RECIPES], metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--out", type=Path, default=Path("build/images"), help="where images go (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    for name in chosen.names or RECIPES:
        began = time.monotonic()
        try:
            image = build(name, chosen.out)
        except BuildError as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
        took = time.monotonic() - began
        sys.stderr.write(f"{image}: {image.stat().st_size} bytes, {took:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
