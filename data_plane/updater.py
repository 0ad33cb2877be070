"""Carries out what `data_plane.activation.update` decides: verify, stage, persist, swap. One update at a time.

Order of the last phase (ADR 7): the generation is on disk, then the belief with its high-water mark, then new
invocations run it, then ACTIVE is said. Whatever fails before the swap leaves the generation that serves as it is.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique
from typing import Final, Protocol

from data_plane.activation.boot import Boot, choose
from data_plane.activation.generation import ActiveGeneration
from data_plane.activation.update import (
    Abandon,
    Activate,
    Activated,
    Effect,
    Fact,
    Failed,
    Offered,
    Phase,
    Refusal,
    SendAck,
    SendNack,
    Stage,
    StageCode,
    Staged,
    Update,
    Verified,
    Verify,
)
from data_plane.generation_files import GenerationFiles, StoredGeneration
from data_plane.staging import StagedTemplates, StageError
from service.logs import get_logger
from service.tasks import TaskSupervisor
from service.telemetry import GENERATION, METADATA_EXPIRES, UPDATES, Begun, Field, SpanName, Telemetry, continued
from templates.bundle import Bundle, decompress, read_bundle
from templates.reasons import AgentFactoryError, Reason
from templates.trusted_set import Accepted, Belief, Installation, accept, renew_lease, verify_roots

_RETRYABLE: Final = frozenset(
    {Reason.BLOB_UNAVAILABLE, Reason.STORE_FAILED, Reason.WORKER_UNAVAILABLE, Reason.INTERNAL, Reason.CLOCK_BEHIND}
)

log = get_logger("updater")


@unique
class Event(StrEnum):
    """What this module logs."""

    GENERATION_ACTIVATED = "generation_activated"
    UPDATE_REFUSED = "update_refused"
    STORE_DAMAGED = "store_damaged"
    LEASE_RENEWED = "lease_renewed"
    LEASE_REFUSED = "lease_refused"


class BundleMismatchError(AgentFactoryError):
    """What arrived is not what was announced."""

    reason = Reason.BUNDLE_INVALID


class Answers(Protocol):
    """Says to the control plane how an update goes; does nothing while there is no connection."""

    def ack(self, ack: SendAck, *, took_s: float) -> None: ...

    def nack(self, nack: SendNack) -> None: ...

    def resync(self, reason: str) -> None: ...


class NoAnswers:
    """While nobody listens."""

    def ack(self, ack: SendAck, *, took_s: float) -> None:
        pass

    def nack(self, nack: SendNack) -> None:
        pass

    def resync(self, reason: str) -> None:
        pass


class Stager(Protocol):
    """Fetches, inspects, compiles and dry-runs; `data_plane.staging`."""

    async def stage(self, accepted: Accepted, *, rehearse: bool) -> StagedTemplates: ...


@dataclass(frozen=True, slots=True)
class _Offer:
    """A pushed generation as it came; ``traceparent`` is that of the push."""

    frame: bytes
    sha256: bytes
    traceparent: str


@dataclass(slots=True)
class _Work:
    """What is known of the update under way."""

    ticket: int
    generation: int
    started: float
    offer: _Offer
    trace: Begun
    bundle: Bundle | None = None
    accepted: Accepted | None = None
    staged: StagedTemplates | None = None
    task: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal and when it was."""

    refusal: Refusal
    at: datetime


