"""Settings from the environment, parsed once in main. A variable that nobody reads or that is misspelled stops us.

pydantic-settings ignores variables that it does not know: `ServiceSettings.load` compares names first.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Final, Self, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from service.logs import LogFormat, LogLevel
from service.tls import TlsFiles
from templates.reasons import AgentFactoryError, Reason

FAMILY: Final = "AGENTFACTORY_"
NEAR: Final = 0.85


class InvalidSettingsError(AgentFactoryError):
    """One line per variable that is missing, misspelled or malformed; values are never shown."""

    reason = Reason.INVALID_SETTINGS

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(self.lines), metadata={"problems": str(len(self.lines))})


class ServiceSettings(BaseSettings):
    """Base of a process's settings: ``class NodeSettings(ServiceSettings, env_prefix="AGENTFACTORY_NODE_")``.

    Every field has a description, and a unit in its name where it has one; docs/settings.md holds its table.
    Only `load` reads an environment: the constructor takes what it is given, so a test never sees the machine's.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False, hide_input_in_errors=True)
    known_prefixes: ClassVar[tuple[str, ...]] = ("AGENTFACTORY_CP_", "AGENTFACTORY_NODE_")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave only the constructor's arguments: see the class."""
        return (init_settings,)

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """Read ``environment`` (main passes ``os.environ``).

        Raises:
            InvalidSettingsError: naming every variable that is wrong, with the nearest name for a misspelled one.
        """
        fields = {cls.variable(name): name for name in cls.model_fields}
        prefix = str(cls.model_config["env_prefix"]).upper()
        problems = [_misspelled(each, fields, prefix) for each in sorted(cls._strangers(environment, fields))]
        values: dict[str, Any] = {}
        source = InitSettingsSource(cls, {})
        for variable, name in fields.items():
            if variable not in environment:
                continue
            values[name] = environment[variable]
            if source.field_is_complex(cls.model_fields[name]):
                try:
                    values[name] = json.loads(environment[variable])
                except json.JSONDecodeError:
                    problems.append(f"{variable}: expected JSON")
                    del values[name]
        try:
            settings = cls(**values)
        except ValidationError as error:
            known = {problem.partition(":")[0] for problem in problems}
            problems += [line for line in cls._explain(error) if line.partition(":")[0] not in known]
            raise InvalidSettingsError(problems) from None  # its text would show values
        if problems:
            raise InvalidSettingsError(problems)
        return settings

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the variable of one field."""
        return f"{cls.model_config['env_prefix']}{name}".upper()

    @classmethod
    def _strangers(cls, environment: Mapping[str, str], fields: Mapping[str, str]) -> Iterator[str]:
        prefix = str(cls.model_config["env_prefix"]).upper()
        others = tuple(each for each in cls.known_prefixes if each != prefix)
        for variable in environment:
            upper = variable.upper()
            if variable in fields or not upper.startswith(FAMILY) or upper.startswith(others):
                continue
            if upper.startswith(prefix) or difflib.get_close_matches(upper, fields, n=1, cutoff=NEAR):
                yield variable

    @classmethod
    def _explain(cls, error: ValidationError) -> Iterator[str]:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            place = ".".join(str(part) for part in each["loc"][1:])
            variable = cls.variable(str(each["loc"][0])) if each["loc"] else f"{cls.model_config['env_prefix']}*"
            yield f"{variable}{f' at {place}' if place else ''}: {each['msg'].removeprefix('Value error, ')}"


def _misspelled(variable: str, fields: Mapping[str, str], prefix: str) -> str:
    # The prefix that all share would make everything look alike.
    if variable.upper().startswith(prefix):
        ends = [each.removeprefix(prefix) for each in fields]
        nearest = [prefix + end for end in difflib.get_close_matches(variable.upper().removeprefix(prefix), ends, n=1)]
    else:
        nearest = difflib.get_close_matches(variable.upper(), fields, n=1, cutoff=NEAR)
    return f"{variable}: nothing reads it" + (f"; did you mean {nearest[0]}?" if nearest else "")


class ServerSettings(ServiceSettings):
    """What every server process of ours needs."""

    listen_host: str = Field(default="127.0.0.1", description="Address that the gRPC server binds to.")
    listen_port: int = Field(default=0, ge=0, le=65535, description="Port of the gRPC server; 0 takes a free one.")
    trust_domain: str = Field(description="Trust domain of every identity here, as in `spiffe://<trust domain>/…`.")
    tls_certificate_file: Path = Field(description="This process's certificate, PEM, with one URI name.")
    tls_key_file: Path = Field(description="Its private key, PEM, mode 0600.")
    tls_authorities_file: Path = Field(description="Certificates of the authorities that sign peers, PEM.")
    message_bytes_max: int = Field(
        default=8 * 1024 * 1024, gt=0, description="Longest gRPC message that is accepted or sent."
    )
    calls_max: int = Field(default=4096, gt=0, description="Calls in progress, beyond which callers are sent away.")
    unary_deadline_s: float = Field(
        default=120.0, gt=0, description="Longest that a unary call may take, whatever its caller says."
    )
    drain_s: float = Field(default=20.0, ge=0, description="How long running calls may finish after SIGTERM.")
    observation_host: str = Field(default="127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    observation_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics; 0 takes a free one."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least level that is logged.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="`auto` is `console` on a terminal and `json` elsewhere."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="OTLP/gRPC collector, `https://host:4317`, or `http://` on loopback; unset: no export.",
    )
    otlp_trace_ratio: float = Field(default=1.0, ge=0, le=1, description="Share of traces begun here that are sent.")

    @property
    def tls_files(self) -> TlsFiles:
        """The three TLS settings as one value."""
        return TlsFiles(
            certificate=self.tls_certificate_file, key=self.tls_key_file, authorities=self.tls_authorities_file
        )


def settings_table(settings: type[ServiceSettings]) -> str:
    """Return the Markdown table of ``settings`` that docs/settings.md must contain."""
    rows = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "required" if field.is_required() else _default(field)
        rows.append(f"| `{settings.variable(name)}` | {_type(field)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == "":
        return "unset"
    if isinstance(value, Enum):
        value = value.value
    return f"`{json.dumps(value) if isinstance(value, dict | list | tuple | bool) else value}`"


_TYPE_NAMES: Final[Mapping[object, str]] = MappingProxyType(
    {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", SecretStr: "secret"}
)


def _type(field: FieldInfo) -> str:
    annotation: object = field.annotation
    alternatives = [each for each in get_args(annotation) if each is not NoneType]
    if isinstance(annotation, UnionType) and len(alternatives) == 1:
        annotation = alternatives[0]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    bounds = [
        f"{sign} {getattr(each, key):g}"
        for each in field.metadata
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(each, key)
    ]
    return " ".join((_TYPE_NAMES.get(annotation, "JSON"), ", ".join(bounds))).strip()
