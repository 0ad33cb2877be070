"""The door to the sandbox: quotas, the adaptive limit, and a short fair queue before it.

An invocation passes at once as long as there is room and nobody waits. Otherwise it waits for its turn, no longer than
``wait_s_max`` and its caller's deadline, or is sent away with the time after which there is likely room.
"""

import asyncio
from dataclasses import dataclass

from data_plane.admission.concurrency import ConcurrencyLimit
from data_plane.admission.fair_queue import FairQueue
from data_plane.admission.quotas import Exceeded, Resource, TenantQuotas
from data_plane.agents.refusals import (
    ConcurrencyExhaustedError,
    TenantInFlightExhaustedError,
    TenantMemoryExhaustedError,
    TenantWorkersExhaustedError,
)

RETRY_S = 1.0
"""When a tenant may come back that stands at a quota of its own: nobody knows better."""


@dataclass(slots=True, eq=False)
class _Ticket:
    turn: "asyncio.Future[bool]"


class AdmissionGate:
    """Call `enter`, then `wait` if it says so, then `leave`; `enter_child` and `leave_child` for children."""

    def __init__(
        self,
        *,
        limit: ConcurrencyLimit,
        quotas: TenantQuotas,
        queue_max: int,
        wait_s_max: float,
    ) -> None:
        self.limit = limit
        self.quotas = quotas
        self._queue: FairQueue[_Ticket] = FairQueue(length_max=queue_max)
        self._wait_s_max = wait_s_max

    @property
    def queued(self) -> int:
        return len(self._queue)

    def queued_of(self) -> dict[str, int]:
        """Return how many of each tenant wait."""
        return self._queue.lengths()

    def enter(self, tenant: str, memory_bytes: int) -> bool:
        """Let one in and return True, or return False: it must `wait`.

        Raises:
            TenantInFlightExhaustedError, TenantMemoryExhaustedError, TenantWorkersExhaustedError
        """
        exceeded = self.quotas.enter(tenant, memory_bytes)
        if exceeded is not None:
            raise _refusal(tenant, exceeded)
        return not len(self._queue) and self.limit.admit()

    async def wait(self, tenant: str, memory_bytes: int, *, remaining_s: float | None) -> None:
        """Wait for the turn of one that `enter` counted but did not let in. A refused or cancelled one has left.

        Raises:
            ConcurrencyExhaustedError: the queue is full, or the turn did not come in time.
        """
        ticket = _Ticket(asyncio.get_running_loop().create_future())
        refused = self._queue.push(tenant, ticket)
        if refused is not None and not refused.turn.done():
            refused.turn.set_result(False)
        wait_s = self._wait_s_max if remaining_s is None else min(self._wait_s_max, remaining_s)
        is_in = False
        try:
            async with asyncio.timeout(wait_s):
                is_in = await ticket.turn
        except TimeoutError:
            is_in = self._came_late(ticket)
        except asyncio.CancelledError:
            if self._came_late(ticket):
                self.limit.give_back()
                self._admit_next()
            raise
        finally:
            if not is_in:
                self._queue.remove(tenant, ticket)
                self.quotas.leave(tenant, memory_bytes)
        if not is_in:
            raise ConcurrencyExhaustedError(
                f"expected at most {self.limit.limit} invocations in flight and a turn within {wait_s:g} s",
                retry_s=self.limit.retry_s(queued=len(self._queue)),
            )

    def leave(
        self, tenant: str, memory_bytes: int, *, delay_s: float, guest_s: float, duration_s: float, now: float
    ) -> None:
        """Count one less, and let in whose turn it is; see `ConcurrencyLimit.finish`."""
        self.quotas.leave(tenant, memory_bytes)
        self.limit.finish(delay_s=delay_s, guest_s=guest_s, duration_s=duration_s, now=now)
        if len(self._queue):
            self._admit_next()

    def enter_child(self, tenant: str, memory_bytes: int) -> None:
        """Count a child, which needs no room of its own; raise `TenantMemoryExhaustedError`."""
        exceeded = self.quotas.enter(tenant, memory_bytes, is_child=True)
        if exceeded is not None:
            raise _refusal(tenant, exceeded)

    def leave_child(self, tenant: str, memory_bytes: int) -> None:
        self.quotas.leave(tenant, memory_bytes, is_child=True)

    def _admit_next(self) -> None:
        while len(self._queue) and self.limit.admit():
            ticket = self._queue.pop()
            if ticket is None or ticket.turn.done():  # cancelled within this turn of the loop
                self.limit.give_back()
            else:
                ticket.turn.set_result(True)

    @staticmethod
    def _came_late(ticket: _Ticket) -> bool:
        """Whether the turn came in the same moment as the end of waiting: the place is taken and must be used."""
        return ticket.turn.done() and not ticket.turn.cancelled() and ticket.turn.result()


def _refusal(
    tenant: str, exceeded: Exceeded
) -> TenantInFlightExhaustedError | TenantMemoryExhaustedError | TenantWorkersExhaustedError:
    match exceeded.resource:
        case Resource.IN_FLIGHT:
            return TenantInFlightExhaustedError(tenant, exceeded.most, retry_s=RETRY_S)
        case Resource.MEMORY_BYTES:
            return TenantMemoryExhaustedError(tenant, exceeded.most, retry_s=RETRY_S)
        case Resource.WORKERS:
            return TenantWorkersExhaustedError(tenant, exceeded.most, retry_s=RETRY_S)
