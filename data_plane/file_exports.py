"""An operator's exports, served to guests: sessions over them, and the threads in which files are touched."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_plane.agents.agent import Agent, AgentScope
from data_plane.broker.file_grant import (
    AGENTLESS,
    Directory,
    Export,
    Lifetime,
    PlannedMount,
    Scratch,
    agent_folder,
    plan_mounts,
    scratch_folders,
)
from data_plane.scratch_directories import ScratchDirectories
from sandbox.file_quota import Quota
from sandbox.file_session import FileLimits, FileSession, MountPoint
from sandbox.file_tree import Tree
from service.logs import get_logger
from templates.grants import ANY, FileGrant

_MIB: Final = 1 << 20
NOT_SERVED: Final = "file_export_not_served"

log = get_logger("files")


class FileExportSettings(BaseModel):
    """One export as an operator writes it: with ``path`` a directory to be read, without one scratch."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: Path | None = Field(default=None, description="An absolute directory, which guests read.")
    mode: Literal["ro", "rw"] | None = None
    tenants: tuple[str, ...] = Field(default=(), description='Who may use it; `["*"]` is everybody.')
    lifetime: Lifetime = Lifetime.AGENT
    scratch_bytes_max: int = Field(default=64 * _MIB, gt=0, le=1 << 40)
    scratch_files_max: int = Field(default=1_000, gt=0, le=100_000)
    scratch_depth_max: int = Field(default=16, gt=0, le=64)

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if self.path is None:
            if self.mode == "ro":
                raise ValueError("expected a path with the mode ro, or no mode for scratch")
            return self
        if not self.path.is_absolute():
            raise ValueError("expected an absolute path")
        if self.mode == "rw":
            raise ValueError("expected the mode ro with a path: only scratch can be written to")
        if not self.tenants:
            raise ValueError('expected the tenants that may read it, or ["*"]')
        if strange := self.model_fields_set - {"path", "mode", "tenants"}:
            raise ValueError(f"expected {min(strange)} without a path: it is for scratch")
        return self

    def to_export(self) -> Export:
        if self.path is not None:
            return Directory(tenants=self.tenants, path=str(self.path))
        quota = Quota(
            bytes_max=self.scratch_bytes_max, files_max=self.scratch_files_max, depth_max=self.scratch_depth_max
        )
        return Scratch(tenants=self.tenants or (ANY,), lifetime=self.lifetime, quota=quota)


class InvocationFiles:
    """The files of one invocation: `call` while it runs, then `close`, once."""

    def __init__(self, session: FileSession, threads: ThreadPoolExecutor) -> None:
        self._session, self._threads = session, threads
        self.usage = session.usage

    async def call(self, function: str, argument: bytes) -> bytes:
        """Return the reply to one request. What was begun is carried through even when this is cancelled."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._session.perform, function, argument)

    def close(self) -> None:
        """Close everything, after what is still being carried out."""
        self._threads.submit(self._session.close)


FindAgent = Callable[[str, str], Awaitable[Agent | None]]
"""Returns a tenant's agent by its id."""


class FileExports:
    """Makes the sessions of invocations whose templates were granted files."""

    def __init__(
        self,
        exports: Mapping[str, FileExportSettings],
        *,
        scratch: ScratchDirectories,
        find_agent: FindAgent,
        limits: FileLimits,
        threads_max: int,
    ) -> None:
        self._exports = {name: each.to_export() for name, each in exports.items()}
        self._scratch, self._find_agent, self._limits = scratch, find_agent, limits
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="files")

    async def start(self) -> None:
        """Prepare the scratch directories: what nobody can reach any more, after a crash, goes."""
        await asyncio.to_thread(self._scratch.start)
        for path, (tenant, _, _, folder) in await asyncio.to_thread(self._scratch.agents):
            if folder != AGENTLESS:
                agent = await self._find_agent(tenant, folder.partition(".")[0])
                if agent is None or agent_folder(agent) != folder:
                    await asyncio.to_thread(self._scratch.remove, path)

    def close(self) -> None:
        """Wait for what is being carried out."""
        self._threads.shutdown()

    async def session(self, scope: AgentScope, grants: tuple[FileGrant, ...]) -> InvocationFiles:
        """Return the files of a new invocation; of one whose agent is gone, nothing is served."""
        agent = await self._find_agent(scope.tenant, scope.agent_id) if scope.agent_id else None
        exports = {} if scope.agent_id and agent is None else self._exports
        after: list[Callable[[], None]] = []
        planned = plan_mounts(grants, exports, tenant=scope.tenant)
        mounts = [self._mount_point(each, scope, agent, after) for each in planned]

        def on_close() -> None:
            for each in after:
                each()

        return InvocationFiles(FileSession(mounts, self._limits, on_close=on_close), self._threads)

    async def forget_agent(self, agent: Agent) -> None:
        """Remove the scratch directories of an agent that was deleted."""
        folders = scratch_folders(tenant=agent.tenant, template=agent.template, agent=agent)
        loop = asyncio.get_running_loop()
        for name, export in self._exports.items():
            if isinstance(export, Scratch) and export.lifetime is Lifetime.AGENT:
                path = self._scratch.path_of_agent(name, folders)
                await loop.run_in_executor(self._threads, self._scratch.remove, path)

    def _mount_point(
        self, planned: PlannedMount, scope: AgentScope, agent: Agent | None, after: list[Callable[[], None]]
    ) -> MountPoint:
        match planned.export:
            case None:
                log.warning(NOT_SERVED, export=planned.name, tenant=scope.tenant, template=str(scope.template))
                return MountPoint(planned.mount, None)
            case Directory(path=path):
                return MountPoint(planned.mount, lambda number: _directory(path, planned.name, number))
            case Scratch() as export:
                folders = scratch_folders(tenant=scope.tenant, template=scope.template, agent=agent)
                return MountPoint(planned.mount, self._scratch_tree(planned, export, folders, after))

    def _scratch_tree(
        self, planned: PlannedMount, export: Scratch, folders: tuple[str, ...], after: list[Callable[[], None]]
    ) -> Callable[[int], Tree]:
        scratch = self._scratch
        if export.lifetime is Lifetime.INVOCATION:
            path, leave = scratch.path_of_invocation(), scratch.remove
        else:
            path, leave = scratch.path_of_agent(planned.name, folders), scratch.release

        def tree(number: int) -> Tree:
            opened = scratch.open(path, export.quota, number=number, writable=planned.writable)
            after.append(lambda: leave(path))
            return opened

        return tree


def _directory(path: str, name: str, number: int) -> Tree | None:
    """Open what an operator exports. It may have gone, or come back, since the node started."""
    try:
        return Tree(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), writable=False, number=number)
    except OSError as error:
        log.warning(NOT_SERVED, export=name, error=os.strerror(error.errno or 0))
        return None
