"""What the client sends, where it retries, and what it makes of batches."""

import pytest
from agentfactory.agent.v1 import agent_pb2 as pb

from client import requests
from client.values import AgentRequest, Limits
from service.status import RemoteError
from templates.reasons import Reason


def test_makes_an_id_from_template_and_suffix() -> None:
    message = requests.create_agent(AgentRequest(template="software/genie_logiciel", suffix="7", config={"é": 1}))
    assert message.agent_id == "genie-logiciel-7"
    assert message.config == '{"é": 1}'


def test_every_creation_carries_its_own_request_id() -> None:
    wanted = AgentRequest(template="a_b/c_d")
    first, second = requests.create_agent(wanted), requests.create_agent(wanted)
    assert first.agent_id == ""
    assert first.request_id
    assert first.request_id != second.request_id


def test_never_retries_what_may_have_run() -> None:
    methods = {one.rpartition("/")[2] for one in requests.RETRY.idempotent_methods}
    assert not methods & {"InvokeAgent", "InvokeTemplate", "StreamInvoke", "DeleteAgent"}


def test_narrower_limits_travel() -> None:
    message = requests.invoke_template("a/b", "text", Limits(fuel=5, wall_ms=7))
    assert (message.limits.fuel, message.limits.wall_ms, message.limits.host_calls) == (5, 7, 0)
    assert not requests.invoke_template("a/b", "text", None).HasField("limits")


def test_a_batch_names_its_refusals() -> None:
    response = pb.BatchCreateAgentsResponse(
        results=[
            pb.BatchCreateAgentsResult(agent=pb.Agent(name="nodes/n/agents/a")),
            pb.BatchCreateAgentsResult(problem=pb.Problem(reason="CONFIG_MISMATCH", message="/sentences: too many")),
        ]
    )
    wanted = [AgentRequest(template="a/b"), AgentRequest(template="a/b")]
    with pytest.raises(requests.AgentsNotCreatedError, match="request 1: CONFIG_MISMATCH") as caught:
        requests.raise_for_problems(wanted, response, ["nodes/n/agents/a"])
    assert caught.value.created == ["nodes/n/agents/a"]
    assert caught.value.problems == {1: ("CONFIG_MISMATCH", "/sentences: too many")}


def test_a_batch_without_refusals_passes() -> None:
    requests.raise_for_problems([], pb.BatchCreateAgentsResponse(), [])


def test_qualifies_a_bare_name_that_one_domain_has() -> None:
    assert requests.qualified("hardware", ["infra/hardware@1.0.0", "docs/writer@1.0.0"]) == "infra/hardware"


def test_refuses_an_ambiguous_bare_name() -> None:
    with pytest.raises(requests.UnknownTemplateError, match="infra/hardware, other/hardware"):
        requests.qualified("hardware", ["infra/hardware@1.0.0", "other/hardware@2.0.0"])


def test_suggests_the_nearest_names() -> None:
    with pytest.raises(requests.UnknownTemplateError, match="did you mean hardware"):
        requests.qualified("hardwear", ["infra/hardware@1.0.0"])


def _remote(reason: Reason) -> RemoteError:
    error = RemoteError.__new__(RemoteError)
    Exception.__init__(error, str(reason))
    error.reason = reason
    return error


def test_asks_the_next_node_only_when_the_first_says_elsewhere() -> None:
    asked: list[str] = []

    def call(address: str) -> str:
        asked.append(address)
        if address == "h:1":
            raise _remote(Reason.WRONG_NODE)
        return address

    assert requests.first_found(["h:1", "h:2", "h:3"], call) == "h:2"
    assert asked == ["h:1", "h:2"]


def test_any_other_failure_ends_the_search() -> None:
    def call(_address: str) -> str:
        raise _remote(Reason.FUEL)

    with pytest.raises(RemoteError):
        requests.first_found(["h:1", "h:2"], call)


def test_collects_every_page() -> None:
    pages = {"": pb.ListTemplatesResponse(next_page_token="b"), "b": pb.ListTemplatesResponse()}
    assert requests.all_pages(lambda token: pages[token], lambda page: [page.next_page_token]) == ["b", ""]
