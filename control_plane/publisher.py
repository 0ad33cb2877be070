"""The one place where a generation comes into being: reviewed, signed, verified, stored, and only then shown.

Order of every publication: (1) decide, purely; (2) sign and verify; (3) bundle on the disk, fsynced; (4) one SQLite
transaction; (5) believe; (6) announce. A process killed before (4) has done nothing, after it pushes again on start.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique

from control_plane import plan as planning
from control_plane import review
from control_plane.audit import Decision
from control_plane.decisions import of_generation, of_step, of_trust, revoked_digests
from control_plane.file_blobs import FileBlobs
from control_plane.generation_records import (
    Audience,
    Beside,
    Ground,
    cause_of,
    earlier_generation,
    signed_state,
)
from control_plane.library import Library, approved_of
from control_plane.lifecycle import ChangeState
from control_plane.mutation import Ask, unasked
from control_plane.policy_gate import Moment, PolicyGate
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
from control_plane.review import Change, EtagMismatchError
from control_plane.sqlite_store import GenerationRecord, SignedState, SqliteStore
from control_plane.trust_directory import newer_trust, trust_etag, trust_of
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
from templates.reasons import AgentFactoryError
from templates.repository import OfflineTrust
from templates.revocations import Revocations
from templates.trusted_set import Belief, accept_from_disk, read_belief

BUNDLES_KEPT = 8

States = Mapping[TemplateRef, ChangeState]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A change with how far its approvals have come."""

    change: Change
    tally: Tally


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

    def mark(self, ref: TemplateRef, state: ChangeState) -> None:
        """Take note of a state that was stored without a generation: deprecated, or restored."""
        self._states = {**self._states, ref: state}

    def rules(self) -> planning.Rules:
        """What decides at this moment whether a version may be active, and what new ones are built on."""
        return replace(self.present.rules(self._clock()), deprecated=self._deprecated())

    def _deprecated(self) -> frozenset[TemplateRef]:
        return frozenset(ref for ref, state in self._states.items() if state is ChangeState.DEPRECATED)

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

    async def approve(self, number: int, envelope: bytes, *, ask: Ask[Reviewed] | None = None) -> Reviewed:
        """Add a reviewer's signatures; at the threshold the change enters the library, the plan, and the fleet.

        Raises:
            AgentFactoryError: the signatures do not count, or nodes would refuse the generation; nothing is stored.
        """
        return await self._turns.take(lambda: self._approve(number, envelope, ask or unasked()))

    async def _approve(self, number: int, envelope: bytes, ask: Ask[Reviewed]) -> Reviewed:
        now, present = self._clock(), self.present
        change = await self._change(number)
        review.require_etag(change, ask.etag)
        step, tally = review.approve(
            change, envelope, charter=present.charter, revocations=present.revocations, at=now, by=ask.person
        )
        reviewed = Reviewed(change=step.change, tally=tally)
        before = change.tally(present.charter, present.revocations)
        moment = Moment(present=present, now=now, validate_only=ask.validate_only)
        await self._policy.approve(step.change, tally, before, moment)
        if not tally.is_reached:
            if not ask.validate_only:
                await asyncio.to_thread(self._store.save_step, step, answered=ask.answered(reviewed, now))
                self._tell_reviewed(reviewed)
            return reviewed
        await self._require_activation(step, tally, moment)
        approved = approved_of(step.change)
        material = replace(
            present.material,
            library=present.material.library.with_version(approved),
            plan=planning.with_version(present.material.plan, approved),
        )

        def entered(record: GenerationRecord, states: States) -> Beside:
            nonlocal reviewed
            last = step.entered(record.number, states[change.ref])
            reviewed = Reviewed(change=last.change, tally=tally)
            return Beside(steps=(last,), answered=ask.answered(reviewed, now), decision=of_step(last))

        await self._publish(
            material,
            charter=present.charter,
            cause=f"change {change.name}",
            author=change.author,
            beside=entered,
            added=change.ref,
            validate_only=ask.validate_only,
        )
        if not ask.validate_only:
            self._telemetry.count(CHANGES, str(ChangeState.APPROVED))
            self._tell_reviewed(reviewed, took_s=round((self._clock() - now).total_seconds(), 3))
        return reviewed

    async def _require_activation(self, step: review.Step, tally: Tally, moment: Moment) -> None:
        """Ask the policies; approvals that are complete are kept where they deny it, say until a freeze ends."""
        try:
            await self._policy.activate(step.change, tally, moment)
        except PolicyDeniedError:
            if not moment.validate_only:
                await asyncio.to_thread(self._store.save_step, step)
            raise

    def _tell_reviewed(self, reviewed: Reviewed, **facts: float) -> None:
        approvers, needed = sorted(reviewed.tally.counted), reviewed.tally.needed
        log.info(Event.CHANGE_REVIEWED, change=reviewed.change.name, approvers=approvers, needed=needed, **facts)

    async def rollback(
        self, number: int, *, author: str, why: str, ask: Ask[GenerationRecord] | None = None
    ) -> GenerationRecord:
        """Publish a new generation that names the versions of an older one, for the whole fleet, at once.

        Args:
            number: 0 stands for the newest generation whose versions are not the present ones.
            author: the person who asks.
            why: for the list of generations.
            ask: the request, if there was one.

        Raises:
            GenerationUnknownError: no such generation.
            RollbackRefusedError: a version of it may not run any more, or nothing would change.
        """
        return await self._turns.take(lambda: self._rollback(number, author=author, why=why, ask=ask or unasked()))

    async def _rollback(self, number: int, *, author: str, why: str, ask: Ask[GenerationRecord]) -> GenerationRecord:
        present = self.present
        if ask.etag and ask.etag != present.etag:
            raise EtagMismatchError(f"generation {present.number}", expected=present.etag, got=ask.etag)
        earlier = await asyncio.to_thread(earlier_generation, self._store, self.present, number)
        plan = planning.rolled_back(
            present.material.plan, earlier.plan, present.material.library, present.rules(self._clock())
        )
        moment = Moment(present=present, now=self._clock(), validate_only=ask.validate_only)
        await self._policy.rollback(plan, author, moment)
        decision = Decision(resource=f"generations/{earlier.number}", reason=why)
        return await self._publish(
            replace(present.material, plan=plan),
            charter=present.charter,
            cause=cause_of(f"rollback to {earlier.number}", why),
            author=author,
            beside=lambda record, _: Beside(answered=ask.answered(record, record.created_at), decision=decision),
            validate_only=ask.validate_only,
        )

    async def revoke(
        self,
        added: Revocations,
        *,
        what: str,
        author: str,
        why: str,
        ask: Ask[GenerationRecord] | None = None,
    ) -> GenerationRecord:
        """Take something out of service at once; only a charter lifts it again.

        An etag is not asked for: whatever else moved, this must not wait.
        """
        return await self._turns.take(
            lambda: self._revoke(added, what=what, author=author, why=why, ask=ask or unasked())
        )

    async def _revoke(
        self, added: Revocations, *, what: str, author: str, why: str, ask: Ask[GenerationRecord]
    ) -> GenerationRecord:
        now, present = self._clock(), self.present
        plan = planning.with_revocations(present.material.plan, added, present.material.library, present.rules(now))
        cause = cause_of(f"revoke {what}", why)
        waiting = await asyncio.to_thread(self._store.open_changes_of, templates=added.templates, modules=added.modules)
        closed = tuple(review.revoked(change, by=author, what=cause, at=now) for change in waiting)
        decision = Decision(
            resource=what.replace(" ", "s/", 1).replace("identitys/", "identities/", 1),  # "node n1" is nodes/n1
            reason=why,
            digests=revoked_digests(added),
            details={"closed": ",".join(change.name for change in waiting)} if waiting else {},
        )
        return await self._publish(
            replace(present.material, plan=plan),
            charter=present.charter,
            cause=cause,
            author=author,
            beside=lambda record, _: Beside(steps=closed, answered=ask.answered(record, now), decision=decision),
            urgent=True,
            validate_only=ask.validate_only,
        )

    async def update_trust(
        self,
        trust: OfflineTrust,
        *,
        author: str,
        cause: str = "trust update",
        ask: Ask[GenerationRecord] | None = None,
    ) -> GenerationRecord:
        """Publish under newer offline-signed documents, once they have passed the verification of nodes.

        Raises:
            AgentFactoryError: the documents are not signed, older, or do not fit the online keys.
        """
        return await self._turns.take(lambda: self._update_trust(trust, author, cause, ask or unasked()))

    async def _update_trust(
        self, trust: OfflineTrust, author: str, cause: str, ask: Ask[GenerationRecord]
    ) -> GenerationRecord:
        known = self.present.material.trust
        if ask.etag and ask.etag != trust_etag(known):
            raise EtagMismatchError("the trust documents", expected=trust_etag(known), got=ask.etag)
        ground = Ground(metadata=self.present.metadata, belief=self.present.accepted.belief)
        material = replace(self.present.material, trust=trust)
        return await self._republish(material, ground, author=author, cause=cause, ask=ask)

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
        beside: Callable[[GenerationRecord, States], Beside] | None = None,
        added: TemplateRef | None = None,
        ground: Ground | None = None,
        urgent: bool = False,
        validate_only: bool = False,
    ) -> GenerationRecord:
        """Sign, verify, store and announce; ``beside`` says what else is stored in the same transaction.

        With ``validate_only`` it ends after verification: what was signed is forgotten, as if it had been refused.
        """
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
                bundle_sha256="",
            )
            states = planning.states(
                published.material.library,
                published.material.plan,
                published.revocations,
                deprecated=self._deprecated(),
            )
            also = beside(record, states) if beside else Beside()
            if validate_only:
                return record
            record = replace(
                record, bundle_sha256=await asyncio.to_thread(self._blobs.put, published.bundle.to_bytes())
            )
            renewed = self._present is not None and self._present.number == published.number
            await asyncio.to_thread(
                self._store.commit_generation,
                signed_state(record, published),
                steps=also.steps,
                states={ref: state for ref, state in states.items() if self._states.get(ref) is not state},
                bundles_kept=BUNDLES_KEPT,
                answered=also.answered,
                decisions=() if renewed and also.decision is None else (of_generation(also.decision, record),),
            )
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

    async def _republish(
        self,
        material: Material,
        ground: Ground,
        *,
        author: str,
        cause: str,
        ask: Ask[GenerationRecord] | None = None,
    ) -> GenerationRecord:
        """Publish under these trust documents what may run under them."""
        asked = ask or unasked()
        charter = read_charter(material.trust.charter)
        known = effective_revocations(charter, ground.belief.revocations, material.plan.revocations)
        rules = planning.Rules(charter=charter, revocations=known, now=self._clock())
        plan, refused = await asyncio.to_thread(planning.without_refused, material.plan, material.library, rules)
        for ref, why in refused.items():
            log.warning(Event.VERSION_WITHDRAWN, template=str(ref), reason=why.reason, error=why.message)
        return await self._publish(
            replace(material, plan=plan),
            charter=charter,
            cause=cause,
            author=author,
            beside=lambda record, _: Beside(
                answered=asked.answered(record, record.created_at), decision=of_trust(material.trust)
            ),
            ground=ground,
            urgent=True,
            validate_only=asked.validate_only,
        )

    async def _change(self, number: int) -> Change:
        change = await asyncio.to_thread(self._store.change, number)
        if change is None:
            raise review.ChangeUnknownError(f"changes/{number}")
        return change
