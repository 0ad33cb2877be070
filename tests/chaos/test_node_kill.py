"""SIGKILL at many moments: whatever a node acknowledged is there when it starts again, and nothing is half-done."""

import contextlib
import json
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


KV_GUEST = guests.command(  # "p" and a request puts, "g" and a request gets
    "(local $n i32) (i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 4096))"
    "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))"
    "(local.set $n (call $call"
    " (select (i32.const 256) (i32.const 272) (i32.eq (i32.load8_u (i32.const 2048)) (i32.const 112))) (i32.const 6)"
    " (i32.const 2049) (i32.sub (i32.load (i32.const 8)) (i32.const 1)) (i32.const 65536) (i32.const 32768)))"
    "(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (local.get $n))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))",
    rest='(data (i32.const 256) "kv.put") (data (i32.const 272) "kv.get")',
)
CLOCKS_S = 0.5
"""How far apart this process and a node may read the same clock, calls in between included."""


def test_entries_live_as_long_as_they_were_to_whatever_kills_the_node(tmp_path: Path) -> None:
    """What was acknowledged is there until its time is up, and not a moment longer: also while no node ran."""
    world = NodeWorld.make(tmp_path / "world")
    world.publish(world.command("docs/kv", KV_GUEST, grants={"kv": {"namespace": "notes", "bytes_max": 1_000_000}}))
    world.seed()
    entries: dict[str, tuple[float, float]] = {}
    """By key: before when it is there, and from when it is not."""
    judged = {"there": 0, "gone": 0, "gone within one life": 0}

    def call(stub: agent_pb2_grpc.AgentServiceStub, operation: str, **request: object) -> dict[str, object]:
        answer: dict[str, object] = json.loads(invoke(stub, "docs/kv", operation + json.dumps(request)).output)
        return answer

    def judge(stub: agent_pb2_grpc.AgentServiceStub, started: float) -> None:
        for key, (there_before, gone_from) in entries.items():
            asked = time.time()
            found = call(stub, "g", key=key)["ok"]
            answered = time.time()
            if answered < there_before:
                assert isinstance(found, dict), (key, answered, there_before)
                assert found["value"] == key
                judged["there"] += 1
            elif asked >= gone_from:
                assert found is None, (key, asked, gone_from)
                judged["gone"] += 1
                judged["gone within one life"] += gone_from > started

    for round_ in range(ROUNDS // 2):
        with NodeProcess(world.installation, world.environment()) as node:
            started, stub = time.time(), node.agents()
            judge(stub, started)
            for ttl_s in (1, 4, 15, 3_600, None):
                key = f"r{round_}-{ttl_s}"
                before = time.time()
                answer = call(stub, "p", key=key, value=key, **({} if ttl_s is None else {"ttl_s": ttl_s}))
                assert "ok" in answer, answer
                life_s = float("inf") if ttl_s is None else ttl_s
                entries[key] = (before + life_s - CLOCKS_S, time.time() + life_s + CLOCKS_S)
            time.sleep(0.3 * round_)
            judge(stub, started)
            node.kill()
    with NodeProcess(world.installation, world.environment()) as node:
        last = max(gone for _, gone in entries.values() if gone < time.time() + 10)
        time.sleep(max(0.0, last - time.time()))
        judge(node.agents(), 0.0)
    assert all(judged.values()), judged


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
