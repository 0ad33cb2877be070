"""What /proc says about a process. A process that is not dumpable shows part of it to root only: then that is empty."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    threads: int
    environment: bytes
    directory: str
    descriptors: tuple[str, ...]
    status: Mapping[str, str]


def facts_of(pid: int) -> ProcessFacts:
    """Read them; what may not be read is empty."""
    root = Path(f"/proc/{pid}")
    environment, directory = b"", ""
    descriptors: tuple[str, ...] = ()
    with suppress(PermissionError):
        environment = (root / "environ").read_bytes()
    with suppress(PermissionError):
        directory = str((root / "cwd").readlink())
    with suppress(PermissionError):
        descriptors = tuple(str(entry.readlink()) for entry in (root / "fd").iterdir())
    status = dict(line.split(":\t", 1) for line in (root / "status").read_text().splitlines() if ":\t" in line)
    return ProcessFacts(
        threads=int(status["Threads"]),
        environment=environment,
        directory=directory,
        descriptors=descriptors,
        status=status,
    )
