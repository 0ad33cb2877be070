"""The asynchronous client: the same calls as `client.agent_factory`, for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc.aio
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client import requests
from client.fleet import Fleet, connection, home_node
from client.receipts import envelope_of, verify_receipt, voucher_of
from client.values import (
    AgentRecord,
    AgentRequest,
    Answer,
    InvocationRecord,
    KeptRecording,
    Limits,
    LogLine,
    Receipt,
    TemplateSummary,
)
from client.wire import agent_of, answer_of, invocation_of, log_line_of, recording_of, template_of
from service.client_interceptors import intercept_aio_channel
from service.receipt_keys import Voucher
from service.status import RemoteError
from service.tls import TlsFiles, channel_credentials
from templates.receipt import Receipt as Statement

if TYPE_CHECKING:  # exists in the stub file only
    from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceAsyncStub

T = TypeVar("T")


class AsyncAgent:
    """A handle on one agent. Its state lives on its home node; the handle holds no connection of its own."""

    def __init__(self, factory: "AsyncAgentFactory", record: AgentRecord) -> None:
        self._factory = factory
        self.record = record

    @property
    def name(self) -> str:
        """``nodes/<node>/agents/<id>``."""
        return self.record.name

    async def process(
        self,
        text: str,
        *,
        limits: Limits | None = None,
        record: bool = False,
        timeout_s: float = requests.INVOKE_TIMEOUT_S,
    ) -> Answer:
        """Run the agent once on ``text``; cancelling the awaiting task stops the guest. Never sent twice.

        Raises:
            RemoteError: with the failure's ``reason`` (FUEL, DEADLINE, GUEST_ERROR …).
        """
        return await self._factory.invoke(self.name, text, limits=limits, record=record, timeout_s=timeout_s)

    async def get_capabilities(self) -> Sequence[str]:
        """Return what the active version of the agent's template says it can do."""
        return (await self._factory.get_agent(self.name)).record.capabilities

    async def delete(self) -> None:
        """Delete the agent and its state."""
        await self._factory.delete_agent(self.name)

    def __repr__(self) -> str:
        return f"AsyncAgent({self.name!r}, template={self.record.template!r})"


