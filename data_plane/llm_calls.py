"""Carries out the host calls of interface ``llm``: grant, cache, breaker, budgets, endpoint, and the books afterwards.

Every way that a call can end settles what it reserved: an answer and a stream by what the endpoint counted, everything
else by whether the endpoint may have worked for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from data_plane.admission.circuit_breaker import CircuitBreakers, Permit, Refused
from data_plane.agents.agent import AgentScope
from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.broker.llm_answer import NO_USAGE, LlmAnswer, TokenUsage
from data_plane.broker.llm_answer_stream import LIMITS, AnswerStream
from data_plane.broker.llm_budget import (
    MILLION,
    Allowance,
    Charge,
    DayCeilings,
    Left,
    LlmAllowances,
    Price,
    Reservation,
    reserve,
)
from data_plane.broker.llm_cache import AnswerCache
from data_plane.broker.llm_grant import (
    LlmBinding,
    LlmRequest,
    cache_key,
    choose_model,
    read_llm_request,
    request_body,
    require_grant,
)
from data_plane.llm_stream_buffer import LlmStream
from data_plane.openai_llm import OpenAiEndpoint, Progress
from data_plane.sqlite_llm_use import DAY_S, LlmAccount, SqliteLlmUse
from service.tasks import TaskSupervisor
from service.telemetry import LLM_CALLS, LLM_COST, LLM_TOKENS, Telemetry
from templates.canonical import JsonObject, JsonValue
from templates.grants import LlmGrant

NO_CHARGE: Final = Charge()
STREAMS_MAX: Final = 4
"""Of one invocation at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedBinding:
    """What the operator set up under one name."""

    binding: LlmBinding
    endpoint: OpenAiEndpoint
    ceilings: DayCeilings
    max_tokens_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A checked request; ``key`` is where the cache keeps its answer, "" for nowhere."""

    offered: OfferedBinding
    request: LlmRequest
    model: str
    key: str

    @property
    def name(self) -> str:
        return self.offered.binding.name

    @property
    def price(self) -> Price | None:
        return self.offered.binding.models[self.model]

    def body(self, paid: "Paid", *, streaming: bool) -> JsonObject:
        return request_body(
            self.request,
            model=self.model,
            max_tokens=paid.reservation.output_tokens,
            max_tokens_name=self.offered.max_tokens_name,
            streaming=streaming,
        )


@dataclass(slots=True, kw_only=True)
class Paid:
    """One call that was paid for beforehand; ``usage`` is filled in by whoever reads the answer."""

    reservation: Reservation
    permit: Permit
    account: LlmAccount | None
    progress: Progress
    usage: TokenUsage | None = None
    is_settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCalls:
    """What all invocations of a node share. ``clock`` gives seconds since the epoch.

    ``use`` is None where no binding has ceilings of a day.
    """

    bindings: Mapping[str, OfferedBinding]
    use: SqliteLlmUse | None
    cache: AnswerCache
    breakers: CircuitBreakers[tuple[str, str]]
    tasks: TaskSupervisor
    telemetry: Telemetry
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    streams_max: int
    streams: set[LlmStream] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCaller:
    """On whose behalf calls are made; ``deadline`` is monotonic, in seconds."""

    scope: AgentScope
    grants: Sequence[LlmGrant]
    allowances: LlmAllowances
    amounts: Amounts
    deadline: float


class LlmInvocation:
    """The calls of one invocation; `close` ends what it left open."""

    def __init__(self, node: LlmCalls, caller: LlmCaller) -> None:
        self._node = node
        self._caller = caller
        self._streams: dict[int, LlmStream] = {}
        self._number = 0

    async def call(self, function: str, members: Members) -> JsonValue:
        """Carry out one host call.

        Raises:
            HostRefusal: any kind.
        """
        match function:
            case "complete":
                answer, usage, cached = await self._complete(self._ask(members))
                return {"text": answer.text, **_end(answer, usage, cached=cached)}
            case "open":
                return await self._open(self._ask(members))
            case "next":
                return await self._stream(members).next()
            case "close":
                self._close(_number(members))
                return None
        raise HostRefusal(ErrorKind.INVALID, f"expected complete, open, next or close, got {function[:40]!r}")

    def close(self) -> None:
        """The invocation has ended."""
        for number in list(self._streams):
            self._close(number)

    # What is asked

    def _ask(self, members: Members) -> Ask:
        members.require_only("binding", "request")
        name = members.text("binding")
        grant = require_grant(self._caller.grants, name)
        offered = self._node.bindings.get(name)
        if offered is None:
            raise HostRefusal(ErrorKind.DENIED, f"this node has no llm binding {name[:60]!r}")
        request = read_llm_request(members.text("request"))
        model = choose_model(grant, offered.binding, request.model)
        key = cache_key(request, binding=name, model=model) if request.is_cached else ""
        return Ask(offered=offered, request=request, model=model, key=key)

    def _kept(self, ask: Ask) -> LlmAnswer | None:
        kept = self._node.cache.get(self._caller.scope.tenant, ask.key) if ask.key else None
        if kept is not None:
            self._node.telemetry.count(LLM_CALLS, ask.name, "cached")
        return kept

    def _keep(self, ask: Ask, answer: LlmAnswer) -> None:
        if ask.key:
            self._node.cache.put(self._caller.scope.tenant, ask.key, answer)

    # Whole answers

    async def _complete(self, ask: Ask) -> tuple[LlmAnswer, TokenUsage, bool]:
        kept = self._kept(ask)
        if kept is not None:
            return kept, NO_USAGE, True
        paid = await self._pay(ask)
        with self._settled(ask, paid):
            answer = await ask.offered.endpoint.complete(
                ask.body(paid, streaming=False),
                model=ask.model,
                deadline=self._caller.deadline,
                progress=paid.progress,
            )
            paid.usage = answer.usage
        self._keep(ask, answer)
        return answer, _told(paid), False

    # Answers in pieces

    async def _open(self, ask: Ask) -> int:
        node = self._node
        if len(self._streams) >= STREAMS_MAX:
            raise HostRefusal(ErrorKind.QUOTA, f"expected at most {STREAMS_MAX} open streams of one invocation")
        if len(node.streams) >= node.streams_max:
            raise HostRefusal(ErrorKind.QUOTA, f"expected at most {node.streams_max} open streams of this node")
        self._number += 1
        number = self._number
        stream = self._streams[number] = LlmStream(node.monotonic)
        node.streams.add(stream)
        try:
            if (kept := self._kept(ask)) is not None:
                stream.feed(kept.text)
                stream.finish(_last(kept, NO_USAGE, cached=True))
            elif ask.offered.binding.streaming:
                await self._start(ask, stream)
            else:
                answer, usage, cached = await self._complete(ask)
                stream.feed(answer.text)
                stream.finish(_last(answer, usage, cached=cached))
        except BaseException:
            self._close(number)
            raise
        return number

    async def _start(self, ask: Ask, stream: LlmStream) -> None:
        paid = await self._pay(ask)
        task = self._node.tasks.start(self._fill(ask, paid, stream), name="llm-stream", essential=False)

        def abandon() -> None:
            self._settle(ask, paid, "cancelled")  # at once: the receipt is about to be written
            task.cancel()

        stream.abandon = abandon
        await stream.opened()

    async def _fill(self, ask: Ask, paid: Paid, stream: LlmStream) -> None:
        """Read one stream to its end, whichever that is."""
        refusal = HostRefusal(ErrorKind.FAILED, "the node failed to read the endpoint's stream")
        try:
            with self._settled(ask, paid):
                answer = await self._read(ask, paid, stream)
            self._keep(ask, answer)
            stream.finish(_last(answer, _told(paid), cached=False))
        except HostRefusal as why:
            refusal = why
        finally:
            stream.fail(refusal)

    async def _read(self, ask: Ask, paid: Paid, stream: LlmStream) -> LlmAnswer:
        endpoint, texts = ask.offered.endpoint, []
        body, deadline = ask.body(paid, streaming=True), self._caller.deadline
        async with endpoint.exchange(
            body, deadline=deadline, progress=paid.progress, bytes_max=LIMITS.bytes_max
        ) as exchange:
            stream.open()
            reader = AnswerStream(model=ask.model, scrubbing=exchange.scrubbing)
            async for piece in exchange.response.pieces():
                text = reader.feed(piece)
                paid.usage = reader.usage
                stream.feed(text)
                if ask.key:
                    texts.append(text)
                if reader.is_done:
                    break
                await stream.room()
            rest = reader.end()
        stream.feed(rest)
        return reader.answer("".join((*texts, rest)))

    def _stream(self, members: Members) -> LlmStream:
        number = _number(members)
        stream = self._streams.get(number)
        if stream is None:
            raise HostRefusal(ErrorKind.NOT_FOUND, f"expected the number of an open stream, got {number}")
        return stream

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._node.streams.discard(stream)
            stream.close()

    # Paying, and the books

    async def _pay(self, ask: Ask) -> Paid:
        """Reserve what the call may use, everywhere that it counts; whoever gets this settles it.

        Raises:
            HostRefusal: ``budget``, ``quota``, ``denied``, or ``failed`` for an endpoint that keeps failing.
        """
        node, offered = self._node, ask.offered
        breaker = node.breakers.of((self._caller.scope.tenant, ask.name))
        permit = breaker.admit(now=node.monotonic())
        if isinstance(permit, Refused):
            raise HostRefusal(ErrorKind.FAILED, f"{ask.name} keeps failing; try again in {permit.retry_s:.1f} s")
        amounts, allowances = self._caller.amounts, self._caller.allowances.of(ask.name)
        whole = Allowance(tokens=amounts.left(Amount.TOKENS))
        own = [each.left() for each in (*allowances, whole)]
        account = LlmAccount(scope=self._caller.scope, binding=ask.name, day=int(node.clock() // DAY_S))

        def plan(today: Sequence[Left]) -> Reservation:
            wanted = min(ask.request.max_tokens or offered.binding.output_tokens_max, offered.binding.output_tokens_max)
            tokens = ask.request.input_tokens
            return reserve([*own, *today], price=ask.price, input_tokens=tokens, output_tokens=wanted)

        try:
            if node.use is not None and offered.ceilings.are_set:
                reservation = await node.use.reserve(account, offered.ceilings, plan)
            else:
                reservation = plan(())
        except BaseException:
            breaker.drop(permit)
            raise
        for allowance in allowances:
            allowance.take(reservation.amount)
        amounts.settle(Amount.TOKENS, reservation.amount.tokens)
        return Paid(
            reservation=reservation,
            permit=permit,
            account=account if offered.ceilings.are_set else None,
            progress=Progress(
                sent_bytes_max=amounts.left(Amount.SENT_BYTES), received_bytes_max=amounts.left(Amount.RECEIVED_BYTES)
            ),
        )

    @contextmanager
    def _settled(self, ask: Ask, paid: Paid) -> Iterator[None]:
        """Settle at the end of the block, by how it ends."""
        result = "cancelled"
        try:
            yield
            result = "ok"
        except HostRefusal as refusal:
            result = str(refusal.kind)
            raise
        finally:
            self._settle(ask, paid, result)

    def _settle(self, ask: Ask, paid: Paid, result: str) -> None:
        """Put what the call used in the place of what was reserved. Once; it waits for nothing."""
        if paid.is_settled:
            return
        paid.is_settled = True
        node, progress, amounts = self._node, paid.progress, self._caller.amounts
        self._tell_breaker(ask, paid, result)
        used = NO_CHARGE
        if paid.usage is not None:
            used = Charge.of(ask.price, paid.usage.input_tokens, paid.usage.output_tokens)
        elif progress.may_have_cost:
            used = paid.reservation.amount
        difference = used.less(paid.reservation.amount)
        for allowance in self._caller.allowances.of(ask.name):
            allowance.take(difference)
        amounts.settle(Amount.TOKENS, difference.tokens)
        amounts.settle(Amount.SENT_BYTES, progress.sent_bytes)
        amounts.settle(Amount.RECEIVED_BYTES, progress.received_bytes)
        if used.cost_microusd:
            amounts.used_by_grants().cost_microusd += used.cost_microusd
        if paid.account is not None and node.use is not None:
            node.use.settle(paid.account, difference)
        node.telemetry.count(LLM_CALLS, ask.name, result)
        node.telemetry.count(LLM_TOKENS, ask.name, amount=used.tokens)
        node.telemetry.count(LLM_COST, ask.name, amount=used.cost_microusd / MILLION)

    def _tell_breaker(self, ask: Ask, paid: Paid, result: str) -> None:
        """A refusal of this very request is an answer; time that the invocation did not leave is nobody's fault."""
        now = self._node.monotonic()
        breaker = self._node.breakers.of((self._caller.scope.tenant, ask.name))
        is_late = result == ErrorKind.BUDGET and now < self._caller.deadline
        if result == "ok" or (result == ErrorKind.FAILED and not paid.progress.is_blamed):
            breaker.succeed(paid.permit, now=now)
        elif result == ErrorKind.FAILED or is_late:
            breaker.fail(paid.permit, now=now)
        else:
            breaker.drop(paid.permit)


def _told(paid: Paid) -> TokenUsage:
    """Return what the guest is told: what was charged, where the endpoint said nothing."""
    if paid.usage is not None:
        return paid.usage
    reserved = paid.reservation
    return TokenUsage(
        input_tokens=reserved.amount.tokens - reserved.output_tokens, output_tokens=reserved.output_tokens
    )


def _end(answer: LlmAnswer, usage: TokenUsage, *, cached: bool) -> JsonObject:
    return {
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "usage": usage.to_json(),
        "cached": cached,
    }


def _last(answer: LlmAnswer, usage: TokenUsage, *, cached: bool) -> JsonObject:
    return {"delta": "", **_end(answer, usage, cached=cached)}


def _number(members: Members) -> int:
    members.require_only("number")
    number = members.count_or_none("number")
    if number is None:
        raise HostRefusal(ErrorKind.INVALID, "expected the number of a stream in 'number'")
    return number
