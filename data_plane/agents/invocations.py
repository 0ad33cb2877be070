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
class GrantUsage:
    """What few invocations use: bytes of files, and the cost of language models in millionths of a US dollar."""

    cost_microusd: int = 0
    file_read_bytes: int = 0
    file_written_bytes: int = 0

    def amounts(self) -> dict[str, int]:
        """Return every amount by its name in receipts."""
        return {
            "cost_microusd": self.cost_microusd,
            "file_read_bytes": self.file_read_bytes,
            "file_written_bytes": self.file_written_bytes,
        }


@dataclass(slots=True, kw_only=True)
class UsageRecord:
    """``grants`` is None where none of its amounts was used."""

    fuel: int = 0
    wall_us: int = 0
    guest_us: int = 0
    host_calls: int = 0
    wasi_calls: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    log_bytes: int = 0
    child_invocations: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    tokens: int = 0
    grants: GrantUsage | None = None


@dataclass(slots=True, kw_only=True)
class InvocationRecord:
    """One invocation, without input and output. ``outcome`` is OK or a failure kind, and empty while it runs.

    ``salt`` is the key of the two digests; it goes out with the answer, and no log keeps it.
    """

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
    input_hmac_sha256: str = ""
    output_hmac_sha256: str = ""
    salt: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFilter:
    """Empty members do not filter. Pages are newest first; ``before`` is the id that ended the page before."""

    tenant: str
    agent_id: str = ""
    template: str = ""
    before: str = ""
    count_max: int = 50
