"""What is kept of an invocation: cheap to make while it runs, written in batches afterwards.

A record is made while the guest runs, told its end once, and changed by nobody after that. Those made for every
invocation are not frozen: that triples the cost of making one.
"""

from dataclasses import dataclass, field
from datetime import datetime

OK = "OK"


@dataclass(frozen=True, slots=True)
class LogRecord:
    """``at_us`` counts from the start of the invocation."""

    level: str
    message: str
    at_us: int


@dataclass(slots=True, kw_only=True)
class UsageRecord:
    fuel: int = 0
    wall_us: int = 0
    guest_us: int = 0
    host_calls: int = 0
    wasi_calls: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    log_bytes: int = 0
    child_invocations: int = 0


@dataclass(slots=True, kw_only=True)
class InvocationRecord:
    """One invocation, without input and output. ``outcome`` is OK or a failure kind, and empty while it runs."""

    invocation_id: str
    tenant: str
    caller: str
    agent_id: str
    template: str
    version: str
    generation: int
    template_sha256: str
    code_sha256: str
    image_sha256: str
    config_sha256: str
    started_at: datetime
    outcome: str = ""
    message: str = ""
    usage: UsageRecord = field(default_factory=UsageRecord)
    logs: tuple[LogRecord, ...] = ()
    logs_cut: bool = False
    parent_invocation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFilter:
    """Empty members do not filter. Pages are newest first; ``before`` is the id that ended the page before."""

    tenant: str
    agent_id: str = ""
    template: str = ""
    before: str = ""
    count_max: int = 50
