"""AgentService: identity → tenant, caller × template, limits, and back to messages.

Only services have a tenant, so only they come in (`data_plane.main` says so to the guard). What belongs to another
tenant does not exist for the caller: agents, invocations, and templates that its tenant may not use.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

import grpc
import grpc.aio
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from data_plane.activation.generation import ActiveGeneration, ActiveTemplate
from data_plane.admission.effective import NO_CEILINGS
from data_plane.agent_messages import (
    begin_receipt,
    ceilings,
    end_receipt,
    invocation,
    log_line,
    page_size,
    page_token,
    read_page_token,
    receipt,
    recording_summary,
    template_summary,
)
from data_plane.agent_registry import AgentRegistry, ConfigMismatchError, EffectiveConfig, Wish, effective_config
from data_plane.agents.access import ServiceAccess
from data_plane.agents.agent import BATCH_MAX, Agent
from data_plane.agents.invocations import InvocationFilter, InvocationRecord
from data_plane.agents.ports import InvocationLog
from data_plane.agents.refusals import (
    DrainingError,
    InvalidRequestError,
    LeaseExpiredError,
    UnknownInvocationError,
    UnknownTemplateError,
)
from data_plane.invoker import Answer, Call, InvocationFailedError, Invoker
from data_plane.receipts import ReceiptDesk
from data_plane.recording_files import RecordingFiles
from sandbox.limits import SandboxLimits
from sandbox.outcome import LogLine
from service.identity import Identity
from service.logs import get_logger
from service.peer import peer_identity
from service.status import DetailedError
from service.telemetry import Field
from templates.document import LeaseExpiry
from templates.names import InvalidNameError, TemplateName
from templates.reasons import AgentFactoryError
from templates.receipt import Draft

Context = grpc.aio.ServicerContext[Any, Any]

RECORDING_PIECE_BYTES: Final = 256 * 1024

log = get_logger("agents")


class GrpcAgentService(agent_pb2_grpc.AgentServiceServicer):
    """The servicer; see the proto for what each method promises."""

    def __init__(
        self,
        *,
        node_id: str,
        invoker: Invoker,
        agents: AgentRegistry,
        invocations: InvocationLog,
        recordings: RecordingFiles,
        access: ServiceAccess,
        desk: ReceiptDesk,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._node_id = node_id
        self._invoker = invoker
        self._agents = agents
        self._invocations = invocations
        self._recordings = recordings
        self._access = access
        self._desk = desk
        self._monotonic = monotonic

    # Agents

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.Agent:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        (made,) = await self._agents.create(tenant, [self._wish(tenant, request)])
        if isinstance(made, AgentFactoryError):
            raise made
        return self._agent(made)

    async def BatchCreateAgents(  # noqa: N802
        self, request: pb.BatchCreateAgentsRequest, context: Context
    ) -> pb.BatchCreateAgentsResponse:
        tenant = tenant_of(peer_identity(context))
        if not 1 <= len(request.requests) <= BATCH_MAX:
            raise InvalidRequestError(
                field="requests", expected=f"1 to {BATCH_MAX} requests", got=str(len(request.requests))
            )
        made = await self._agents.create(tenant, [self._wish_or_error(tenant, each) for each in request.requests])
        return pb.BatchCreateAgentsResponse(results=[self._batch_result(each) for each in made])

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.Agent:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        return self._agent(await self._agents.get(tenant, self._agents.local_id(request.name)))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        template = _template_name(request.template) if request.template else None
        size = page_size(request.page_size)
        after = read_page_token(request.page_token)
        found = await self._agents.list(tenant, template=template, after=after, count_max=size + 1)
        page = found[:size]
        return pb.ListAgentsResponse(
            agents=[self._agent(each) for each in page],
            next_page_token=page_token(page[-1].agent_id) if len(found) > size else "",
        )

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> Empty:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        await self._agents.delete(tenant, self._agents.local_id(request.name))
        return Empty()

    # Invocations

    async def InvokeAgent(self, request: pb.InvokeAgentRequest, context: Context) -> pb.InvokeResponse:  # noqa: N802
        received = self._monotonic()
        call = await self._agent_call(request, context, received)
        return await self._invoke(call)

    async def InvokeTemplate(self, request: pb.InvokeTemplateRequest, context: Context) -> pb.InvokeResponse:  # noqa: N802
        received = self._monotonic()
        call = self._template_call(request, context, received)
        return await self._invoke(call)

    async def StreamInvoke(  # noqa: N802
        self, request: pb.StreamInvokeRequest, context: Context
    ) -> AsyncIterator[pb.StreamInvokeResponse]:
        received = self._monotonic()
        lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
        match request.WhichOneof("target"):
            case "agent":
                call = await self._agent_call(request.agent, context, received, on_log=lines.put_nowait)
            case "template":
                call = self._template_call(request.template, context, received, on_log=lines.put_nowait)
            case _:
                raise InvalidRequestError(field="target", expected="an agent or a template", got="neither")
        running = asyncio.ensure_future(self._invoke(call))
        running.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield pb.StreamInvokeResponse(log=log_line(line))
            yield pb.StreamInvokeResponse(result=await running)
        finally:
            running.cancel()

    async def ListInvocations(  # noqa: N802
        self, request: pb.ListInvocationsRequest, context: Context
    ) -> pb.ListInvocationsResponse:
        tenant = tenant_of(peer_identity(context))
        size = page_size(request.page_size)
        wanted = InvocationFilter(
            tenant=tenant,
            agent_id=self._agents.local_id(request.agent) if request.agent else "",
            template=str(_template_name(request.template)) if request.template else "",
            before=read_page_token(request.page_token),
            count_max=size + 1,
        )
        found = await self._invocations.list(wanted)
        page = found[:size]
        return pb.ListInvocationsResponse(
            invocations=[self._invocation(each, desk=None) for each in page],  # a page of signatures takes long
            next_page_token=page_token(page[-1].invocation_id) if len(found) > size else "",
        )

    async def GetInvocation(self, request: pb.GetInvocationRequest, context: Context) -> pb.Invocation:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        found = await self._invocations.get(tenant, request.invocation_id)
        if found is None:
            raise UnknownInvocationError(request.invocation_id)
        return self._invocation(found, desk=self._desk)

    async def GetRecording(  # noqa: N802
        self, request: pb.GetRecordingRequest, context: Context
    ) -> AsyncIterator[pb.GetRecordingResponse]:
        content = await self._recordings.read(tenant_of(peer_identity(context)), request.invocation_id)
        for start in range(0, len(content), RECORDING_PIECE_BYTES):
            yield pb.GetRecordingResponse(data=content[start : start + RECORDING_PIECE_BYTES])

    async def ListRecordings(  # noqa: N802
        self, request: pb.ListRecordingsRequest, context: Context
    ) -> pb.ListRecordingsResponse:
        tenant, size = tenant_of(peer_identity(context)), page_size(request.page_size)
        found = self._recordings.page(tenant, before=read_page_token(request.page_token), count_max=size + 1)
        page, age_s = found[:size], self._recordings.bounds.age_s_max
        known = [await self._invocations.get(tenant, each.invocation_id) for each in page]
        return pb.ListRecordingsResponse(
            recordings=[
                recording_summary(kept, record, self._node_id, age_s_max=age_s)
                for kept, record in zip(page, known, strict=True)
            ],
            next_page_token=page_token(page[-1].invocation_id) if len(found) > size else "",
        )

    async def DeleteRecording(self, request: pb.DeleteRecordingRequest, context: Context) -> Empty:  # noqa: N802
        caller = peer_identity(context)
        await self._recordings.delete(tenant_of(caller), request.invocation_id)
        log.info("recording_deleted", **{Field.INVOCATION: request.invocation_id, Field.PEER: caller.uri})
        return Empty()

    async def GetReceiptKey(self, request: pb.GetReceiptKeyRequest, context: Context) -> pb.ReceiptKey:  # noqa: ARG002, N802
        return self._desk.key()

    # Templates

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:  # noqa: N802
        tenant = tenant_of(peer_identity(context))
        size = page_size(request.page_size)
        after = read_page_token(request.page_token)
        active = self._invoker.active
        visible = [] if active is None else self._visible(tenant, active)
        found = [each for each in visible if each.name_text > after]
        page = found[:size]
        return pb.ListTemplatesResponse(
            templates=[template_summary(each) for each in page],
            next_page_token=page_token(page[-1].name_text) if len(found) > size else "",
            generation=0 if active is None else active.number,
        )

    # Inside

    def _invocation(self, record: InvocationRecord, *, desk: ReceiptDesk | None) -> pb.Invocation:
        made = invocation(record, self._node_id, desk)
        made.has_recording = self._recordings.has(record.tenant, record.invocation_id)
        return made

    async def _invoke(self, call: Call) -> pb.InvokeResponse:
        made = pb.InvokeResponse()
        draft: Draft | None = None

        def begun(record: InvocationRecord) -> None:
            nonlocal draft
            begin_receipt(made.receipt, record, self._node_id)
            draft = self._desk.begin(made.receipt, record)

        call.on_begun = begun
        try:
            answer: Answer = await self._invoker.run(call)
        except InvocationFailedError as error:
            raise DetailedError(error, receipt(error.record, self._node_id, self._desk)) from error
        made.output = answer.output
        end_receipt(made.receipt, answer.record)
        self._desk.end(made.receipt, answer.record, draft)
        return made

    def _limits(
        self, template: ActiveTemplate, tenant: str, asked: pb.Limits | None, agent: tuple[tuple[str, int], ...] = ()
    ) -> SandboxLimits:
        """Return the least of all; raise `InvalidRequestError` when a caller or an agent leaves too little to run."""
        try:
            return self._invoker.limits.of(
                template.sha256,
                template.resolved.limits,
                tenant=tenant,
                agent=agent,
                caller=NO_CEILINGS if asked is None else ceilings(asked),
            )
        except ValueError as error:
            raise InvalidRequestError(
                field="limits", expected="limits that can be carried out", got=str(error)
            ) from None

    def _template_call(
        self,
        request: pb.InvokeTemplateRequest,
        context: Context,
        received: float,
        *,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> Call:
        caller = peer_identity(context)
        tenant = tenant_of(caller)
        active, template = self._template(tenant, request.template)
        return Call(
            tenant=tenant,
            caller=caller.uri,
            template=template,
            generation=active.number,
            input=request.input,
            config=template.default_config,
            config_sha256=template.default_config_sha256,
            received=received,
            limits=self._limits(template, tenant, request.limits if request.HasField("limits") else None),
            remaining_s=cast("float | None", context.time_remaining()),
            on_log=on_log,
            record=request.record,
        )

    async def _agent_call(
        self,
        request: pb.InvokeAgentRequest,
        context: Context,
        received: float,
        *,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> Call:
        caller = peer_identity(context)
        tenant = tenant_of(caller)
        agent_id = self._agents.local_id(request.name)
        agent, template, config = await self._agents.with_config(
            tenant, agent_id, lambda found: self._template(tenant, str(found.template))[1]
        )
        active, _ = self._template(tenant, template.name_text)
        return Call(
            tenant=tenant,
            caller=caller.uri,
            template=template,
            generation=active.number,
            input=request.input,
            config=config.config,
            config_sha256=config.config_sha256,
            received=received,
            agent_id=agent.agent_id,
            limits=self._limits(template, tenant, request.limits if request.HasField("limits") else None, agent.limits),
            remaining_s=cast("float | None", context.time_remaining()),
            on_log=on_log,
            record=request.record,
        )

    def _template(self, tenant: str, text: str) -> tuple[ActiveGeneration, ActiveTemplate]:
        """Return an active template that ``tenant`` may use; another one, or another version, does not exist for it."""
        name, _, version = text.partition("@")
        try:
            active, template = self._invoker.template(name)
        except UnknownTemplateError:  # which names templates of other tenants as the nearest
            raise self._unknown(tenant, text) from None
        if not self._access.permits(tenant, template.name):
            raise self._unknown(tenant, text)
        if version and version != template.version_text:
            raise UnknownTemplateError(text, known=[template.ref_text])
        return active, template

    def _unknown(self, tenant: str, text: str) -> UnknownTemplateError:
        active = self._invoker.active
        visible = [] if active is None else self._visible(tenant, active)
        return UnknownTemplateError(text, known=[each.name_text for each in visible])

    def _visible(self, tenant: str, active: ActiveGeneration) -> list[ActiveTemplate]:
        return sorted(
            (each for each in active.templates.values() if self._access.permits(tenant, each.name)),
            key=lambda each: each.name_text,
        )

    def _wish(self, tenant: str, request: pb.CreateAgentRequest) -> Wish:
        if self._invoker.draining:
            raise DrainingError("expected a node that takes new agents, this one is being drained")
        _, template = self._template(tenant, request.template)
        if self._invoker.policy(template) is not LeaseExpiry.CONTINUE:
            raise LeaseExpiredError(f"expected a lease that still runs to create an agent of {template.ref_text}")
        limits = tuple(sorted(ceilings(request.limits).items())) if request.HasField("limits") else ()
        self._limits(template, tenant, None, limits)
        return Wish(
            template=template,
            config=request.config,
            agent_id=request.agent_id,
            request_id=request.request_id,
            limits=limits,
        )

    def _wish_or_error(self, tenant: str, request: pb.CreateAgentRequest) -> Wish | AgentFactoryError:
        try:
            return self._wish(tenant, request)
        except AgentFactoryError as error:
            return error

    def _batch_result(self, made: Agent | AgentFactoryError) -> pb.BatchCreateAgentsResult:
        if isinstance(made, Agent):
            return pb.BatchCreateAgentsResult(agent=self._agent(made))
        problem = pb.Problem(reason=str(made.reason), message=made.message, metadata=made.metadata)
        return pb.BatchCreateAgentsResult(problem=problem)

    def _agent(self, agent: Agent) -> pb.Agent:
        """An agent whose template is not active any more is shown without version and effective configuration."""
        template: ActiveTemplate | None = None
        active = self._invoker.active
        if active is not None:
            template = active.templates.get(str(agent.template))
        effective: EffectiveConfig | None = None
        if template is not None:
            try:
                effective = effective_config(template, agent.config)
            except ConfigMismatchError:
                effective = None  # a newer version refuses it: an invocation says so
        create_time = Timestamp()
        create_time.FromDatetime(agent.created_at)
        return pb.Agent(
            name=self._agents.name(agent),
            template=str(agent.template),
            template_version="" if template is None else template.version_text,
            config=agent.config.decode(),
            capabilities=() if template is None else template.resolved.capabilities,
            create_time=create_time,
            tenant=agent.tenant,
            effective_config="" if effective is None else effective.config.decode(),
            limits=pb.Limits(**dict(agent.limits)) if agent.limits else None,
        )


def tenant_of(identity: Identity) -> str:
    """Return a service's tenant; the guard let nobody else in."""
    if identity.tenant is None:
        raise InvalidRequestError(field="identity", expected="a service with a tenant", got=identity.uri)
    return identity.tenant


def _template_name(text: str) -> TemplateName:
    try:
        return TemplateName.parse(text)
    except InvalidNameError as error:
        raise InvalidRequestError(field="template", expected="domain/name", got=text) from error
