"""A real node on hosts that isolate less: it says what is reached, and does not serve below its minimum."""

import json
import time
from pathlib import Path

import grpc
import pytest
from agentfactory.node.v1 import node_pb2

from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

ON_A_HOST_LIKE_A_CONTAINER = """
from tests.isolation.restricted_host import as_a_container
as_a_container()
from data_plane.main import main
main()
"""
CONTAINER = ("-c", ON_A_HOST_LIKE_A_CONTAINER)


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    made = NodeWorld.make(tmp_path)
    made.publish(made.command("docs/echo", guests.ECHO))
    made.seed()
    return made


def ready(node: NodeProcess) -> tuple[int, dict[str, object]]:
    status, page = node.observed("/readyz")
    return status, json.loads(page)


def test_a_node_says_how_far_its_workers_are_isolated(world: NodeWorld) -> None:
    with NodeProcess(world.installation, world.environment(isolation_min="full")) as node:
        assert invoke(node.agents(), "docs/echo", "x").output == "x"
        status = node.status()
        assert (status.state, status.isolation.level) == (node_pb2.NODE_STATE_SERVING, "full")
        assert (status.isolation.demanded, list(status.isolation.missing)) == ("full", [])
        assert {worker.isolation for worker in status.workers} == {"full"}
        code, facts = ready(node)
        assert (code, facts["isolation"], facts["isolation_min"]) == (200, "full", "full")
        assert b"agentfactory_isolation_level 3.0" in node.observed("/metrics")[1]


@pytest.mark.parametrize("spares", ["0", "1"])
def test_below_its_minimum_a_node_is_not_ready_and_says_why(world: NodeWorld, spares: str) -> None:
    environment = world.environment(isolation_min="full", spare_workers=spares)
    with NodeProcess(world.installation, environment, program=CONTAINER) as node:
        reason = "level full, and reach landlock+seccomp (namespaces ("
        status = node.until("a level", lambda status: reason in status.state_reason)
        assert (status.state, status.isolation.level) == (node_pb2.NODE_STATE_UNISOLATED, "landlock+seccomp")
        code, facts = ready(node)
        assert (code, facts["state"]) == (503, "UNISOLATED")
        assert "Operation not permitted" in str(facts["reason"])
        with pytest.raises(grpc.RpcError) as refused:
            invoke(node.agents(), "docs/echo", "x")
        # by the pool, or already by the node's state, which is looked at now and then
        assert refused.value.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE}
        assert "level full" in str(refused.value.details())
        time.sleep(0.3)
        assert ready(node)[0] == 503
        assert not node.status().workers


def test_a_container_serves_where_production_does_by_default_and_warns(world: NodeWorld) -> None:
    environment = world.environment(isolation_min="landlock+seccomp")
    with NodeProcess(world.installation, environment, program=CONTAINER) as node:
        assert invoke(node.agents(), "docs/echo", "x").output == "x"
        status = node.status()
        assert (status.isolation.level, status.isolation.demanded) == ("landlock+seccomp", "landlock+seccomp")
        assert any("docs/isolation.md" in warning for warning in status.warnings)
        assert ready(node)[0] == 200
