"""Calls reach an agent's home node, and other calls take turns."""

import pytest

from client.fleet import Fleet, InvalidAgentNameError, connection, home_node
from client.profile import ProfileError


@pytest.mark.parametrize(
    "name",
    ["", "nodes/a", "nodes//agents/b", "nodes/a/agents/B", "nodes/a/agents/b/c", "agents/b", "nodes/a/agents/-b"],
)
def test_refuses_what_is_not_an_agents_name(name: str) -> None:
    with pytest.raises(InvalidAgentNameError, match="expected nodes/<node>/agents/<id>"):
        home_node(name)


def test_reads_the_home_node_of_a_name() -> None:
    assert home_node("nodes/node-1/agents/writer-7") == "node-1"


def test_calls_an_agents_home_node_when_it_is_known() -> None:
    fleet = Fleet(known={"a": "h:1", "b": "h:2"})
    assert fleet.addresses_for("nodes/b/agents/x") == ["h:2"]


def test_asks_unknown_addresses_in_turn_until_it_has_learned() -> None:
    fleet = Fleet(known={}, unknown=["h:1", "h:2"])
    assert fleet.addresses_for("nodes/b/agents/x") == ["h:1", "h:2"]
    fleet.learn(node="b", address="h:2")
    assert fleet.addresses_for("nodes/b/agents/x") == ["h:2"]
    assert fleet.addresses_for("nodes/c/agents/x") == ["h:1"]


def test_spreads_calls_without_a_home_over_all_nodes() -> None:
    fleet = Fleet(known={"a": "h:1", "b": "h:2"})
    assert {fleet.next_address() for _ in range(4)} == {"h:1", "h:2"}


def test_needs_at_least_one_address() -> None:
    with pytest.raises(InvalidAgentNameError, match="at least one"):
        Fleet(known={})


def test_needs_a_profile_or_all_three_files(tmp_path: object) -> None:
    with pytest.raises(ProfileError, match=r"agentctl --dir .* up"):
        connection(["h:1"], certificate="c", key=None, authorities=None, profile=str(tmp_path), identity=None)
