"""What the control plane knows about each node, as the node itself told it: for people, never a ground for trust."""

from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.push import Stage

TEXT_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a node did not take a generation."""

    generation: int
    phase: str
    template: str
    reason: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """``generation`` and ``stage`` are the last that it acknowledged; ``refusal`` is None once it is behind it."""

    id: str
    seen_at: datetime
    connected: bool = False
    generation: int = 0
    stage: Stage | None = None
    refusal: Refusal | None = None
    version: str = ""
    wasmtime_version: str = ""
    isolation: str = ""
    state: str = ""
    in_flight: int = 0
    agents: int = 0
    invocations: int = 0
    failures: int = 0

    def greeted(self, *, now: datetime, generation: int, version: str, wasmtime_version: str) -> "NodeView":
        """Note a Hello: whatever it holds, it serves."""
        return replace(
            self,
            connected=True,
            seen_at=now,
            generation=generation,
            stage=Stage.ACTIVE if generation else None,
            refusal=None,
            version=_short(version),
            wasmtime_version=_short(wasmtime_version),
        )

    def acked(self, *, now: datetime, generation: int, stage: Stage) -> "NodeView":
        refusal = self.refusal
        if refusal is not None and generation >= refusal.generation:
            refusal = None
        return replace(self, seen_at=now, generation=generation, stage=stage, refusal=refusal)

    def nacked(self, *, now: datetime, refusal: Refusal) -> "NodeView":
        shortened = replace(
            refusal,
            phase=_short(refusal.phase),
            template=_short(refusal.template),
            reason=_short(refusal.reason),
            message=_short(refusal.message),
        )
        return replace(self, seen_at=now, refusal=shortened)

    def reported(
        self,
        *,
        now: datetime,
        in_flight: int,
        agents: int,
        invocations: int,
        failures: int,
        state: str,
        isolation: str,
    ) -> "NodeView":
        return replace(
            self,
            seen_at=now,
            in_flight=in_flight,
            agents=agents,
            invocations=invocations,
            failures=failures,
            state=_short(state),
            isolation=_short(isolation),
        )

    def left(self, *, now: datetime) -> "NodeView":
        return replace(self, connected=False, seen_at=now, in_flight=0)


def _short(text: str) -> str:
    """Cut what a node says about itself, and keep it on one line: it ends in logs and on terminals."""
    return "".join(each if each.isprintable() else "�" for each in text[:TEXT_CHARACTERS_MAX])
