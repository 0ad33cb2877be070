"""SIGKILL at many moments: whatever a node acknowledged is there when it starts again, and nothing is half-done."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc
from agentfactory.node.v1 import node_pb2

from sandbox.engine import wat2wasm
from tests.control_plane_process import ControlPlaneProcess
from tests.integration.test_node_push import document
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

ROUNDS = 12
DEATHS = 6


def test_every_acknowledged_agent_is_there_after_a_kill(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path / "world")
    world.publish(world.command("docs/echo", guests.ECHO))
    world.seed()
    acknowledged: dict[str, str] = {}
    for round_ in range(ROUNDS):
        with NodeProcess(world.installation, world.environment()) as node:
            stub = node.agents()
            for name, config in acknowledged.items():
                assert stub.GetAgent(pb.GetAgentRequest(name=name), timeout=30).config == config
            listed = all_agents(stub)
            assert acknowledged.keys() <= listed
            assert node.status().agents == len(listed)
            stopped = threading.Event()

            def create(
                lane: int, *, stub: object = stub, round_: int = round_, stopped: threading.Event = stopped
            ) -> None:
                number = 0
                while not stopped.is_set():
                    number += 1
                    request = pb.CreateAgentRequest(
                        template="docs/echo",
                        agent_id=f"r{round_}-{lane}-{number}",
                        config=f'{{"n":{number}}}',
                        request_id=f"{round_}-{lane}-{number}",
                    )
                    with contextlib.suppress(grpc.RpcError, ValueError):  # ValueError: the channel is closed
                        made = stub.CreateAgent(request, timeout=10)  # type: ignore[attr-defined]
                        acknowledged[made.name] = made.config

            lanes = [threading.Thread(target=create, args=(lane,)) for lane in range(8)]
            for lane in lanes:
                lane.start()
            time.sleep(0.05 + 0.03 * round_)
            stopped.set()
            node.kill()
            for lane in lanes:
                lane.join()
    assert len(acknowledged) > ROUNDS


def all_agents(stub: agent_pb2_grpc.AgentServiceStub) -> set[str]:
    names: set[str] = set()
    page = stub.ListAgents(pb.ListAgentsRequest(page_size=1000), timeout=30)
    while True:
        names |= {each.name for each in page.agents}
        if not page.next_page_token:
            return names
        page = stub.ListAgents(pb.ListAgentsRequest(page_size=1000, page_token=page.next_page_token), timeout=30)


def test_a_kill_at_any_moment_of_an_activation_leaves_a_generation_that_serves(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path / "world")
    with ControlPlaneProcess(world.installation) as control_plane, control_plane.person("carol") as carol:
        environment = world.environment(control_plane=f"localhost:{control_plane.port}", reconnect_s_max="0.5")
        seen = 0
        for round_ in range(ROUNDS):
            wasm = wat2wasm(guests.say(1, f"round {round_}".encode()))
            with NodeProcess(world.installation, environment) as node:
                if round_:
                    status = node.until("what was active", lambda status: len(status.templates) == 1)
                    assert status.state == node_pb2.NODE_STATE_SERVING
                    assert status.generation >= seen
                    seen = status.generation
                limits = {"fuel": 50_000_000, "memory_bytes": 16 << 20}
                carol.publish(
                    world.installation,
                    document("docs/echo", f"1.{round_}.0", limits=limits),
                    wasm,
                    by=("alice", "bob"),
                )
                time.sleep(0.04 * round_)
                seen = max(seen, node.status().generation)
                node.kill()
            with NodeProcess(world.installation, world.environment()) as alone:
                status = alone.status()
                assert not status.state_reason or status.state == node_pb2.NODE_STATE_WAITING
                assert status.generation >= seen
                if status.templates:
                    answer = invoke(alone.agents(), "docs/echo")
                    version = int(answer.receipt.template.partition("@1.")[2].partition(".")[0])
                    assert answer.output == f"round {version}"
                alone.kill()


def test_a_node_that_loses_worker_after_worker_keeps_serving(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path / "world")
    world.publish(world.command("docs/echo", guests.ECHO))
    world.seed()
    with NodeProcess(world.installation, world.environment()) as node:
        stub = node.agents()
        answered = 0
        for _ in range(DEATHS):
            answered += invoke(stub, "docs/echo", "x").output == "x"
            for worker in node.status().workers:
                if worker.tenant == "acme":
                    kill(worker.pid)
        assert answered == DEATHS
        assert node.status().state == node_pb2.NODE_STATE_SERVING


def kill(pid: int) -> None:

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
