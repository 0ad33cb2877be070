"""What the way of an invocation asks of whoever records it: `data_plane.recorder`."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from sandbox.limits import SandboxLimits
from sandbox.nature import RecordOrder
from sandbox.outcome import Outcome
from sandbox.request import HostCalls

if TYPE_CHECKING:
    from data_plane.invoker import Call, Running


class Recorder(Protocol):
    """Records one invocation: `data_plane.recorder`."""

    order: RecordOrder

    def listening(self, host: HostCalls) -> HostCalls:
        """Return ``host`` such that its answers are recorded."""
        ...

    def ended_late(self, outcome: Outcome) -> None:
        """Hear how the worker ended what was stopped from outside."""
        ...

    async def keep(self, outcome: Outcome, *, was_stopped: bool) -> None:
        """Keep what was recorded; never raises but for cancellation.

        ``was_stopped``: the node stopped the guest, so that the worker's last word is still on its way.
        """
        ...


class RecorderFactory(Protocol):
    """Makes the recorder of an invocation that asks for one, or refuses."""

    def room(self, call: "Call") -> AbstractContextManager[None]:
        """Hold room for one recording.

        Raises:
            AgentFactoryError: this invocation may not be recorded, or not now.
        """
        ...

    def __call__(self, running: "Running", data: bytes, limits: SandboxLimits, started_at: float) -> Recorder:
        """Return the recorder of an invocation that has room.

        Raises:
            AgentFactoryError: it does not fit a recording.
        """
        ...
