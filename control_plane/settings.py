"""Settings of ``agentfactory-control-plane``, from AGENTFACTORY_CP_* (docs/settings.md)."""

from pathlib import Path

from pydantic import Field, SecretStr

from service.access.settings import AccessSettings


class ControlPlaneSettings(AccessSettings, env_prefix="AGENTFACTORY_CP_"):
    """What the control plane is told; everything else is in the trust documents."""

    state_dir: Path = Field(description="Directory of `state.db` and `blobs/`; one process owns it.")
    trust_dir: Path = Field(
        description="Directory of `root.json` (or `1.root.json` …), `targets.json` and `charter.json`."
    )
    keys_dir: Path = Field(
        description="Directory of the online keys `snapshot.pem`, `timestamp.pem`, `plan.pem`, `library.pem`."
    )
    passphrase_file: Path | None = Field(default=None, description="File with the keys' passphrase, mode 0600.")
    passphrase: SecretStr | None = Field(default=None, description="The keys' passphrase, if there is no such file.")
    production: bool = Field(default=False, description="Refuse a root and charter of development mode.")
    lease_s: int | None = Field(
        default=None, gt=0, description="How long a lease runs; unset: as long as the charter allows."
    )
    lease_renewal_s: float | None = Field(
        default=None, gt=0, description="How often the lease is signed anew; unset: at a third of its life."
    )
    debounce_ms: int = Field(
        default=75, ge=0, le=10_000, description="How long publications are gathered before they are pushed."
    )
    ack_timeout_s: float = Field(
        default=900.0, gt=0, description="A node that acknowledges nothing for this long is sent away."
    )
    reconnect_window_s: float = Field(
        default=5.0, ge=0, description="Nodes that are sent away come back spread over this time."
    )
    blob_cache_bytes_max: int = Field(
        default=134_217_728, ge=0, description="Memory for compressed blobs that nodes fetch."
    )
    rate_per_minute: int = Field(
        default=3000, ge=0, description="Calls of everybody but nodes together in a minute; 0: no limit."
    )
    principal_rate_per_minute: int = Field(
        default=100, ge=0, description="Calls of one identity in a minute; 0: no limit."
    )
    address_rate_per_minute: int = Field(
        default=600, ge=0, description="Calls from one address (IPv6: one /64) in a minute; 0: no limit."
    )
    audit_checkpoint_s: float = Field(
        default=60.0, gt=0, description="How often the newest entry of the audit log is signed, if there is a new one."
    )
    audit_retention_days: int = Field(
        default=365, ge=1, description="Entries of the audit log go after this, up to a signed checkpoint."
    )
