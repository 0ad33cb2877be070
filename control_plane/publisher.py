"""The one place where a generation comes into being: reviewed, signed, verified, stored, and only then shown.

Order of every publication: (1) decide, purely; (2) sign and verify; (3) bundle on the disk, fsynced; (4) one SQLite
transaction; (5) believe; (6) announce. A process killed before (4) has done nothing, after it pushes again on start.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique
from typing import Protocol

from control_plane import plan as planning
from control_plane import review
from control_plane.file_blobs import FileBlobs
from control_plane.library import Library, approved_of
from control_plane.policy_gate import PolicyGate
from control_plane.publication import (
    Material,
    Published,
    Terms,
    Update,
    build,
    encode,
    is_refresh_due,
    with_renewed_lease,
)
from control_plane.review import Change, ChangeState
from control_plane.sqlite_store import GenerationRecord, SignedState, SqliteStore
from control_plane.trust_directory import newer_trust, trust_files, trust_of
from control_plane.turns import Turns
from service.logs import get_logger
from service.telemetry import (
    CHANGES,
    GENERATION,
    METADATA_EXPIRES,
    PUBLICATIONS,
    Field,
    SpanName,
    Telemetry,
    current_trace_context,
)
from templates.acceptance import Tally, effective_revocations
from templates.bundle import read_bundle
from templates.charter import Charter, read_charter
from templates.names import TemplateRef
from templates.plan import Plan
from templates.policies.decision import PolicyDeniedError
from templates.reasons import AgentFactoryError, Reason
from templates.repository import OfflineTrust
from templates.revocations import Revocations
from templates.trusted_set import Belief, accept_from_disk, read_belief

BUNDLES_KEPT = 8
REASON_CHARACTERS_MAX = 500

log = get_logger("publisher")


@unique
class Event(StrEnum):
    GENERATION_PUBLISHED = "generation_published"
    LEASE_RENEWED = "lease_renewed"
    REFRESH_FAILED = "refresh_failed"
    STATE_DAMAGED = "state_damaged"
    STATE_RESTORED = "state_restored"
    VERSION_WITHDRAWN = "version_withdrawn"
    CHANGE_REVIEWED = "change_reviewed"


class GenerationUnknownError(AgentFactoryError):
    """There is no generation of this number."""

    reason = Reason.GENERATION_UNKNOWN

    def __init__(self, number: int) -> None:
        super().__init__(f"expected the number of a published generation, got {number}")


class Audience(Protocol):
    """Who hears of what was published; both return at once."""

    def published(self, published: Published, update: Update, *, urgent: bool) -> None: ...

    def lease_renewed(self, published: Published, update: Update) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A change with how far its approvals have come."""

    change: Change
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the next generation stands on; ``metadata`` is None before the first one."""

    metadata: Mapping[str, bytes] | None
    belief: Belief


class Publisher:
    """Call `start` once, before anything else. Methods that change something take turns; on return it is durable."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        blobs: FileBlobs,
        terms: Terms,
        audience: Audience,
        telemetry: Telemetry,
        turns: Turns,
        policy: PolicyGate,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._terms = terms
        self._audience = audience
        self._telemetry = telemetry
        self._clock = clock
        self._turns = turns
        self._policy = policy
        self._present: Published | None = None
        self._update: Update | None = None
        self._leased = asyncio.Event()
        self._states: Mapping[TemplateRef, ChangeState] = {}

    @property
    def present(self) -> Published:
        """The newest generation."""
        if self._present is None:
            raise RuntimeError("Publisher.start has not been awaited")
        return self._present

    @property
    def update(self) -> Update:
        """The newest generation as it travels, under its newest lease."""
        if self._update is None:
            raise RuntimeError("Publisher.start has not been awaited")
        return self._update

    def now(self) -> datetime:
        return self._clock()

    def state_of(self, ref: TemplateRef) -> ChangeState | None:
        """Return the state of a published version."""
        return self._states.get(ref)

    async def start(self, trust: OfflineTrust) -> None:
        """Take up the newest stored generation, or publish the first; then renew the lease and take newer documents.

        Args:
            trust: what lies in the trust directory: the pinned root, and possibly a newer charter than the stored one.

        Raises:
            AgentFactoryError: the documents, keys or records do not hold together; the process must not serve.
        """
        stored = await asyncio.to_thread(self._store.signed_state)
        if stored is not None:
            await self._restore(stored, trust)
            return
        charter = read_charter(trust.charter)
        material = Material(trust=trust, library=Library(), plan=Plan(environment=charter.environment, entries=()))
        ground = Ground(metadata=None, belief=Belief(root=trust.roots[0]))
        await self._publish(material, charter=charter, cause="installation", author="", ground=ground)

    async def approve(self, number: int, envelope: bytes) -> Reviewed:
        """Add a reviewer's signatures; at the threshold the change enters the library, the plan, and the fleet.

        Raises:
            AgentFactoryError: the signatures do not count, or nodes would refuse the generation; nothing is stored.
        """
        return await self._turns.take(lambda: self._approve(number, envelope))

    async def _approve(self, number: int, envelope: bytes) -> Reviewed:
        now, present = self._clock(), self.present
        known = await self._change(number)
        change, tally = review.approve(known, envelope, charter=present.charter, revocations=present.revocations)
        before = known.tally(present.charter, present.revocations)
        await self._policy.approve(change, tally, before, present=present, now=now)
        if not tally.is_reached:
            await asyncio.to_thread(self._store.save_change, change)
            log.info(Event.CHANGE_REVIEWED, change=change.name, approvers=sorted(tally.counted), needed=tally.needed)
            return Reviewed(change=change, tally=tally)
        await self._require_activation(change, tally, present=present, now=now)
        approved = approved_of(change)
        material = replace(
            present.material,
            library=present.material.library.with_version(approved),
            plan=planning.with_version(present.material.plan, approved),
        )
        generation = present.number + 1
        change = replace(change, generation=generation)
        await self._publish(
            material,
            charter=present.charter,
            cause=f"change {change.name}",
            author=change.author,
            changes=[change],
            added=change.ref,
        )
        self._telemetry.count(CHANGES, str(ChangeState.APPROVED))
        log.info(
            Event.CHANGE_REVIEWED,
            change=change.name,
            approvers=sorted(tally.counted),
            needed=tally.needed,
            took_s=round((self._clock() - now).total_seconds(), 3),
        )
        return Reviewed(change=replace(change, state=self._states[change.ref]), tally=tally)

    async def _require_activation(self, change: Change, tally: Tally, *, present: Published, now: datetime) -> None:
        """Ask the policies; approvals that are complete are kept where they deny it, say until a freeze ends."""
        try:
            await self._policy.activate(change, tally, present=present, now=now)
        except PolicyDeniedError:
            await asyncio.to_thread(self._store.save_change, change)
            raise

    async def reject(self, number: int, *, by: str, why: str) -> Reviewed:
        """Close a change for good.

        Raises:
            AgentFactoryError: it is closed already, or not this person's to close.
        """
        return await self._turns.take(lambda: self._reject(number, by=by, why=why))

    async def _reject(self, number: int, *, by: str, why: str) -> Reviewed:
        present = self.present
        change = review.reject(
            await self._change(number), by=by, why=why, charter=present.charter, revocations=present.revocations
        )
        await asyncio.to_thread(self._store.save_change, change)
        self._telemetry.count(CHANGES, str(ChangeState.REJECTED))
        return Reviewed(change=change, tally=change.tally(present.charter, present.revocations))

    async def rollback(self, number: int, *, author: str, why: str) -> GenerationRecord:
        """Publish a new generation that names the versions of an older one, for the whole fleet, at once.

        Args:
            number: 0 stands for the newest generation whose versions are not the present ones.
            author: the person who asks.
            why: for the list of generations.

        Raises:
            GenerationUnknownError: no such generation.
            RollbackRefusedError: a version of it may not run any more, or nothing would change.
        """
        return await self._turns.take(lambda: self._rollback(number, author=author, why=why))

    async def _rollback(self, number: int, *, author: str, why: str) -> GenerationRecord:
        present = self.present
        earlier = await asyncio.to_thread(self._earlier, number)
        plan = planning.rolled_back(
            present.material.plan, earlier.plan, present.material.library, present.rules(self._clock())
        )
        await self._policy.rollback(plan, person=author, present=present, now=self._clock())
        return await self._publish(
            replace(present.material, plan=plan),
            charter=present.charter,
            cause=_cause(f"rollback to {earlier.number}", why),
            author=author,
        )

    async def revoke(self, added: Revocations, *, what: str, author: str, why: str) -> GenerationRecord:
        """Take something out of service at once; only a charter lifts it again."""
        return await self._turns.take(lambda: self._revoke(added, what=what, author=author, why=why))

    async def _revoke(self, added: Revocations, *, what: str, author: str, why: str) -> GenerationRecord:
        present = self.present
        plan = planning.with_revocations(
            present.material.plan, added, present.material.library, present.rules(self._clock())
        )
        revoked = [
            replace(change, state=ChangeState.REVOKED)
            for change in await asyncio.to_thread(self._store.changes, state=ChangeState.IN_REVIEW, limit=10_000)
            if change.sha256 in added.templates or change.code_sha256 in added.modules
        ]
        return await self._publish(
            replace(present.material, plan=plan),
            charter=present.charter,
            cause=_cause(f"revoke {what}", why),
            author=author,
            changes=revoked,
            urgent=True,
        )

    async def update_trust(self, trust: OfflineTrust, *, author: str, cause: str = "trust update") -> GenerationRecord:
        """Publish under newer offline-signed documents, once they have passed the verification of nodes.

        Raises:
            AgentFactoryError: the documents are not signed, older, or do not fit the online keys.
        """
        return await self._turns.take(lambda: self._update_trust(trust, author=author, cause=cause))

    async def _update_trust(self, trust: OfflineTrust, *, author: str, cause: str) -> GenerationRecord:
        ground = Ground(metadata=self.present.metadata, belief=self.present.accepted.belief)
        return await self._republish(replace(self.present.material, trust=trust), ground, author=author, cause=cause)

    async def refresh(self) -> GenerationRecord:
        """Publish the same again, so that every online role has its whole life before it."""
        return await self._turns.take(self._refresh)

    async def _refresh(self) -> GenerationRecord:
        present = self.present
        return await self._publish(present.material, charter=present.charter, cause="refresh", author="")

    async def renew_lease(self) -> None:
        """Sign a newer lease over the present generation and send it out."""
        await self._turns.take(self._renew_lease)

    async def _renew_lease(self) -> None:
        renewed = await asyncio.to_thread(with_renewed_lease, self.present, terms=self._terms, now=self._clock())
        update = await asyncio.to_thread(encode, renewed)
        await asyncio.to_thread(
            self._store.save_lease, renewed.metadata["timestamp.json"], renewed.accepted.belief.to_bytes()
        )
        self._believe(renewed, update)
        self._audience.lease_renewed(renewed, update)
        log.debug(Event.LEASE_RENEWED, generation=renewed.number, lease_version=update.lease_version)

    async def keep_fresh(self, *, every_s: float | None = None) -> None:
        """Renew the lease, and the other online roles when half of their life has passed, until cancelled.

        Args:
            every_s: how long after the last lease; never longer than half of the lease's life, by default a third.
                A charter may shorten leases at any time, which is noticed with its publication.
        """
        while True:
            lease_s = self._terms.validity(self.present.charter).lease_s
            self._leased.clear()
            try:
                async with asyncio.timeout(lease_s / 3 if every_s is None else min(every_s, lease_s / 2)):
                    await self._leased.wait()
                continue
            except TimeoutError:
                pass
            try:
                if is_refresh_due(self.present, terms=self._terms, now=self._clock()):
                    await self.refresh()
                else:
                    await self.renew_lease()
            except AgentFactoryError as error:  # an expired root: a person must bring a new one, through this process
                log.warning(Event.REFRESH_FAILED, reason=error.reason, error=error.message)

    async def _publish(
        self,
        material: Material,
        *,
        charter: Charter,
        cause: str,
        author: str,
        changes: Iterable[Change] = (),
        added: TemplateRef | None = None,
        ground: Ground | None = None,
        urgent: bool = False,
    ) -> GenerationRecord:
        started = time.perf_counter()
        with self._telemetry.span(SpanName.PUBLISH) as span:
            now = self._clock()
            ground = ground or Ground(metadata=self.present.metadata, belief=self.present.accepted.belief)
            published = await asyncio.to_thread(
                build,
                material,
                metadata=ground.metadata,
                belief=ground.belief,
                terms=self._terms,
                charter=charter,
                now=now,
                added=added,
            )
            span.set(Field.GENERATION, published.number)
            update = replace(await asyncio.to_thread(encode, published), traceparent=current_trace_context())
            record = GenerationRecord(
                number=published.number,
                created_at=now.replace(microsecond=0),
                cause=cause,
                author=author,
                plan=published.material.plan,
                bundle_sha256=await asyncio.to_thread(self._blobs.put, published.bundle.to_bytes()),
            )
            states = planning.states(published.material.library, published.material.plan, published.revocations)
            await asyncio.to_thread(
                self._store.commit_generation,
                _signed_state(record, published),
                changes=changes,
                states={ref: state for ref, state in states.items() if self._states.get(ref) is not state},
                bundles_kept=BUNDLES_KEPT,
            )
        renewed = self._present is not None and self._present.number == published.number
        self._states = states
        self._believe(published, update)
        if renewed:  # nothing but the lease was new
            self._audience.lease_renewed(published, update)
        else:
            self._audience.published(published, update, urgent=urgent)
        self._telemetry.count(PUBLICATIONS)
        for withdrawn in set(material.plan.entries) - set(published.material.plan.entries):
            log.warning(Event.VERSION_WITHDRAWN, template=str(withdrawn.template), generation=published.number)
        log.info(
            Event.GENERATION_PUBLISHED,
            generation=published.number,
            cause=cause,
            templates=len(published.material.plan.entries),
            frame_bytes=len(update.frame),
            took_s=round(time.perf_counter() - started, 4),
        )
        return record

    def _believe(self, published: Published, update: Update) -> None:
        self._present, self._update = published, update
        self._leased.set()
        self._telemetry.gauge(GENERATION, published.number)
        for role, expires in published.accepted.expires.items():
            self._telemetry.gauge(METADATA_EXPIRES, expires.timestamp(), role)

    async def _restore(self, stored: SignedState, laid_out: OfflineTrust) -> None:
        known = trust_of(stored.trust)
        newer = newer_trust(known, laid_out)
        changes = await asyncio.to_thread(self._store.published)
        material = Material(
            trust=known, library=Library.of(approved_of(change) for change in changes), plan=stored.generation.plan
        )
        ground = Ground(metadata=stored.metadata, belief=read_belief(stored.belief))
        self._states = {change.ref: change.state for change in changes}
        if newer is not None:
            await self._republish(replace(material, trust=newer), ground, author="", cause="trust directory")
            return
        try:
            restored = await asyncio.to_thread(self._verified_again, stored, material, ground.belief)
        except AgentFactoryError as error:
            log.warning(
                Event.STATE_DAMAGED, generation=stored.generation.number, reason=error.reason, error=error.message
            )
            await self._republish(material, ground, author="", cause="rebuilt from records")
            return
        update = await asyncio.to_thread(encode, restored)
        self._believe(restored, update)
        self._audience.published(restored, update, urgent=False)
        log.info(Event.STATE_RESTORED, generation=restored.number, templates=len(material.library.approved))
        if is_refresh_due(restored, terms=self._terms, now=self._clock()):
            await self.refresh()
        else:
            await self.renew_lease()

    def _verified_again(self, stored: SignedState, material: Material, belief: Belief) -> Published:
        bundle = read_bundle(self._blobs.read(stored.generation.bundle_sha256))
        bundle = bundle.with_timestamp(stored.metadata["timestamp.json"])
        accepted = accept_from_disk(bundle, belief=belief, installation=self._terms.installation, now=self._clock())
        return Published(material=material, metadata=stored.metadata, bundle=bundle, accepted=accepted)

    async def _republish(self, material: Material, ground: Ground, *, author: str, cause: str) -> GenerationRecord:
        """Publish under these trust documents what may run under them."""
        charter = read_charter(material.trust.charter)
        known = effective_revocations(charter, ground.belief.revocations, material.plan.revocations)
        rules = planning.Rules(charter=charter, revocations=known, now=self._clock())
        plan, refused = await asyncio.to_thread(planning.without_refused, material.plan, material.library, rules)
        for ref, why in refused.items():
            log.warning(Event.VERSION_WITHDRAWN, template=str(ref), reason=why.reason, error=why.message)
        return await self._publish(
            replace(material, plan=plan), charter=charter, cause=cause, author=author, ground=ground, urgent=True
        )

    def _earlier(self, number: int) -> GenerationRecord:
        if number:
            found = self._store.generation(number)
            if found is None or found.number > self.present.number:
                raise GenerationUnknownError(number)
            return found
        before: int | None = self.present.number
        while page := self._store.generations(before=before):
            for each in page:
                if set(each.plan.entries) != set(self.present.material.plan.entries):
                    return each
            before = page[-1].number
        raise GenerationUnknownError(number)

    async def _change(self, number: int) -> Change:
        change = await asyncio.to_thread(self._store.change, number)
        if change is None:
            raise review.ChangeUnknownError(f"changes/{number}")
        return change


def _signed_state(record: GenerationRecord, published: Published) -> SignedState:
    return SignedState(
        generation=record,
        metadata=published.metadata,
        belief=published.accepted.belief.to_bytes(),
        trust=trust_files(published.material.trust),
    )


def _cause(what: str, why: str) -> str:
    text = " ".join(why.split())[:REASON_CHARACTERS_MAX]
    return f"{what}: {text}" if text else what
