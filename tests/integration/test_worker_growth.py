"""Workers of a real node follow load: more while a tenant has much to do, up to its quota, fewer when it has not."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.node.v1 import node_pb2

from data_plane.admission.scaling import ScalingSettings
from data_plane.proc_times import processor_time
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

SCALING = ScalingSettings()
MANY = SCALING.in_flight_busy + 20
LIMITS = {"fuel": 1_000_000_000_000, "wall_ms": 120_000, "memory_bytes": 1 << 20}
QUOTAS = {"grown": {"workers": 2}, "capped": {"workers": 1}, "busy": {"workers": 2}}
COMPUTING_S = 30.0
PATIENCE_S = 90.0
"""For what a quiet machine does in a few seconds."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    world = NodeWorld.make(tmp_path_factory.mktemp("growth"))
    world.publish(
        world.command("docs/echo", guests.ECHO, limits=LIMITS),
        world.command("docs/sleeper", guests.sleeper(110_000_000_000), limits=LIMITS),
        world.command("docs/spinner", guests.SPINNER, limits=LIMITS),
    )
    world.seed()
    settings = {"tenant_quotas": json.dumps(QUOTAS), "worker_idle_s": "3", "spare_workers": "1"}
    with NodeProcess(world.installation, world.environment(**settings)) as process:
        yield process


@contextmanager
def running(
    node: NodeProcess, tenant: str, template: str, count: int
) -> "Iterator[Sequence[grpc.Future[pb.InvokeResponse]]]":
    """Keep ``count`` invocations in flight within the block."""
    stub = node.agents(tenant)
    request = pb.InvokeTemplateRequest(template=template)
    calls = [stub.InvokeTemplate.future(request, timeout=240) for _ in range(count)]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()
        node.until("none in flight", lambda each: use(each, tenant).in_flight == 0, timeout_s=PATIENCE_S)


def use(status: node_pb2.NodeStatus, tenant: str) -> node_pb2.TenantUse:
    return next((each for each in status.tenants if each.tenant == tenant), node_pb2.TenantUse())


def pids(status: node_pb2.NodeStatus, tenant: str) -> set[int]:
    return {each.pid for each in status.workers if each.tenant == tenant}


def has_workers(tenant: str, count: int) -> object:
    return lambda status: use(status, tenant).workers == count == len(pids(status, tenant))


def counted_workers(node: NodeProcess) -> int:
    """Return what the node's metrics say of all of its workers."""
    _, page = node.observed("/metrics")
    (line,) = [each for each in page.decode().splitlines() if each.startswith("agentfactory_workers ")]
    return int(float(line.split()[1]))


def test_a_tenant_with_much_in_flight_gets_a_second_worker_and_what_idles_is_retired(node: NodeProcess) -> None:
    with running(node, "grown", "docs/sleeper", MANY) as calls:
        status = node.until(
            "all in flight in one worker or more",
            lambda each: use(each, "grown").in_flight == MANY,
            timeout_s=PATIENCE_S,
        )
        assert use(status, "grown").workers_max == 2
        status = node.until("a second worker", has_workers("grown", 2), timeout_s=PATIENCE_S)
        first = pids(status, "grown")
        grew = [each["workers"] for each in node.events("workers_grew") if each["tenant"] == "grown"]
        assert grew == [2]
        assert counted_workers(node) >= 2

        assert invoke(node.agents("grown"), "docs/echo", "x").output == "x"
        status = node.until(
            "the newer worker to be given work", lambda each: use(each, "grown").workers == 2, timeout_s=PATIENCE_S
        )
        ran = {each.pid: each.invocations for each in status.workers if each.tenant == "grown"}
        assert all(ran.values()), ran

        for call in calls[1:]:
            call.cancel()
        status = node.until("one worker, busy with what is left", has_workers("grown", 1), timeout_s=PATIENCE_S)
        assert use(status, "grown").in_flight == 1
        assert pids(status, "grown") < first
        assert not calls[0].done()
    node.until("no worker", has_workers("grown", 0), timeout_s=PATIENCE_S)


def test_a_quota_of_workers_holds_whatever_the_load(node: NodeProcess) -> None:
    with running(node, "capped", "docs/sleeper", MANY):
        node.until("all in flight", lambda each: use(each, "capped").in_flight == MANY, timeout_s=PATIENCE_S)
        until = time.monotonic() + 3 * SCALING.grow_after  # nothing to wait for: it is to stay as it is
        while time.monotonic() < until:
            assert use(node.status(), "capped").workers == 1
            time.sleep(0.5)
    assert not [each for each in node.events("workers_grew") if each["tenant"] == "capped"]


def test_a_tenant_whose_guests_compute_gets_a_second_worker(node: NodeProcess) -> None:
    """Load is processor time. A machine that has none to give cannot show it: then there is nothing to judge."""
    with running(node, "busy", "docs/spinner", 4):
        status = node.until("a worker", has_workers("busy", 1), timeout_s=PATIENCE_S)
        (pid,) = pids(status, "busy")
        busy_s = most_s = 0.0
        until, seen = time.monotonic() + COMPUTING_S, (time.monotonic(), processor_time(pid))
        while use(node.status(), "busy").workers < 2 and time.monotonic() < until:
            time.sleep(0.5)
            now = (time.monotonic(), processor_time(pid))
            elapsed_s, used_s = now[0] - seen[0], now[1] - seen[1]
            busy_s = busy_s + elapsed_s if used_s >= 0.95 * elapsed_s else 0.0
            most_s, seen = max(most_s, busy_s), now
        if use(node.status(), "busy").workers < 2 and most_s < 3 * SCALING.grow_after:
            pytest.skip(f"this machine never gave a worker a processor for longer than {most_s:.1f} s")
        node.until("two workers", has_workers("busy", 2))
