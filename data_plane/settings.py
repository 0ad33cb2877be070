"""Settings of a node, read once in main from AGENTFACTORY_NODE_*."""

from enum import StrEnum, unique
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from data_plane.file_exports import FileExportSettings
from service.settings import ServerSettings


@unique
class Mode(StrEnum):
    """A production node refuses a root or charter that says it is for development."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


@unique
class IsolationLevel(StrEnum):
    """How far a worker is locked away, weakest first."""

    RLIMITS_ONLY = "rlimits-only"
    LANDLOCK_SECCOMP = "landlock+seccomp"
    FULL = "full"


class NodeSettings(ServerSettings, env_prefix="AGENTFACTORY_NODE_"):
    """The node's id is the one in its certificate: `spiffe://<trust domain>/node/<id>`."""

    store_directory: Path = Field(description="Private directory of everything that the node keeps.")
    root_file: Path = Field(description="The TUF root that was pinned when the node was installed.")
    environment: str | None = Field(
        default=None, description="Environment of this installation; unset: the one that the pinned root names."
    )
    mode: Mode = Field(default=Mode.PRODUCTION, description="`production` refuses development roots.")
    control_plane: str | None = Field(
        default=None, description="`host:port` of the control plane; unset: serves what its store holds."
    )
    reconnect_s_max: float = Field(default=30.0, gt=0, description="Longest pause between two attempts to connect.")
    report_period_s: float = Field(default=5.0, gt=0, description="Pause between reports to the control plane.")
    fetch_timeout_s: float = Field(default=300.0, gt=0, description="Longest that fetching missing blobs may take.")
    bundle_bytes_max: int = Field(
        default=64 * 1024 * 1024, gt=0, description="Longest bundle, decompressed, that is accepted."
    )
    generations_kept: int = Field(default=3, ge=1, le=100, description="Generations kept on disk, newest first.")
    compile_cache_bytes_max: int = Field(
        default=4 * 1024**3, gt=0, description="Size of the compile cache, beyond which old entries go."
    )
    concurrency_max: int = Field(
        default=4096, ge=1, description="Ceiling of the adaptive limit of invocations in flight."
    )
    workers_per_tenant: int = Field(default=1, ge=1, le=64, description="Worker processes of each tenant in use.")
    spare_workers: int = Field(
        default=1, ge=0, le=16, description="Workers started in advance, which no tenant has used."
    )
    workers_max: int = Field(default=64, ge=1, le=1024, description="Worker processes of the node, spares included.")
    worker_idle_s: float = Field(default=300.0, gt=0, description="A tenant's worker that idles this long is stopped.")
    isolation_min: IsolationLevel = Field(
        default=IsolationLevel.RLIMITS_ONLY, description="The node refuses to serve with workers below this level."
    )
    child_depth_max: int = Field(default=4, ge=0, le=16, description="How deep agents may invoke agents.")
    tenant_templates: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description='Which templates the services of a tenant may use, JSON: `{"acme": ["documentation/*"]}`. '
        "Empty: every tenant, every active template. Once set, a tenant that is not in it may use none.",
    )
    agents_max: int = Field(default=1_000_000, ge=1, description="Agents that one node keeps.")
    invocations_kept: int = Field(default=100_000, ge=0, description="Records of recent invocations that are kept.")
    invocations_kept_s: float = Field(
        default=7 * 86_400.0, gt=0, description="How long records of invocations are kept at most."
    )
    file_exports: dict[str, FileExportSettings] = Field(
        default_factory=dict,
        description="Directories that templates may be granted, by name, JSON: "
        '`{"corpus": {"path": "/srv/corpus", "tenants": ["acme"]}, "scratch": {"scratch_bytes_max": 1048576}}` '
        "([grants](grants.md#files)).",
    )
    file_threads: int = Field(default=8, ge=1, le=64, description="Threads in which files are touched for guests.")
    file_bytes_read_max: int = Field(
        default=256 * 1024 * 1024, ge=0, description="Bytes of files that one invocation may read."
    )
    file_bytes_written_max: int = Field(
        default=256 * 1024 * 1024, ge=0, description="Bytes that one invocation may write to files."
    )
    scratch_free_bytes_min: int = Field(
        default=256 * 1024 * 1024, ge=0, description="Free bytes of the store's disk that scratch files leave alone."
    )

    @model_validator(mode="after")
    def _exports_leave_the_store_alone(self) -> Self:
        store = self.store_directory.resolve()
        for name, export in self.file_exports.items():
            if export.path is None:
                continue
            path = export.path.resolve()
            if path == store or path in store.parents or store in path.parents:
                raise ValueError(f"expected exports that neither hold nor lie in the store directory, got {name}")
        return self
