"""Settings of a node, read once in main from AGENTFACTORY_NODE_*."""

from dataclasses import replace
from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from data_plane.admission.effective import EffectiveLimits
from data_plane.admission.quotas import Quota, TenantQuotas
from data_plane.broker.address_policy import Destinations
from data_plane.file_exports import FileExportSettings
from data_plane.llm_settings import LlmBindingSettings
from service.access.settings import AccessSettings
from templates.reach import CHILD_DEPTH_CEILING

WORD: Final = r"^[a-z][a-z0-9_-]{1,40}$"


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


class TenantQuota(BaseModel):
    """What one tenant may have instead of what every tenant may."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_flight: int | None = Field(default=None, ge=0)
    workers: int | None = Field(default=None, ge=0, le=64)
    memory_bytes: int | None = Field(default=None, ge=0)


class NodeSettings(AccessSettings, env_prefix="AGENTFACTORY_NODE_"):
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
    queue_max: int = Field(
        default=2048, ge=0, description="Invocations of all tenants that wait for room, beyond that limit."
    )
    queue_wait_s_max: float = Field(
        default=2.0, gt=0, le=60, description="Longest that an invocation waits for room before it is sent away."
    )
    limits_max: dict[str, int] = Field(
        default_factory=dict,
        description='Ceilings for every invocation on this node, JSON: `{"fuel": 1000000000, "wall_ms": 5000}`; '
        "amounts as in a template's `limits`.",
    )
    tenant_limits_max: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description='Further ceilings for every invocation of one tenant, JSON: `{"acme": {"tokens": 1000}}`.',
    )
    tenant_in_flight_max: int = Field(
        default=2048, ge=0, description="Invocations of one tenant in flight, those that wait for room included."
    )
    tenant_workers_max: int | None = Field(
        default=None, ge=0, le=64, description="Worker processes of one tenant; unset: as many as there are processors."
    )
    tenant_memory_bytes_max: int | None = Field(
        default=None, ge=0, description="Sum of the memory limits of what one tenant has in flight; unset: no quota."
    )
    tenant_quotas: dict[str, TenantQuota] = Field(
        default_factory=dict,
        description="Other quotas for single tenants, JSON: "
        '`{"acme": {"in_flight": 100, "workers": 2, "memory_bytes": 4294967296}}`; what is left out is as above.',
    )
    workers_per_tenant: int = Field(
        default=1, ge=1, le=64, description="Worker processes that each tenant in use has at least."
    )
    spare_workers: int = Field(
        default=1, ge=0, le=16, description="Workers started in advance, which no tenant has used."
    )
    workers_max: int = Field(default=64, ge=1, le=1024, description="Worker processes of the node, spares included.")
    worker_idle_s: float = Field(default=300.0, gt=0, description="A tenant's worker that idles this long is stopped.")
    isolation_min: IsolationLevel | None = Field(
        default=None,
        description="The node refuses to serve with workers below this level (docs/isolation.md). Unset: "
        "`landlock+seccomp` in production, `rlimits-only` in development.",
    )
    child_depth_max: int = Field(
        default=4, ge=0, le=CHILD_DEPTH_CEILING, description="How deep agents may invoke agents."
    )
    tenant_templates: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description='Which templates the services of a tenant may use, JSON: `{"acme": ["documentation/*"]}`. '
        "Empty: every tenant, every active template. Once set, a tenant that is not in it may use none.",
    )
    recording_templates: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Which templates the services of a tenant may have recorded, JSON like `tenant_templates`; the "
        "tenant `*` is every tenant. Empty: nothing is recorded.",
    )
    recording_bytes_max: int = Field(
        default=8 * 1024**2, ge=65_536, le=32 * 1024**2, description="Bytes of one recording, beyond which it is cut."
    )
    recordings_kept: int = Field(default=1_000, ge=1, description="Recordings that are kept of each tenant.")
    recordings_bytes_max: int = Field(
        default=1024**3, ge=1024**2, description="Bytes of a tenant's recordings, beyond which old ones go."
    )
    recordings_kept_s: float = Field(default=7 * 86_400.0, gt=0, description="How long a recording is kept at most.")
    secrets_directory: Path | None = Field(
        default=None,
        description="Directory of the secrets that the broker adds to requests: one private file each, named as the "
        "secret; unset: there are none.",
    )
    private_origins: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Origins inside of the operator's networks that grants may name, JSON: origins to the networks in "
        'which they may lie, `{"http://billing.internal:8080": ["10.1.0.0/16"]}`. A network that is one address is '
        "connected to without resolving the name.",
    )
    egress_authorities_file: Path | None = Field(
        default=None,
        description="Certificates of the authorities that sign the servers which agents reach, PEM; unset: the "
        "system's.",
    )
    http_requests_max: int = Field(default=100, ge=0, description="HTTP requests of one invocation.")
    http_response_bytes_max: int = Field(
        default=2 * 1024 * 1024,
        ge=0,
        le=2 * 1024 * 1024,
        description="Longest body of one HTTP response, decoded.",
    )
    http_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="Longest that one HTTP request may take, within its invocation's deadline.",
    )
    http_per_tenant_max: int = Field(
        default=256, ge=1, description="HTTP requests of one tenant at a time, beyond which they are refused."
    )
    agents_max: int = Field(default=1_000_000, ge=1, description="Agents that one node keeps.")
    invocations_kept: int = Field(default=100_000, ge=0, description="Records of recent invocations that are kept.")
    invocations_kept_s: float = Field(
        default=7 * 86_400.0, gt=0, description="How long records of invocations are kept at most."
    )
    llm_bindings: dict[Annotated[str, StringConstraints(pattern=WORD)], LlmBindingSettings] = Field(
        default_factory=dict,
        description="Endpoints of language models by the binding's name that grants use, JSON; see grants.md.",
    )
    llm_streams_max: int = Field(default=256, ge=1, description="Answers of language models that stream at one time.")
    llm_cache_s: float = Field(default=3_600.0, ge=0, description="How long an answer may be given again; 0: never.")
    llm_cache_entries_max: int = Field(default=1_000, ge=0, description="Answers that are kept for each tenant.")
    llm_cache_bytes_max: int = Field(
        default=8 * 1024 * 1024, ge=0, description="Memory for the answers that are kept for each tenant."
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

    @field_validator("private_origins")
    @classmethod
    def _canonical(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        Destinations.parse(value)
        return value

    @field_validator("limits_max")
    @classmethod
    def _can_be_carried_out(cls, value: dict[str, int]) -> dict[str, int]:
        EffectiveLimits(node=value)
        return value

    @field_validator("tenant_limits_max")
    @classmethod
    def _can_be_carried_out_for_each(cls, value: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        EffectiveLimits(tenants=value)
        return value

    def quotas(self, *, processors: int) -> TenantQuotas:
        """Return the quotas as one value; ``processors`` is how many workers a tenant may have where nothing is set."""
        default = Quota(
            in_flight=self.tenant_in_flight_max,
            workers=processors if self.tenant_workers_max is None else self.tenant_workers_max,
            memory_bytes=self.tenant_memory_bytes_max,
        )
        own = {tenant: each.model_dump(exclude_none=True) for tenant, each in self.tenant_quotas.items()}
        return TenantQuotas(default, {tenant: replace(default, **each) for tenant, each in own.items()})

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