class Updater:
    """The node's belief and its active generation change here and nowhere else."""

    def __init__(
        self,
        *,
        files: GenerationFiles,
        pinned_root: bytes,
        installation: Installation,
        stager: Stager,
        swap: Callable[[ActiveGeneration], None],
        renew: Callable[[ActiveGeneration], None],
        after_swap: Callable[[ActiveGeneration], Awaitable[None]],
        tasks: TaskSupervisor,
        telemetry: Telemetry,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        bundle_bytes_max: int,
        generations_kept: int,
    ) -> None:
        self._files = files
        self._pinned_root = pinned_root
        self._installation = installation
        self._stager = stager
        self._swap = swap
        self._renew = renew
        self._after_swap = after_swap
        self._tasks = tasks
        self._telemetry = telemetry
        self._clock = clock
        self._monotonic = monotonic
        self._bundle_bytes_max = bundle_bytes_max
        self._generations_kept = generations_kept
        self._update = Update()
        self._work: _Work | None = None
        self._offers: dict[int, _Offer] = {}
        self._writing = asyncio.Lock()
        self._belief = Belief(root=pinned_root)
        self._generation_min = 0
        self._bundle_sha256 = b""
        self.active: ActiveGeneration | None = None
        self.answers: Answers = NoAnswers()
        self.damage = ""
        self.last_refusal: Refused | None = None

    @property
    def root_version(self) -> int:
        return 0 if self.active is None else self.active.accepted.root_version

    @property
    def trusted_root(self) -> bytes:
        """The newest root that the pinned one has led to."""
        return self._belief.root

    @property
    def bundle_sha256(self) -> bytes:
        """Of what is active and was received since the start; empty otherwise."""
        return self._bundle_sha256

    # Boot

    async def boot(self) -> None:
        """Begin with what the store holds, if that can be trusted; otherwise say in ``damage`` why not."""
        started = self._monotonic()
        boot = await asyncio.to_thread(self._choose)
        self._belief, self._generation_min, self.damage = boot.belief, boot.generation_min, boot.damage
        if boot.accepted is not None:
            await self.begin_with(boot.accepted, started=started)
        if self.damage:
            log.error(Event.STORE_DAMAGED, **{Field.ERROR: self.damage})

    async def begin_with(self, accepted: Accepted, *, started: float) -> None:
        """Serve a stored generation, or say in ``damage`` why that cannot be."""
        try:
            staged = await self._stager.stage(accepted, rehearse=False)
        except (AgentFactoryError, StageError) as error:
            self.damage = f"generation {accepted.generation}: {error}"
        else:
            self._become(accepted, staged, took_s=self._monotonic() - started)

    def _choose(self) -> Boot:
        belief: Belief | AgentFactoryError | None
        try:
            belief = self._files.belief()
        except AgentFactoryError as error:
            belief = error

        def loader(stored: StoredGeneration) -> Callable[[], Bundle]:
            return lambda: self._files.load(stored)

        return choose(
            pinned_root=self._pinned_root,
            belief=belief,
            stored=[(each.number, loader(each)) for each in self._files.generations()],
            installation=self._installation,
            now=self._clock(),
        )

    @property
    def offers_held(self) -> int:
        """How many frames wait to be looked at."""
        return len(self._offers)

    # Facts from outside

    def offer(self, generation: int, frame: bytes, sha256: bytes, *, traceparent: str = "") -> None:
        """Take a pushed generation: a zstd frame, and the digest of what is in it."""
        self._offers[generation] = _Offer(frame, sha256, traceparent)
        self._receive(Offered(generation=generation))
        awaited = {self._update.generation, self._update.next}  # no other will ever be asked for
        self._offers = {number: offer for number, offer in self._offers.items() if number in awaited}

    async def renew_lease(self, generation: int, timestamp: bytes) -> None:
        """Take a newer lease of the active generation; a lease of another one asks for the full state."""
        async with self._writing:
            active = self.active
            if active is None or active.number != generation:
                self.answers.resync(f"expected a lease of generation {0 if active is None else active.number}")
                return
            try:
                accepted = renew_lease(active.accepted, timestamp, installation=self._installation, now=self._clock())
                await asyncio.to_thread(self._files.keep_lease, generation, timestamp)
                await asyncio.to_thread(self._files.keep_belief, accepted.belief)
            except AgentFactoryError as error:
                refusal = Refusal(
                    generation=generation,
                    phase=Phase.VERIFY,
                    reason=error.reason,
                    message=error.message,
                    retryable=error.reason in _RETRYABLE,
                )
                self._note(refusal)
                log.warning(Event.LEASE_REFUSED, **{Field.REASON: str(error.reason), Field.ERROR: error.message})
                self.answers.nack(SendNack(refusal=refusal))
                return
            self._belief = accepted.belief
            self.active = replace(active, accepted=accepted)
            self._renew(self.active)
            self._show_expiry(accepted)
            log.info(Event.LEASE_RENEWED, **{Field.GENERATION: generation})

    # Effects

    def _receive(self, fact: Fact) -> None:
        for effect in self._update.receive(fact):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Verify(generation=generation, ticket=ticket):
                offer = self._offers.pop(generation)
                trace = self._telemetry.begin(SpanName.UPDATE, {Field.GENERATION: generation}, parent=offer.traceparent)
                self._work = _Work(ticket, generation, self._monotonic(), offer, trace)
                self._begin(self._work, self._verify, Phase.VERIFY)
            case StageCode(ticket=ticket) if self._work is not None and self._work.ticket == ticket:
                self._begin(self._work, self._stage, Phase.STAGE)
            case Activate(ticket=ticket) if self._work is not None and self._work.ticket == ticket:
                self._begin(self._work, self._activate, Phase.ACTIVATE)
            case Abandon(ticket=ticket):
                if self._work is not None and self._work.ticket == ticket and self._work.task is not None:
                    self._work.task.cancel()
                    self._work.trace.span.fail("OVERTAKEN")
                    self._work.trace.span.end()
            case SendAck(stage=stage):
                took_s = 0.0 if self._work is None else self._monotonic() - self._work.started
                self._telemetry.count(UPDATES, str(stage), "")
                if stage is Stage.ACTIVE and self._work is not None:
                    self._work.trace.span.end()
                self.answers.ack(effect, took_s=took_s)
            case SendNack(refusal=refusal):
                self._note(refusal)
                self._telemetry.count(UPDATES, str(refusal.phase), str(refusal.reason))
                if self._work is not None and self._work.generation == refusal.generation:
                    self._work.trace.span.fail(str(refusal.reason))
                    self._work.trace.span.end()
                facts = {Field.GENERATION: refusal.generation, Field.REASON: str(refusal.reason)}
                log.warning(Event.UPDATE_REFUSED, **facts, phase=str(refusal.phase), error=refusal.message)
                self.answers.nack(effect)
            case _:
                pass  # work that was abandoned meanwhile

    def _begin(self, work: _Work, step: Callable[[_Work], Awaitable[Fact]], phase: Phase) -> None:
        async def run() -> None:
            with continued(work.trace.traceparent):
                await report()

        async def report() -> None:
            try:
                fact = await step(work)
            except StageError as error:
                fact = self._failed(work, phase, error.cause, template=error.template)
            except AgentFactoryError as error:
                fact = self._failed(work, phase, error, template=error.metadata.get("template", ""))
            except asyncio.CancelledError:
                return
            except Exception:  # the edge of an update: a fault of ours must not stop the node from serving
                log.exception("update_faulted", **{Field.GENERATION: work.generation})
                internal = AgentFactoryError("the node failed while it worked on this update; its log says how")
                fact = self._failed(work, phase, internal, template="")
            self._receive(fact)

        work.task = self._tasks.start(run(), name=f"update-{phase}", essential=False)

    def _failed(self, work: _Work, phase: Phase, error: AgentFactoryError, *, template: str) -> Failed:
        refusal = Refusal(
            generation=work.generation,
            phase=phase,
            reason=error.reason,
            message=error.message,
            template=template,
            retryable=error.reason in _RETRYABLE,
        )
        return Failed(ticket=work.ticket, refusal=refusal)

    async def _verify(self, work: _Work) -> Fact:
        with self._telemetry.span(SpanName.UPDATE_VERIFY) as span:
            span.set(Field.GENERATION, work.generation)
            belief = self._belief
            bundle, root, accepted = await asyncio.to_thread(self._verified, work.generation, work.offer, belief)
            if isinstance(accepted, AgentFactoryError):
                if root != belief.root:
                    await self._keep_root(root)
                raise accepted
        work.bundle, work.accepted = bundle, accepted
        return Verified(ticket=work.ticket)

    def _verified(
        self, generation: int, offer: _Offer, belief: Belief
    ) -> tuple[Bundle, bytes, Accepted | AgentFactoryError]:
        """Return the bundle, the newest root that it proves, and what came of the rest. Blocks: run it on a thread."""
        data = decompress(offer.frame, bytes_max=self._bundle_bytes_max)
        if hashlib.sha256(data).digest() != offer.sha256:
            raise BundleMismatchError("expected the announced digest, got another: the frame was damaged on its way")
        bundle = read_bundle(data)
        root = verify_roots(belief.root, bundle)
        try:
            accepted = accept(bundle, belief=belief, installation=self._installation, now=self._clock())
            if accepted.generation != generation:
                raise BundleMismatchError(f"expected generation {generation}, got {accepted.generation}")
            if accepted.generation < self._generation_min:
                raise BundleMismatchError(
                    f"expected a generation ≥ {self._generation_min}, which this node once held, got {generation}"
                )
        except AgentFactoryError as error:
            return bundle, root, error
        return bundle, root, accepted

    async def _keep_root(self, root: bytes) -> None:
        """A failed update leaves nothing behind but newer roots."""
        async with self._writing:
            belief = replace(self._belief, root=root)
            if not self.damage:
                await asyncio.to_thread(self._files.keep_belief, belief)
            self._belief = belief

    async def _stage(self, work: _Work) -> Fact:
        if work.accepted is None:
            raise RuntimeError("expected a verified generation")
        with self._telemetry.span(SpanName.UPDATE_STAGE) as span:
            span.set(Field.GENERATION, work.generation)
            work.staged = await self._stager.stage(work.accepted, rehearse=True)
        return Staged(ticket=work.ticket)

    async def _activate(self, work: _Work) -> Fact:
        bundle, accepted, staged = work.bundle, work.accepted, work.staged
        if bundle is None or accepted is None or staged is None:
            raise RuntimeError("expected a staged generation")
        with self._telemetry.span(SpanName.UPDATE_ACTIVATE) as span:
            span.set(Field.GENERATION, work.generation)
            async with self._writing:
                await asyncio.to_thread(self._files.keep, accepted.generation, bundle, accepted.code)
                await asyncio.to_thread(self._files.keep_belief, accepted.belief)
                self._bundle_sha256 = hashlib.sha256(bundle.to_bytes()).digest()
                self._become(accepted, staged, took_s=self._monotonic() - work.started)
        self._tasks.start(self._collect(accepted.generation), name="collect", essential=False)
        return Activated(ticket=work.ticket)

    def _become(self, accepted: Accepted, staged: StagedTemplates, *, took_s: float) -> None:
        """The swap: one assignment in the invoker, on the event loop's thread."""
        self._belief = accepted.belief
        self._generation_min = 0
        self.damage = ""
        self.last_refusal = None
        self.active = ActiveGeneration(accepted=accepted, templates=staged, activated_at=self._clock(), took_s=took_s)
        self._update.active = max(self._update.active, accepted.generation)
        self._swap(self.active)
        self._telemetry.gauge(GENERATION, accepted.generation)
        self._show_expiry(accepted)
        self._tasks.start(self._follow(self.active), name="after-swap", essential=False)
        facts = {Field.GENERATION: accepted.generation, Field.TOOK_S: round(took_s, 4)}
        log.info(Event.GENERATION_ACTIVATED, **facts, templates=len(staged), withdrawn=len(accepted.withdrawn))

    async def _follow(self, active: ActiveGeneration) -> None:
        await self._after_swap(active)

    async def _collect(self, current: int) -> None:
        async with self._writing:
            await asyncio.to_thread(self._files.collect, current=current, kept=self._generations_kept)

    def _note(self, refusal: Refusal) -> None:
        self.last_refusal = Refused(refusal=refusal, at=self._clock())

    def _show_expiry(self, accepted: Accepted) -> None:
        expiries: Mapping[str, datetime] = accepted.expires
        for role, expires in expiries.items():
            self._telemetry.gauge(METADATA_EXPIRES, expires.timestamp(), role)
