"""Packages of pure Python beside an author's own files: what requirements.txt names, as wheels, unpacked.

pip fetches, and checks hashes where the file has them; only wheels for any platform are asked for, so nothing is built
and no package's code runs on this machine.
"""

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from templates.reasons import AgentFactoryError, Reason

REQUIREMENTS: Final = "requirements.txt"
_TIMEOUT_S: Final = 300
_FILES_MAX: Final = 2_000
_BYTES_MAX: Final = 32 << 20
_COMPILED: Final = frozenset({".so", ".pyd", ".dll", ".dylib"})
_NO_WHEEL: Final = re.compile(r"No matching distribution found for (\S+)")
_PYTHON: Final = "3.14"  # of the image


class VendoringError(AgentFactoryError):
    """A package cannot be vendored: not found, its hash is another, or it is not of pure Python."""

    reason = Reason.VENDORING_FAILED


def vendor(requirements: Path, *, tell: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files of the packages that ``requirements`` names, and of what they depend on.

    Raises:
        VendoringError: see there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _download(requirements, Path(scratch))
        files: dict[str, bytes] = {}
        for wheel in sorted(Path(scratch).iterdir()):
            data = wheel.read_bytes()
            tell(f"vendored {wheel.name} --hash=sha256:{hashlib.sha256(data).hexdigest()}")
            for name, content in unpack(wheel.name, data).items():
                if files.setdefault(name, content) != content:
                    raise VendoringError(f"expected packages with files of their own, got {name} twice")
        return files


def _download(requirements: Path, into: Path) -> None:
    command = (
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--only-binary=:all:"),
        *("--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", _PYTHON),
        *("--dest", str(into), "--requirement", str(requirements.resolve())),
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise VendoringError(f"expected pip to end within {_TIMEOUT_S} s") from None
    if done.returncode == 0:
        return
    if missing := _NO_WHEEL.search(done.stderr):
        raise VendoringError(
            f"expected a wheel of pure Python (py3-none-any) of {missing[1]}, got none: native code (C extensions) does"
            f" not run in the sandbox, and packages without wheels are not built here"
        )
    raise VendoringError(f"pip: {done.stderr.strip()[-2_000:]}")


def unpack(wheel: str, data: bytes) -> dict[str, bytes]:
    """Return what importing needs of a wheel, and its licences.

    Raises:
        VendoringError: it holds native code, installs outside of the library, or is too large.
    """
    files: dict[str, bytes] = {}
    left = _BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > _FILES_MAX:
                raise VendoringError(f"expected at most {_FILES_MAX} files in {wheel}, got {len(entries)}")
            for entry in entries:
                if not _is_wanted(wheel, PurePosixPath(entry.filename)):
                    continue
                with archive.open(entry) as stream:
                    content = stream.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise VendoringError(f"expected {wheel} to unpack to at most {_BYTES_MAX} bytes, got more")
                files[entry.filename] = content
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise VendoringError(f"expected a wheel, got {wheel}, which is damaged: {error}") from error
    return files


def _is_wanted(wheel: str, path: PurePosixPath) -> bool:
    if path.suffix in _COMPILED:
        raise VendoringError(f"expected pure Python in {wheel}, got native code: {path}")
    top = path.parts[0]
    if top.endswith(".data"):
        raise VendoringError(f"expected {wheel} to install into the library alone, got {path}")
    if top.endswith(".dist-info"):
        return path.name.lower().startswith(("licen", "copying", "notice", "authors"))
    return True
