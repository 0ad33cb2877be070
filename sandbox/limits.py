"""The budget of one invocation, as the sandbox enforces it."""

from dataclasses import dataclass

MIB = 1 << 20

# Hard ceilings of this sandbox: what a worker can promise to carry out, whatever a template says.
MEMORY_BYTES_CEILING = 1024 * MIB
TRANSFER_BYTES_CEILING = 16 * MIB
HOST_CALL_BYTES_MAX = 1 * MIB
HOST_ANSWER_BYTES_MAX = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Budget of one invocation. Counts and sizes; ``wall_ms`` runs from the moment the supervisor sends it.

    The last four are counted by whoever carries out host calls; a worker does not hear of them.
    ``wasi_calls`` counts calls of virtual WASI functions, which ``host_calls`` does not. The engine applies
    ``memory_bytes`` to each memory: with one memory, as every toolchain here makes, it is the total.
    """

    fuel: int = 2_000_000_000
    wall_ms: int = 10_000
    memory_bytes: int = 128 * MIB
    input_bytes: int = MIB
    output_bytes: int = MIB
    log_bytes: int = 262_144
    host_calls: int = 1_000
    wasi_calls: int = 1_000_000
    memories: int = 1
    tables: int = 40
    table_elements: int = 20_000
    instances: int = 64
    sent_bytes: int = 16 * MIB
    received_bytes: int = 64 * MIB
    tokens: int = 100_000
    child_invocations: int = 100_000

    def __post_init__(self) -> None:
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"expected {name} from {lowest} to {highest}, got {value}")


_RANGES = (
    ("fuel", 1, (1 << 63) - 1),
    ("wall_ms", 1, 86_400_000),
    ("memory_bytes", 65_536, MEMORY_BYTES_CEILING),
    ("input_bytes", 0, TRANSFER_BYTES_CEILING),
    ("output_bytes", 0, TRANSFER_BYTES_CEILING),
    ("log_bytes", 0, TRANSFER_BYTES_CEILING),
    ("host_calls", 0, 1_000_000_000),
    ("wasi_calls", 0, 1_000_000_000),
    ("memories", 1, 64),
    ("tables", 1, 256),
    ("table_elements", 1, 1_000_000),
    ("instances", 1, 256),
    ("sent_bytes", 0, (1 << 53) - 1),
    ("received_bytes", 0, (1 << 53) - 1),
    ("tokens", 0, (1 << 53) - 1),
    ("child_invocations", 0, (1 << 53) - 1),
)
