"""What agents and tenants have used of language models today, in SQLite: a restart does not give it back.

A call is charged before it is made and settled afterwards. A node that dies in between leaves the charge standing,
which errs on the side of the operator's purse.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from data_plane.agents.agent import AgentScope
from data_plane.broker.llm_budget import Charge, DayCeilings, Left, Reservation
from data_plane.sealed_rows import RowSeals
from data_plane.sqlite_writer import SqliteWriter

DAY_S: Final = 86_400

_USED: Final = (
    "SELECT tokens, cost_microusd, seal FROM llm_use"
    " WHERE day = ? AND tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND binding = ?"
)
_SET: Final = "INSERT OR REPLACE INTO llm_use VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET: Final = "DELETE FROM llm_use WHERE day < ?"

Plan = Callable[[Sequence[Left]], Reservation]
"""Says what a call takes of what is left; raises `HostRefusal` when that is too little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmAccount:
    """Whose use of which binding, on which day (days since 1970, UTC)."""

    scope: AgentScope
    binding: str
    day: int

    @property
    def _rows(self) -> tuple[tuple[int | str, ...], tuple[int | str, ...]]:
        scope = self.scope
        agent = (self.day, scope.tenant, scope.template.domain, scope.template.name, scope.agent_id, self.binding)
        return agent, (self.day, scope.tenant, "", "", "", self.binding)

    def used(self, connection: sqlite3.Connection, seals: RowSeals) -> tuple[Charge, Charge]:
        """Return what the agent, and what its tenant, has used; raise `RowDamagedError` for what was changed since."""
        agent, tenant = (_used(connection, seals, row) for row in self._rows)
        return agent, tenant

    def add(self, connection: sqlite3.Connection, seals: RowSeals, more: Charge) -> None:
        for row in self._rows:
            used = _used(connection, seals, row)
            columns = (*row, used.tokens + more.tokens, used.cost_microusd + more.cost_microusd)
            connection.execute(_SET, (*columns, seals.seal("llm_use", columns)))


def _used(connection: sqlite3.Connection, seals: RowSeals, row: tuple[int | str, ...]) -> Charge:
    found = connection.execute(_USED, row).fetchone()
    if found is None:
        return Charge()
    *amounts, seal = found
    seals.require("llm_use", (*row, *amounts), seal, name=f"{row[1]} {row[5]}")
    return Charge(tokens=amounts[0], cost_microusd=amounts[1])


class SqliteLlmUse:
    """The days' use of all bindings that have a ceiling."""

    def __init__(self, writer: SqliteWriter) -> None:
        self._writer = writer
        self._seals = writer.seals
        self._newest_day = 0

    async def reserve(self, account: LlmAccount, ceilings: DayCeilings, plan: Plan) -> Reservation:
        """Charge what ``plan`` makes of what today leaves, and return it.

        Raises:
            HostRefusal: from ``plan``; nothing was charged.
            DatabaseFailedError, RowDamagedError: nothing was charged.
        """
        charged: list[Charge] = []

        def work(connection: sqlite3.Connection) -> Reservation:
            if account.day > self._newest_day:
                connection.execute(_FORGET, (account.day - 1,))
                self._newest_day = account.day
            agent, tenant = account.used(connection, self._seals)
            reservation = plan(ceilings.left(agent=agent, tenant=tenant))
            account.add(connection, self._seals, reservation.amount)
            charged.append(reservation.amount)
            return reservation

        def undo(connection: sqlite3.Connection) -> None:
            for amount in charged:  # writes keep their order: by now the charge was made, or refused
                account.add(connection, self._seals, Charge().less(amount))

        try:
            return await self._writer.write(work)
        except asyncio.CancelledError:
            self._writer.post(undo)
            raise

    def settle(self, account: LlmAccount, difference: Charge) -> None:
        """Add ``difference`` (usually negative) to what was charged; waits for nothing."""
        if difference != Charge():
            self._writer.post(lambda connection: account.add(connection, self._seals, difference))
