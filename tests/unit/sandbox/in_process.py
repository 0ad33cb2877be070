"""Components run by the real scheduler in this process, under a clock that only tests move."""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.component import ComponentAbi, ComponentProgram
from sandbox.engine import Engine
from sandbox.fibers import Invocation, Turn
from sandbox.limits import SandboxLimits
from sandbox.outcome import Failure, LogLine, Usage
from sandbox.request import CompiledCode
from sandbox.scheduler import Scheduler

Handler = Callable[[str, str, dict[str, Any]], object]


class ManualClock:
    """Stands still until it is moved; every reading costs a little, so that loops over it end."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000_000

    def monotonic_ns(self) -> int:
        self.now_ns += 100
        return self.now_ns

    def wall_ns(self) -> int:
        return 1_700_000_000_123_456_789


@dataclass(slots=True)
class Ended:
    """What the scheduler reported."""

    output: bytes | None
    failure: Failure | None
    usage: Usage
    logs: list[LogLine]
    logs_cut: bool

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(line.level, line.message) for line in self.logs]


@dataclass(slots=True)
class World:
    """An engine, a scheduler and whoever answers host calls."""

    engine: Engine = field(default_factory=Engine)
    clock: ManualClock = field(default_factory=ManualClock)
    ended: dict[int, Ended] = field(default_factory=dict)
    calls: deque[tuple[Invocation, str, str, bytes]] = field(default_factory=deque)
    random: Callable[[int], bytes] = lambda length: bytes(range(256)) * (length // 256) + bytes(range(length % 256))
    _turn: Turn = field(init=False)
    _scheduler: Scheduler = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self._turn = Turn(self.clock, self.random)
        self._scheduler = Scheduler(self.engine, slots=8, turn=self._turn, outbox=self)

    def finished(self, invocation: Invocation, output: bytes | None, usage: Usage) -> None:
        self.ended[invocation.number] = Ended(
            output, invocation.failure, usage, list(invocation.logs), invocation.logs_cut
        )

    def host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        self.calls.append((invocation, interface, function, argument))

    def program(self, compiled: CompiledCode, *, abi: ComponentAbi = "component") -> ComponentProgram:
        return ComponentProgram.deserialize(self.engine, compiled.code, self._turn, abi=abi)

    def run(
        self,
        program: ComponentProgram,
        text: bytes = b"hello",
        *,
        source: bytes | None = None,
        config: bytes = b"{}",
        granted: frozenset[str] = frozenset(),
        process: bool = True,
        answer: Handler | None = None,
        limits: SandboxLimits | None = None,
    ) -> Ended:
        """Run one invocation to its end; when everybody waits, time moves to the next timer."""
        self._number += 1
        limits = limits or SandboxLimits()
        invocation = Invocation(
            self._number,
            turn=self._turn,
            link=self._scheduler,
            limits=limits,
            deadline_ns=self.clock.now_ns + limits.wall_ms * 1_000_000,
            input=text,
            config=config,
            source=source,
            granted=granted,
            invocation_id=f"invocation-{self._number}",
            process=process,
        )
        self._scheduler.start(invocation, program)
        while self._scheduler.count:
            self._scheduler.run(self.clock.now_ns + 10**9)
            while self.calls:
                called, interface, function, argument = self.calls.popleft()
                reply = answer(interface, function, json.loads(argument)) if answer else {"ok": None}
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self._scheduler.answer(called.number, raw)
            timer_ns = self._scheduler.next_timer_ns
            if self._scheduler.count and self._scheduler.is_idle and timer_ns is not None:
                self.clock.now_ns = max(self.clock.now_ns, timer_ns)
        self._scheduler.discard_ended()
        return self.ended.pop(self._number)
