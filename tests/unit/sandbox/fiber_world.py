"""A scheduler in this process, with time and randomness in the test's hands."""

from dataclasses import dataclass, field
from functools import cache

from sandbox.command import CommandProgram
from sandbox.core_module import CoreModule
from sandbox.engine import Engine, EngineSettings
from sandbox.fibers import Invocation, Program, Turn
from sandbox.limits import SandboxLimits
from sandbox.outcome import Usage
from sandbox.scheduler import Scheduler
from tests.isolation.guests import KV, LIMITS, compiled

WALL_NS = 1_700_000_000_123_456_789
ROUND_NS = 10**15


@cache
def engine() -> Engine:
    """Return one pool for all tests of this process."""
    return Engine(EngineSettings(slots=20, memory_slot_bytes=64 << 20))


class FakeClock:
    """Time that moves when the test says so, and by ``step_ns`` at each look."""

    def __init__(self, step_ns: int = 0) -> None:
        self.now_ns, self.step_ns = 5_000_000_000_000, step_ns

    def monotonic_ns(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def wall_ns(self) -> int:
        return WALL_NS


@dataclass
class End:
    output: bytes | None
    invocation: Invocation
    usage: Usage

    @property
    def kind(self) -> str | None:
        return None if self.invocation.failure is None else self.invocation.failure.kind.value

    @property
    def message(self) -> str:
        return "" if self.invocation.failure is None else self.invocation.failure.message


@dataclass
class World:
    """Scheduler, clock and what came out of them."""

    clock: FakeClock = field(default_factory=FakeClock)
    slots: int = 10
    ends: dict[int, End] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    calls: list[tuple[int, str, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turn = Turn(self.clock, lambda count: bytes(range(256))[:count])
        self.scheduler = Scheduler(engine(), slots=self.slots, turn=self.turn, outbox=self)
        self._programs: dict[str, Program] = {}
        self._last = 0

    def finished(self, invocation: Invocation, output: bytes | None, usage: Usage) -> None:
        assert invocation.number not in self.ends, "an invocation ends once"
        self.ends[invocation.number] = End(output, invocation, usage)
        self.order.append(invocation.number)

    def host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        self.calls.append((invocation.number, interface, function, argument))

    def program(self, text: str) -> Program:
        if text not in self._programs:
            module = CoreModule.deserialize(engine(), compiled(text).code)
            self._programs[text] = CommandProgram(engine(), module, self.turn)
        return self._programs[text]

    def start(
        self,
        program: str | Program,
        data: bytes = b"",
        *,
        limits: SandboxLimits = LIMITS,
        granted: frozenset[str] = KV,
        config: bytes = b"{}",
    ) -> int:
        self._last += 1
        invocation = Invocation(
            self._last,
            turn=self.turn,
            link=self.scheduler,
            limits=limits,
            deadline_ns=self.clock.now_ns + limits.wall_ms * 1_000_000,
            input=data,
            granted=granted,
            config=config,
        )
        self.scheduler.start(invocation, self.program(program) if isinstance(program, str) else program)
        return self._last

    def turns(self, count: int) -> None:
        """Run ``count`` slices."""
        for _ in range(count):
            self.scheduler.run(self.clock.now_ns)
            self.scheduler.discard_ended()

    def settle(self) -> None:
        """Run until nobody has a turn."""
        while True:
            self.scheduler.run(self.clock.now_ns + ROUND_NS)
            self.scheduler.discard_ended()
            if self.scheduler.is_idle:
                return

    def run(self, program: str | Program, data: bytes = b"", **options: object) -> End:
        number = self.start(program, data, **options)  # type: ignore[arg-type]  # the keywords of start
        self.settle()
        return self.ends[number]

    def advance(self, ns: int) -> None:
        self.clock.now_ns += ns
        self.settle()
