"""Carries out what `control_plane.break_glass` decides: durable first, then told to whoever watches, then answered.

Every step is an alert: one log line of level WARNING with all its facts and one count of the metric, so that nobody
breaks the glass unseen. It is stored before it is told, and a use before the action that it lets through.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum, unique

from control_plane import break_glass
from control_plane.break_glass import BreakGlass, BreakGlassUnknownError
from control_plane.publication import Published
from control_plane.sqlite_break_glass import SqliteBreakGlass
from service.logs import get_logger
from service.telemetry import BREAK_GLASS, Telemetry
from templates.names import TemplateRef

log = get_logger("break_glass")


@unique
class Event(StrEnum):
    OPENED = "break_glass_opened"
    CONFIRMED = "break_glass_confirmed"
    CLOSED = "break_glass_closed"
    USED = "break_glass_used"


class Glasses:
    """One writer at a time; safe to call from anywhere on the event loop."""

    def __init__(self, *, store: SqliteBreakGlass, telemetry: Telemetry, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._writing = asyncio.Lock()

    def now(self) -> datetime:
        return self._clock()

    async def open(
        self, ref: TemplateRef, *, by: str, why: str, minutes: int, request_id: str, present: Published
    ) -> BreakGlass:
        """Ask for it; the same request id and content give the same one, however often.

        Raises:
            BreakGlassRefusedError: see `control_plane.break_glass`; nothing is stored.
        """
        async with self._writing:
            asked = break_glass.open_glass(
                ref,
                by=by,
                why=why,
                minutes=minutes,
                request_id=request_id,
                charter=present.charter,
                revocations=present.revocations,
                now=self._clock(),
            )
            known = await asyncio.to_thread(self._store.of_request, by, request_id) if request_id else None
            if known is not None:
                break_glass.require_same(known, asked)
                return known
            glass = await asyncio.to_thread(self._store.add, asked)
            self._alert(Event.OPENED, glass, person=by)
            return glass

    async def confirm(self, name: str, *, by: str, present: Published) -> BreakGlass:
        """Let it begin.

        Raises:
            BreakGlassUnknownError, BreakGlassRefusedError
        """
        async with self._writing:
            glass = await self._get(name)
            confirmed = break_glass.confirm(
                glass, by=by, charter=present.charter, revocations=present.revocations, now=self._clock()
            )
            if confirmed != glass:
                await asyncio.to_thread(self._store.save, confirmed)
                self._alert(Event.CONFIRMED, confirmed, person=by)
            return confirmed

    async def close(self, name: str, *, by: str, present: Published) -> BreakGlass:
        """End it.

        Raises:
            BreakGlassUnknownError, BreakGlassRefusedError
        """
        async with self._writing:
            glass = await self._get(name)
            closed = break_glass.close(
                glass, by=by, charter=present.charter, revocations=present.revocations, now=self._clock()
            )
            if closed != glass:
                await asyncio.to_thread(self._store.save, closed)
                self._alert(Event.CLOSED, closed, person=by)
            return closed

    async def usable(self, ref: TemplateRef, *, present: Published) -> BreakGlass | None:
        """Return what is open for ``ref`` now."""
        found = await asyncio.to_thread(self._store.not_closed, ref)
        return break_glass.usable(
            found, ref, charter=present.charter, revocations=present.revocations, now=self._clock()
        )

    async def use(
        self, ref: TemplateRef, *, action: str, person: str, policies: Sequence[str], present: Published
    ) -> BreakGlass | None:
        """Note that it lets ``action`` through, and tell; None when none is open any more: then it does not."""
        async with self._writing:
            glass = await self.usable(ref, present=present)
            if glass is None:
                return None
            noted = break_glass.used(glass, action=action, person=person, policies=policies, now=self._clock())
            await asyncio.to_thread(self._store.save, noted)
            self._alert(Event.USED, noted, person=person, action=action, policies=list(policies))
            return noted

    async def page(self, *, before: int | None, limit: int) -> list[BreakGlass]:
        """Return stored ones, newest first, with numbers below ``before``."""
        return await asyncio.to_thread(lambda: self._store.all(before=before, limit=limit))

    async def _get(self, name: str) -> BreakGlass:
        glass = await asyncio.to_thread(self._store.get, break_glass.glass_number(name))
        if glass is None:
            raise BreakGlassUnknownError(name)
        return glass

    def _alert(self, event: Event, glass: BreakGlass, *, person: str, **facts: object) -> None:
        self._telemetry.count(BREAK_GLASS, event.removeprefix("break_glass_"))
        log.warning(
            event,
            break_glass=glass.name,
            template=str(glass.ref),
            person=person,
            why=glass.why,
            minutes=glass.minutes,
            opened_by=glass.opened_by,
            confirmed_by=glass.confirmed_by,
            **facts,
        )
