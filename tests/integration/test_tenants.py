"""Tenants on one real node: what each may have, that nobody notices another's trouble, and that nothing is shared."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc
from agentfactory.node.v1 import node_pb2, node_pb2_grpc

from data_plane.settings import NodeSettings
from service.settings import InvalidSettingsError
from service.status import RemoteError, from_rpc_error
from templates.reasons import Reason
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

Stub = agent_pb2_grpc.AgentServiceStub
SMALL = {"fuel": 50_000_000, "wall_ms": 20_000, "memory_bytes": 16 << 20}
QUOTAS = {
    "poor": {"in_flight": 1},
    "lean": {"memory_bytes": 24 << 20},
    "gone": {"workers": 0},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("tenants"))
    world.publish(
        world.command("docs/echo", guests.ECHO, limits=SMALL),
        world.command("docs/spinner", guests.SPINNER, limits={**SMALL, "fuel": 1_000_000_000_000}),
        world.command("docs/sleeper", guests.sleeper(15_000_000_000), limits=SMALL),
        world.command("docs/nap", guests.sleeper(300_000_000), limits=SMALL),
    )
    for name in ("n1", "n2", "n3", "n4"):
        world.seed(name)
    return world


@pytest.fixture(scope="module")
def node(world: NodeWorld) -> Iterator[NodeProcess]:
    settings = {
        "tenant_quotas": json.dumps(QUOTAS),
        "limits_max": json.dumps({"fuel": 40_000_000}),
        "tenant_limits_max": json.dumps({"rival": {"fuel": 2_000_000, "input_bytes": 100}}),
        "spare_workers": "1",
        "worker_idle_s": "2",
    }
    with NodeProcess(world.installation, world.environment(**settings)) as process:
        yield process


def refused(stub: Stub, template: str, text: str = "", **limits: int) -> RemoteError:
    with pytest.raises(grpc.RpcError) as error:
        invoke(stub, template, text, **limits)
    return from_rpc_error(error.value)


def running(stub: Stub, template: str) -> "grpc.Future[pb.InvokeResponse]":
    return stub.InvokeTemplate.future(pb.InvokeTemplateRequest(template=template), timeout=30)


def use(status: node_pb2.NodeStatus, tenant: str) -> node_pb2.TenantUse:
    return next((each for each in status.tenants if each.tenant == tenant), node_pb2.TenantUse())


def busy(status: node_pb2.NodeStatus, tenant: str) -> list[int]:
    """Return the pids of a tenant's workers that run something."""
    return [each.pid for each in status.workers if each.tenant == tenant and each.in_flight]


