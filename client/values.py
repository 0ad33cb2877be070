"""What the client library returns: plain values, no protobuf."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one invocation consumed. ``wall_ms`` runs from the request's arrival, ``guest_ms`` inside the worker."""

    fuel: int
    wall_ms: float
    guest_ms: float
    host_calls: int
    wasi_calls: int
    input_bytes: int
    output_bytes: int
    log_bytes: int
    child_invocations: int
    sent_bytes: int = 0
    received_bytes: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    file_read_bytes: int = 0
    file_written_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRecording:
    """A recording that a node keeps. Without ``template`` and ``outcome`` once its log has forgotten the invocation."""

    invocation_id: str
    node: str
    template: str
    outcome: str
    created: datetime
    expires: datetime
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "created": self.created.isoformat(), "expires": self.expires.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What ran, as the node says it; digests are hexadecimal SHA-256.

    ``statement`` is what the node signed; it is empty in lists. ``signature``, ``key_id`` and ``salt`` are hexadecimal;
    the salt comes with the answer only. `AgentFactory.receipt_file` makes of it what verifies anywhere.
    """

    invocation_id: str
    node: str
    generation: int
    caller: str
    template: str
    template_sha256: str
    code_sha256: str
    image_sha256: str
    config_sha256: str
    usage: Usage
    statement: str = ""
    signature: str = ""
    key_id: str = ""
    salt: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of an agent; ``str(answer)`` is its text."""

    output: str
    receipt: Receipt

    def json(self) -> Any:
        """Return the output read as JSON.

        Raises:
            ValueError: the agent answered with other text.
        """
        return json.loads(self.output)

    def __str__(self) -> str:
        return self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    level: str
    message: str
    at_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Narrower limits for one invocation; 0 leaves the template's."""

    fuel: int = 0
    wall_ms: int = 0
    memory_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    log_bytes: int = 0
    host_calls: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    tokens: int = 0
    child_invocations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent as its node describes it."""

    name: str
    template: str
    template_version: str
    config: Mapping[str, Any]
    effective_config: Mapping[str, Any]
    capabilities: Sequence[str]
    tenant: str
    created: datetime
    limits: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "created": self.created.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """One entry of ``create_agents``."""

    template: str
    suffix: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSummary:
    template: str
    sha256: str
    role: str
    description: str
    capabilities: Sequence[str]
    tools: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationRecord:
    """One recent invocation as its node remembers it."""

    invocation_id: str
    agent: str
    outcome: str
    message: str
    started: datetime
    parent_invocation_id: str
    receipt: Receipt
    logs: Sequence[LogLine] = ()
    logs_cut: bool = False
    has_recording: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "started": self.started.isoformat()}
