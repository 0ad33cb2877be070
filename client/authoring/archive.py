"""An author's own files as a zip of sources, the same bytes for the same files."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_NOT_SOURCE: Final = frozenset(
    {"template.json", "requirements.txt", "README.md", "agent.zip", "agent.wasm", "agentfactory.d.ts", "answers.json"}
)
_FOLDERS_LEFT_OUT: Final = frozenset({"__pycache__", "tests", "build", "node_modules"})
_SUFFIXES_LEFT_OUT: Final = frozenset({".pyc", ".wasm", ".zip"})
_MODE: Final = 0o100_644 << 16


def collect(folder: Path) -> dict[str, bytes]:
    """Return the files that belong to the agent in ``folder``, by their names with ``/``.

    Left out: what stands beside the source (the template, its README, requirements, what was built), hidden files,
    tests and caches.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            path.is_file()
            and not path.is_symlink()
            and not any(part.startswith(".") or part in _FOLDERS_LEFT_OUT for part in parts)
            and not (len(parts) == 1 and parts[0] in _NOT_SOURCE)
            and path.suffix not in _SUFFIXES_LEFT_OUT
        ):
            files["/".join(parts)] = path.read_bytes()
    return files


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the zip of ``files``: sorted, without times, so that nothing but the files decides its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever this runs: it says how to read the next line
            entry.external_attr = _MODE
            archive.writestr(entry, files[name], compresslevel=9)
    return buffer.getvalue()