@pytest.mark.parametrize(
    ("tenant", "reason"),
    [("poor", Reason.TENANT_IN_FLIGHT_EXHAUSTED), ("lean", Reason.TENANT_MEMORY_EXHAUSTED)],
)
def test_a_tenant_at_its_quota_is_told_which_and_others_work_on(node: NodeProcess, tenant: str, reason: Reason) -> None:
    stub, acme = node.agents(tenant), node.agents()
    first = running(stub, "docs/sleeper")
    status = node.until("one in flight", lambda each: use(each, tenant).in_flight == 1)
    assert use(status, tenant).memory_bytes == 16 << 20
    error = refused(stub, "docs/echo", "x")
    assert (error.reason, error.code) == (reason, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.retry_s is not None
    assert error.retry_s > 0
    assert error.metadata["tenant"] == tenant
    took = []
    for _ in range(20):
        started = time.perf_counter()
        assert invoke(acme, "docs/echo", "x").output == "x"
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 2, "the sleeper beside them takes far longer"
    first.cancel()
    node.until("none in flight", lambda each: use(each, tenant).in_flight == 0)
    assert invoke(stub, "docs/echo", "x").output == "x"


def test_a_caller_that_asks_for_less_memory_fits_into_the_quota(node: NodeProcess) -> None:
    stub = node.agents("lean")
    first = running(stub, "docs/sleeper")
    node.until("one in flight", lambda each: use(each, "lean").in_flight == 1)
    assert invoke(stub, "docs/echo", "x", memory_bytes=4 << 20).output == "x"
    first.cancel()


def test_a_tenant_without_workers_runs_nothing(node: NodeProcess) -> None:
    error = refused(node.agents("gone"), "docs/echo", "x")
    assert (error.reason, error.code) == (Reason.TENANT_WORKERS_EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_node_and_tenant_narrow_what_the_template_allows(node: NodeProcess) -> None:
    acme, rival = node.agents(), node.agents("rival")
    assert refused(acme, "docs/spinner").reason is Reason.FUEL  # the template alone would have a trillion
    started = time.perf_counter()
    assert refused(rival, "docs/spinner").reason is Reason.FUEL
    assert time.perf_counter() - started < 60, "a trillion would take longer"
    assert refused(rival, "docs/echo", "x" * 101).reason is Reason.INPUT
    assert invoke(acme, "docs/echo", "x" * 101).output == "x" * 101


def test_no_process_serves_two_tenants_and_idle_ones_are_retired(node: NodeProcess) -> None:
    served: dict[str, set[int]] = {}
    for _ in range(3):
        for tenant in ("acme", "third", "fourth"):
            invoke(node.agents(tenant), "docs/echo", "x")
        for worker in node.status().workers:
            if worker.tenant != "-":
                served.setdefault(worker.tenant, set()).add(worker.pid)
        node.until(
            "no worker but the spare", lambda each: all(one.tenant == "-" for one in each.workers) and each.workers
        )
    pids = [pid for tenant in ("acme", "third", "fourth") for pid in served[tenant]]
    assert len(pids) == len(set(pids)) >= 9
    spare = {worker.pid for worker in node.status().workers}
    assert not spare & set(pids)
    assert all(not os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110 -- no path of ours


def test_past_the_nodes_limit_invocations_wait_their_turn_and_too_many_are_sent_away(world: NodeWorld) -> None:
    settings = {"concurrency_max": "2", "queue_max": "6", "queue_wait_s_max": "5"}
    with (
        NodeProcess(world.installation, world.environment("n2", **settings)) as node,
        ThreadPoolExecutor(20) as threads,
    ):
        acme, rival = node.agents(), node.agents("rival")
        invoke(acme, "docs/echo", "x")
        invoke(rival, "docs/echo", "x")

        def nap(stub: Stub) -> tuple[str, float]:
            started = time.perf_counter()
            try:
                invoke(stub, "docs/nap")
            except grpc.RpcError as error:
                return str(from_rpc_error(error).reason), time.perf_counter() - started
            return "OK", time.perf_counter() - started

        calls: list[Future[tuple[str, float]]] = [threads.submit(nap, acme) for _ in range(12)]
        node.until("a queue", lambda each: each.queued == 6)
        late = threads.submit(nap, rival)
        outcomes = [each.result() for each in calls]
        assert late.result()[0] == "OK"
        kinds = [kind for kind, _ in outcomes]
        assert kinds.count("OK") == 7  # two ran, five waited; one gave way to the other tenant
        assert kinds.count("CONCURRENCY_EXHAUSTED") == 5
        assert late.result()[1] < max(took for kind, took in outcomes if kind == "OK")
        assert node.status().queued == 0


def test_a_template_that_kills_workers_is_quarantined_shown_and_released(world: NodeWorld) -> None:
    with NodeProcess(world.installation, world.environment("n3")) as node:
        acme, rival = node.agents(), node.agents("rival")
        for _ in range(3):
            call = running(acme, "docs/spinner")
            status = node.until(
                "a worker that runs it",
                lambda each: any(one.tenant == "acme" and one.in_flight for one in each.workers),
            )
            os.kill(next(one.pid for one in status.workers if one.tenant == "acme"), signal.SIGKILL)
            assert from_rpc_error(cast("grpc.RpcError", call.exception())).reason is Reason.CRASH
        status = node.until("quarantine", lambda each: each.quarantined)
        (held,) = status.quarantined
        assert (held.tenant, held.template, held.times) == ("acme", "docs/spinner@1.0.0", 1)
        assert held.remaining.seconds > 0
        error = refused(acme, "docs/spinner")
        assert error.reason is Reason.TEMPLATE_QUARANTINED
        assert error.retry_s is not None
        fine = running(rival, "docs/spinner")
        node.until("the other tenant's", lambda each: use(each, "rival").in_flight == 1)
        fine.cancel()
        service = node_pb2_grpc.NodeServiceStub(node.channel(node.installation.service("web")))
        with pytest.raises(grpc.RpcError) as denied:
            service.ReleaseQuarantine(node_pb2.ReleaseQuarantineRequest(), timeout=10)
        assert from_rpc_error(denied.value).reason is Reason.PERMISSION_DENIED
        request = node_pb2.ReleaseQuarantineRequest(tenant="acme", template="docs/spinner")
        assert node.operator().ReleaseQuarantine(request, timeout=10).released == 1
        assert not node.status().quarantined
        again = running(acme, "docs/spinner")
        node.until("it runs again", lambda each: use(each, "acme").in_flight == 1)
        again.cancel()


def test_a_tenant_in_use_gets_as_many_workers_as_it_should_have_at_least(world: NodeWorld) -> None:
    settings = {"workers_per_tenant": "2", "tenant_workers_max": "2", "spare_workers": "0"}
    with NodeProcess(world.installation, world.environment("n4", **settings)) as node:
        acme = node.agents()
        assert invoke(acme, "docs/echo", "x").output == "x"
        status = node.until("two workers", lambda each: use(each, "acme").workers == 2, timeout_s=60)
        assert use(status, "acme").workers_max == 2
        sleeping = [running(acme, "docs/sleeper")]
        node.until("work in one", lambda each: len(busy(each, "acme")) == 1)
        sleeping.append(running(acme, "docs/sleeper"))
        node.until("work in both", lambda each: len(busy(each, "acme")) == 2)
        for each in sleeping:
            each.cancel()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMITS_MAX", '{"feul": 5}'),
        ("LIMITS_MAX", '{"fuel": 0}'),
        ("TENANT_LIMITS_MAX", '{"acme": {"memory_bytes": 5}}'),
        ("TENANT_QUOTAS", '{"acme": {"in_flight": -1}}'),
        ("TENANT_QUOTAS", '{"acme": {"inflight": 1}}'),
    ],
)
def test_a_quota_that_means_nothing_stops_the_node(world: NodeWorld, name: str, value: str) -> None:
    variable = f"AGENTFACTORY_NODE_{name}"
    with pytest.raises(InvalidSettingsError) as wrong:
        NodeSettings.load({**world.environment(), variable: value})
    assert variable in wrong.value.message
