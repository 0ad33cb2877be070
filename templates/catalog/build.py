"""Build what the catalogue's templates name and git does not keep: compiled modules beside their template documents.

    python -m templates.catalog.build --out build/catalog [--images build/images] [--image cpython]

``hardware.wasm`` is compiled from ``infrastructure/hardware/src`` (Zig, from PyPI) when its sources, its flags or the
compiler changed; the images' modules are taken from where ``python -m sandbox.images.build`` left them.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CATALOG = Path(__file__).resolve().parent
HARDWARE = CATALOG / "infrastructure" / "hardware"
FLAGS = ("-target", "wasm32-wasi", "-OReleaseSafe", "-fstrip", "--stack", "262144")
BUILD_TIMEOUT_S = 600


class BuildError(Exception):
    """A module could not be built; the message says what to do."""


def inputs_digest(sources: list[Path], compiler: str) -> str:
    """SHA-256 over everything that decides the module's bytes."""
    digest = hashlib.sha256(repr((compiler, FLAGS)).encode())
    for source in sources:
        data = source.read_bytes()
        digest.update(f"{source.name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def build_hardware(out: Path) -> Path:
    """Compile ``hardware.wasm`` into ``out`` unless the one there came from the same inputs; return its path.

    Raises:
        BuildError: Zig is missing or refuses the sources.
    """
    try:
        compiler = f"ziglang {version('ziglang')}"
    except PackageNotFoundError:
        raise BuildError("expected the package ziglang, got none: install requirements/guests.txt") from None
    sources = sorted((HARDWARE / "src").glob("*.zig"))
    digest = inputs_digest(sources, compiler)
    module, mark = out / "hardware.wasm", out / "hardware.inputs"
    if module.is_file() and mark.is_file() and mark.read_text(encoding="ascii") == note(digest, module):
        return module
    out.mkdir(parents=True, exist_ok=True)
    cache = str((out / "zig-cache").resolve())
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        built = Path(scratch, "hardware.wasm")
        command = [sys.executable, "-m", "ziglang", "build-exe", str(HARDWARE / "src" / "main.zig"), *FLAGS]
        finished = subprocess.run(
            [*command, f"-femit-bin={built}", "--cache-dir", cache, "--global-cache-dir", cache],
            check=False,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
        if finished.returncode != 0:
            raise BuildError(f"hardware.wasm was not built:\n{finished.stderr}")
        built.chmod(0o644)
        built.replace(module)
    mark.write_text(note(digest, module), encoding="ascii")
    return module


def note(inputs: str, module: Path) -> str:
    """What stands beside a built module: the digests of its inputs and of its bytes."""
    return f"{inputs} {hashlib.sha256(module.read_bytes()).hexdigest()}\n"


def place(module: Path, target: Path) -> bool:
    """Copy ``module`` beside its template unless it is there already; return whether it was copied."""
    data = module.read_bytes()
    if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
        return False
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as scratch:
        scratch.write(data)
    Path(scratch.name).chmod(0o644)
    os.replace(scratch.name, target)  # noqa: PTH105 - one rename, so that nobody reads half a module
    return True


def build(out: Path, images: Path, *, only: frozenset[str] = frozenset()) -> list[Path]:
    """Build and place every module, of the images those in ``only`` or all; return the paths beside the templates.

    Raises:
        BuildError: a module is missing or could not be built.
    """
    hardware = HARDWARE / "hardware.wasm"
    place(build_hardware(out), hardware)
    placed = [hardware]
    for document in sorted((CATALOG / "images").glob("*/template.json")):
        if only and document.parent.name not in only:
            continue
        name = f"{document.parent.name}.wasm"
        if not (images / name).is_file():
            raise BuildError(f"expected {images / name}, got no such file: run python -m sandbox.images.build first")
        place(images / name, document.parent / name)
        placed.append(document.parent / name)
    return placed


def main() -> int:
    """Run as a program; 1 when something could not be built."""
    parser = argparse.ArgumentParser(prog="python -m templates.catalog.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/catalog"))
    parser.add_argument("--images", type=Path, default=Path("build/images"))
    parser.add_argument("--image", action="append", default=[], help="place only this image (repeatable)")
    arguments = parser.parse_args()
    try:
        placed = build(arguments.out, arguments.images, only=frozenset(arguments.image))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for path in placed:
        print(f"{path.relative_to(CATALOG)}  {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
