"""The files grant: which of an operator's exports a guest finds at which mount, and whether it may write there.

An export is a directory that the operator chose, to be read, or scratch: a directory of its own for each agent or for
each invocation. What the node does not offer, or not to this tenant, is mounted all the same and refuses every use: a
guest cannot tell the two apart, and an author sees "permission denied" instead of an empty directory.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum, unique

from data_plane.agents.agent import Agent
from data_plane.broker.answers import ErrorKind
from sandbox.file_protocol import Errno
from sandbox.file_quota import Quota
from templates.grants import ANY, FileGrant
from templates.names import TemplateName

AGENTLESS = "_"

_KINDS = {
    **dict.fromkeys((Errno.ACCES, Errno.LOOP, Errno.PERM, Errno.ROFS, Errno.XDEV), ErrorKind.DENIED),
    **dict.fromkeys((Errno.DQUOT, Errno.FBIG, Errno.MFILE, Errno.NOSPC), ErrorKind.QUOTA),
    **dict.fromkeys((Errno.AGAIN, Errno.BUSY, Errno.EXIST, Errno.NOTEMPTY, Errno.TXTBSY), ErrorKind.CONFLICT),
    Errno.NOENT: ErrorKind.NOT_FOUND,
    Errno.IO: ErrorKind.FAILED,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


def refusal_kind(errno: Errno) -> ErrorKind | None:
    """Return what kind of refusal an error number is, among those of other grants; None for success."""
    return None if errno is Errno.SUCCESS else _KINDS.get(errno, ErrorKind.INVALID)


@unique
class Lifetime(StrEnum):
    """How long what is in a scratch directory stays: as long as the agent's other state, or one invocation."""

    AGENT = "agent"
    INVOCATION = "invocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """An export that is read. ``tenants``: ``*`` is every one."""

    tenants: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """An export that each guest has for itself."""

    tenants: tuple[str, ...]
    lifetime: Lifetime
    quota: Quota


Export = Directory | Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMount:
    """What a guest finds at ``mount``; without ``export`` nothing that it may use."""

    mount: str
    name: str
    export: Export | None
    writable: bool = False


def plan_mounts(grants: Iterable[FileGrant], exports: Mapping[str, Export], *, tenant: str) -> tuple[PlannedMount, ...]:
    """Return a mount for every grant, in the order of their paths.

    What is read stays so whatever the grant says; scratch is written to only under a grant ``rw``.
    """
    return tuple(_planned(grant, exports, tenant) for grant in sorted(grants))


def _planned(grant: FileGrant, exports: Mapping[str, Export], tenant: str) -> PlannedMount:
    export = exports.get(grant.export)
    if export is None or not (ANY in export.tenants or tenant in export.tenants):
        return PlannedMount(mount=grant.mount, name=grant.export, export=None)
    writable = isinstance(export, Scratch) and grant.mode == "rw"
    return PlannedMount(mount=grant.mount, name=grant.export, export=export, writable=writable)


def scratch_folders(*, tenant: str, template: TemplateName, agent: Agent | None) -> tuple[str, ...]:
    """Return where a scratch directory lies; invocations without an agent share one per template, as they do for kv.

    The moment of an agent's creation is part of it: one that is made anew under an old name finds nothing of the old.

    Raises:
        ValueError: a name that no directory should have.
    """
    folders = (tenant, template.domain, template.name, AGENTLESS if agent is None else agent_folder(agent))
    for folder in folders:
        if not _FOLDER.fullmatch(folder):
            raise ValueError(f"expected names of directories, got {folder!r}")
    return folders


def agent_folder(agent: Agent) -> str:
    """``<id>.<creation in microseconds since 1970>``; ids have no dots."""
    return f"{agent.agent_id}.{(agent.created_at - _EPOCH) // timedelta(microseconds=1)}"