class AsyncAgentFactory:
    """Connections to one or more nodes, opened when they are first needed, for one event loop."""

    def __init__(self, *, tls: TlsFiles, fleet: Fleet) -> None:
        self._credentials = channel_credentials(tls)
        self._fleet = fleet
        self._authorities = tls.authorities
        self._vouchers: dict[str, Voucher] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, AgentServiceAsyncStub] = {}

    @classmethod
    def connect(
        cls,
        *addresses: str,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        authorities: Path | str | None = None,
        profile: Path | str | None = None,
        identity: str | None = None,
    ) -> Self:
        """Return a client for ``addresses`` with the given PEM files, or for every node of a profile's directory."""
        tls, fleet = connection(
            addresses, certificate=certificate, key=key, authorities=authorities, profile=profile, identity=identity
        )
        return cls(tls=tls, fleet=fleet)

    async def create_agent(
        self,
        template: str,
        suffix: str = "",
        config: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        address: str | None = None,
    ) -> AsyncAgent:
        """Create one agent of ``template`` (``domain/name``; a bare name where only one domain has it)."""
        wanted = AgentRequest(
            template=await self._qualified(template), suffix=suffix, config=config or {}, limits=limits
        )
        chosen = address or self._fleet.next_address()
        message = requests.create_agent(wanted)
        return self._learned(await self._stub(chosen).CreateAgent(message, timeout=requests.CREATE_TIMEOUT_S), chosen)

    async def create_agents(self, wanted: Iterable[AgentRequest | str]) -> Sequence[AsyncAgent]:
        """Create many agents in one call on one node.

        Raises:
            AgentsNotCreatedError: some were refused; its ``created`` and ``problems`` say which.
        """
        each = [AgentRequest(template=one) if isinstance(one, str) else one for one in wanted]
        message = pb.BatchCreateAgentsRequest(
            requests=[
                requests.create_agent(requests.with_template(one, await self._qualified(one.template))) for one in each
            ]
        )
        address = self._fleet.next_address()
        response = await self._stub(address).BatchCreateAgents(message, timeout=requests.BATCH_TIMEOUT_S)
        created = [self._learned(one.agent, address) for one in response.results if one.HasField("agent")]
        requests.raise_for_problems(each, response, [agent.name for agent in created])
        return created

    async def get_agent(self, name: str) -> AsyncAgent:
        """Return the agent ``nodes/<node>/agents/<id>`` as it is now."""
        message = pb.GetAgentRequest(name=name)

        async def call(stub: "AgentServiceAsyncStub") -> AsyncAgent:
            return AsyncAgent(self, agent_of(await stub.GetAgent(message, timeout=requests.READ_TIMEOUT_S)))

        return await self._first_found(self._fleet.addresses_for(name), call)

    async def list_agents(self, *, template: str = "") -> AsyncIterator[AsyncAgent]:
        """Iterate over the agents of the caller's tenant on every node."""
        for address in self._fleet.addresses:
            token = ""
            while True:
                page = await self._stub(address).ListAgents(
                    pb.ListAgentsRequest(page_size=200, page_token=token, template=template),
                    timeout=requests.READ_TIMEOUT_S,
                )
                for one in page.agents:
                    yield self._learned(one, address)
                token = page.next_page_token
                if not token:
                    break

    async def delete_agent(self, name: str) -> None:
        """Delete the agent and its state on its home node."""
        message = pb.DeleteAgentRequest(name=name)

        async def call(stub: "AgentServiceAsyncStub") -> None:
            await stub.DeleteAgent(message, timeout=requests.READ_TIMEOUT_S)

        await self._first_found(self._fleet.addresses_for(name), call)

    async def invoke(
        self,
        name: str,
        text: str,
        *,
        limits: Limits | None = None,
        record: bool = False,
        timeout_s: float = requests.INVOKE_TIMEOUT_S,
    ) -> Answer:
        """Run the agent ``name`` once, on its home node."""
        message = requests.invoke_agent(name, text, limits, record=record)

        async def call(stub: "AgentServiceAsyncStub") -> Answer:
            return answer_of(await stub.InvokeAgent(message, timeout=timeout_s))

        return await self._first_found(self._fleet.addresses_for(name), call)

    async def invoke_template(
        self,
        template: str,
        text: str,
        *,
        limits: Limits | None = None,
        record: bool = False,
        timeout_s: float = requests.INVOKE_TIMEOUT_S,
    ) -> Answer:
        """Run a template once with its default configuration, on any node."""
        message = requests.invoke_template(await self._qualified(template), text, limits, record=record)
        return answer_of(await self._stub(self._fleet.next_address()).InvokeTemplate(message, timeout=timeout_s))

    async def stream(
        self,
        target: str,
        text: str,
        *,
        limits: Limits | None = None,
        record: bool = False,
        timeout_s: float = requests.INVOKE_TIMEOUT_S,
    ) -> AsyncIterator[LogLine | Answer]:
        """Run an agent or a template once; yields its log lines while it runs, the answer last."""
        named = target if target.startswith("nodes/") else await self._qualified(target)
        message, address = requests.stream_invoke(self._fleet, named, text, limits, record=record)
        async for event in self._stub(address).StreamInvoke(message, timeout=timeout_s):
            yield log_line_of(event.log) if event.HasField("log") else answer_of(event.result)

    async def list_templates(self) -> Sequence[TemplateSummary]:
        """Return the templates that are active on a node."""
        found: list[TemplateSummary] = []
        token = ""
        stub = self._stub(self._fleet.next_address())
        while True:
            page = await stub.ListTemplates(
                pb.ListTemplatesRequest(page_size=200, page_token=token), timeout=requests.READ_TIMEOUT_S
            )
            found += [template_of(one) for one in page.templates]
            token = page.next_page_token
            if not token:
                return found

    async def list_invocations(
        self, *, agent: str = "", template: str = "", count: int = 50
    ) -> Sequence[InvocationRecord]:
        """Return recent invocations of the caller's tenant, newest first, from every node or the agent's."""
        message = pb.ListInvocationsRequest(page_size=count, agent=agent, template=template)
        found: list[InvocationRecord] = []
        for address in self._fleet.addresses_for(agent) if agent else self._fleet.addresses:
            page = await self._stub(address).ListInvocations(message, timeout=requests.READ_TIMEOUT_S)
            found += [invocation_of(one) for one in page.invocations]
        return sorted(found, key=lambda one: one.started, reverse=True)[:count]

    async def get_invocation(self, invocation_id: str) -> InvocationRecord:
        """Return one recent invocation with its log lines, from whichever node ran it."""
        message = pb.GetInvocationRequest(invocation_id=invocation_id)

        async def call(stub: "AgentServiceAsyncStub") -> InvocationRecord:
            return invocation_of(await stub.GetInvocation(message, timeout=requests.READ_TIMEOUT_S))

        return await self._first_found(self._fleet.addresses, call)

    async def get_recording(self, invocation_id: str) -> bytes:
        """Return the recording of an invocation, decrypted: keep it as what it holds deserves."""
        message = pb.GetRecordingRequest(invocation_id=invocation_id)

        async def call(stub: "AgentServiceAsyncStub") -> bytes:
            pieces = stub.GetRecording(message, timeout=requests.READ_TIMEOUT_S)
            return b"".join([piece.data async for piece in pieces])

        return await self._first_found(self._fleet.addresses, call)

    async def list_recordings(self, *, count: int = 50) -> Sequence[KeptRecording]:
        """Return the recordings of the caller's tenant that nodes keep, newest first."""
        message, found = pb.ListRecordingsRequest(page_size=count), list[KeptRecording]()
        for address in self._fleet.addresses:
            page = await self._stub(address).ListRecordings(message, timeout=requests.READ_TIMEOUT_S)
            found += [recording_of(one) for one in page.recordings]
        return sorted(found, key=lambda one: one.created, reverse=True)[:count]

    async def delete_recording(self, invocation_id: str) -> None:
        """Delete the recording of an invocation, on whichever node keeps it."""
        message = pb.DeleteRecordingRequest(invocation_id=invocation_id)

        async def call(stub: "AgentServiceAsyncStub") -> object:
            return await stub.DeleteRecording(message, timeout=requests.READ_TIMEOUT_S)

        await self._first_found(self._fleet.addresses, call)

    async def receipt_file(self, receipt: Receipt) -> bytes:
        """Return a receipt with everything that verifies it anywhere; keep it beside input and output.

        Raises:
            ReceiptUntrustedError: no node has the key any more that signed it.
        """
        if receipt.key_id not in self._vouchers:
            for address in self._fleet.addresses:
                message = await self._stub(address).GetReceiptKey(
                    pb.GetReceiptKeyRequest(), timeout=requests.READ_TIMEOUT_S
                )
                self._vouchers[message.key_id] = voucher_of(message)
        return envelope_of(receipt, self._vouchers).to_bytes()

    async def verify(self, answer: Answer, text: str) -> Statement:
        """Return what the node attests about this answer to ``text``.

        Raises:
            ReceiptUntrustedError: the installation's authority does not vouch for it.
            ReceiptMismatchError: it speaks of another input or output.
        """
        data = await self.receipt_file(answer.receipt)
        return verify_receipt(data, authorities=self._authorities, input=text, output=answer.output)

    async def close(self) -> None:
        """Close every connection."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        self._stubs.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _stub(self, address: str) -> "AgentServiceAsyncStub":
        stub = self._stubs.get(address)
        if stub is None:
            channel = intercept_aio_channel(
                grpc.aio.secure_channel(address, self._credentials, options=requests.CHANNEL_OPTIONS), requests.RETRY
            )
            self._channels[address] = channel
            stub = self._stubs.setdefault(address, AgentServiceStub(channel))
        return stub

    def _learned(self, message: pb.Agent, address: str) -> AsyncAgent:
        self._fleet.learn(node=home_node(message.name), address=address)
        return AsyncAgent(self, agent_of(message))

    async def _first_found(
        self, addresses: Sequence[str], call: "Callable[[AgentServiceAsyncStub], Awaitable[T]]"
    ) -> T:
        for address in addresses[:-1]:
            try:
                return await call(self._stub(address))
            except RemoteError as error:
                if not requests.is_elsewhere(error):
                    raise
        return await call(self._stub(addresses[-1]))

    async def _qualified(self, template: str) -> str:
        if "/" in template:
            return template
        return requests.qualified(template, [one.template for one in await self.list_templates()])
