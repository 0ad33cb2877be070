"""Settings from the environment, parsed once in main. A variable that nobody reads, or that is misspelled, stops the process."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.logs import LogFormat, LogLevel
from service.tls import TlsFiles
from templates.reasons import AgentFactoryError, Reason


class SettingsError(AgentFactoryError):
    """One line per variable that is missing, misspelled or malformed; values are never shown."""

    reason = Reason.INVALID_SETTINGS


class ServiceSettings(BaseSettings):
    """Base of a process's settings: subclass it, set ``env_prefix`` by ``class X(ServiceSettings, env_prefix="AGENTFACTORY_CP_")``.

    Every field has a description, and a unit in its name where it has one; docs/settings.md is its table.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False)
    known_prefixes: ClassVar[tuple[str, ...]] = ("AGENTFACTORY_CP_", "AGENTFACTORY_NODE_")

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """Read ``environment`` (main passes ``os.environ``).

        Raises:
            SettingsError: naming every variable that is wrong, with the nearest name for a misspelled one.
        """
        raise NotImplementedError


class ServerSettings(ServiceSettings):
    """What every server process of ours needs."""

    listen_host: str = Field(default="127.0.0.1", description="Address that the gRPC server binds to.")
    listen_port: int = Field(default=0, ge=0, le=65535, description="Port of the gRPC server; 0 takes a free one.")
    trust_domain: str = Field(description="Trust domain of every identity here, as in `spiffe://<trust domain>/…`.")
    tls_certificate_file: Path = Field(description="This process's certificate, PEM, with one URI name.")
    tls_key_file: Path = Field(description="Its private key, PEM, mode 0600.")
    tls_authorities_file: Path = Field(description="Certificates of the authorities that sign peers, PEM.")
    message_bytes_max: int = Field(default=8 * 1024 * 1024, gt=0, description="Longest gRPC message accepted or sent.")
    calls_max: int = Field(default=4096, gt=0, description="Calls in progress, beyond which callers are sent away.")
    unary_deadline_s: float = Field(
        default=120.0, gt=0, description="Longest a unary call may take, whatever its caller says."
    )
    drain_s: float = Field(default=20.0, ge=0, description="How long running calls may finish after SIGTERM.")
    observation_host: str = Field(default="127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    observation_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics; 0 takes a free one."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least level that is logged.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="JSON lines, console, or by whether stderr is a terminal."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/gRPC collector, `https://host:4317`; unset: no export."
    )

    @property
    def tls_files(self) -> TlsFiles:
        return TlsFiles(
            certificate=self.tls_certificate_file, key=self.tls_key_file, authorities=self.tls_authorities_file
        )


def settings_table(settings: type[ServiceSettings]) -> str:
    """Return the Markdown table of ``settings`` that docs/settings.md must contain."""
    raise NotImplementedError
