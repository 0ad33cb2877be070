"""What the synchronous and the asynchronous client share: requests, time limits, retries, routing to the home node."""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from agentfactory.agent.v1 import agent_pb2 as pb

from client.fleet import Fleet
from client.values import AgentRequest, Limits
from client.wire import limits_to
from service.client_interceptors import RetryPolicy
from service.status import RemoteError
from templates.names import nearest
from templates.reasons import AgentFactoryError, Reason

READ_TIMEOUT_S: Final = 10.0
CREATE_TIMEOUT_S: Final = 10.0
BATCH_TIMEOUT_S: Final = 60.0
INVOKE_TIMEOUT_S: Final = 60.0
MESSAGE_BYTES_MAX: Final = 8 << 20
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 60_000),
)
_SERVICE: Final = "/agentfactory.agent.v1.AgentService/"
# CreateAgent and BatchCreateAgents carry request ids. Invocations may have effects: they are sent once.
RETRY: Final = RetryPolicy(
    idempotent_methods=frozenset(
        _SERVICE + method
        for method in (
            "CreateAgent",
            "BatchCreateAgents",
            "GetAgent",
            "ListAgents",
            "ListTemplates",
            "ListInvocations",
            "GetInvocation",
            "GetReceiptKey",
        )
    )
)

T = TypeVar("T")


class AgentsNotCreatedError(AgentFactoryError):
    """Some agents of a batch were refused. ``created`` names the others; ``problems``: index to (reason, message)."""

    reason = Reason.AGENTS_NOT_CREATED

    def __init__(self, *, created: Sequence[str], problems: Mapping[int, tuple[str, str]], count: int) -> None:
        index, (reason, message) = next(iter(problems.items()))
        super().__init__(
            f"expected {count} agents, got {len(created)}; the first refusal is request {index}: {reason}: {message}"
        )
        self.created = created
        self.problems = problems


class UnknownTemplateError(AgentFactoryError):
    """No active template, or more than one, has this bare name."""

    reason = Reason.UNKNOWN_TEMPLATE


def create_agent(wanted: AgentRequest) -> pb.CreateAgentRequest:
    """Return the request for one agent; its request id makes a retry safe."""
    stem = re.sub(r"[^a-z0-9]+", "-", wanted.template.rpartition("/")[2])
    return pb.CreateAgentRequest(
        template=wanted.template,
        config=json.dumps(dict(wanted.config), ensure_ascii=False),
        agent_id=f"{stem}-{wanted.suffix}" if wanted.suffix else "",
        request_id=str(uuid.uuid4()),
        limits=limits_to(wanted.limits),
    )


def with_template(wanted: AgentRequest, template: str) -> AgentRequest:
    return replace(wanted, template=template)


def invoke_agent(name: str, text: str, limits: Limits | None) -> pb.InvokeAgentRequest:
    return pb.InvokeAgentRequest(name=name, input=text, limits=limits_to(limits))


def invoke_template(template: str, text: str, limits: Limits | None) -> pb.InvokeTemplateRequest:
    return pb.InvokeTemplateRequest(template=template, input=text, limits=limits_to(limits))


def stream_invoke(fleet: Fleet, target: str, text: str, limits: Limits | None) -> tuple[pb.StreamInvokeRequest, str]:
    """Return the request and the address for an agent's name or a template."""
    if target.startswith("nodes/"):
        message = pb.StreamInvokeRequest(agent=invoke_agent(target, text, limits))
        return message, fleet.addresses_for(target)[0]
    return pb.StreamInvokeRequest(template=invoke_template(target, text, limits)), fleet.next_address()


def raise_for_problems(
    wanted: Sequence[AgentRequest], response: pb.BatchCreateAgentsResponse, created: Sequence[str]
) -> None:
    """Raise `AgentsNotCreatedError` when the node refused at least one request."""
    problems = {
        index: (one.problem.reason, one.problem.message)
        for index, one in enumerate(response.results)
        if one.HasField("problem")
    }
    if problems:
        raise AgentsNotCreatedError(created=created, problems=problems, count=len(wanted))


def qualified(name: str, active: Iterable[str]) -> str:
    """Return ``domain/name`` for a bare name, from the references of active templates.

    Raises:
        UnknownTemplateError: none or several domains have it; the message names the nearest.
    """
    names = sorted({reference.partition("@")[0] for reference in active})
    fitting = [one for one in names if one.partition("/")[2] == name]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UnknownTemplateError(f"expected one template called {name!r}, got {', '.join(fitting)}")
    close = nearest(name, (one.partition("/")[2] for one in names))
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise UnknownTemplateError(f"expected an active template called {name!r}, got none{hint}")


def all_pages(fetch: Callable[[str], Any], values: Callable[[Any], list[T]]) -> list[T]:
    """Return the values of every page that ``fetch(token)`` gives."""
    found: list[T] = []
    token = ""
    while True:
        page = fetch(token)
        found += values(page)
        token = page.next_page_token
        if not token:
            return found


def is_elsewhere(error: RemoteError) -> bool:
    """Whether another node may have what this one does not."""
    return error.reason in {Reason.WRONG_NODE, Reason.UNKNOWN_INVOCATION}


def first_found(addresses: Sequence[str], call: Callable[[str], T]) -> T:
    """Call each address until one has what is asked for.

    Raises:
        RemoteError: the last node's answer when none has it; any other error at once.
    """
    for address in addresses[:-1]:
        try:
            return call(address)
        except RemoteError as error:
            if not is_elsewhere(error):
                raise
    return call(addresses[-1])
