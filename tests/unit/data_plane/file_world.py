"""Exports for tests: none, or directories under a temporary one."""

from pathlib import Path

from data_plane.agents.agent import Agent
from data_plane.file_exports import FileExports, FileExportSettings
from data_plane.scratch_directories import ScratchDirectories
from sandbox.file_session import FileLimits


async def no_agent(_tenant: str, _agent_id: str) -> Agent | None:
    return None


def no_exports() -> FileExports:
    """A node whose operator exports nothing."""
    return exports_in(Path("/nowhere"), {})


def exports_in(
    directory: Path, exports: dict[str, FileExportSettings], limits: FileLimits | None = None
) -> FileExports:
    """A node with these exports, whose scratch lies in ``directory``; call ``start`` before the first session."""
    return FileExports(
        exports,
        scratch=ScratchDirectories(directory, free_bytes_min=0),
        find_agent=no_agent,
        limits=limits or FileLimits(),
        threads_max=4,
    )
