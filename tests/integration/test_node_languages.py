"""JavaScript source in a real node, with its grants and its failures."""

import json
from collections.abc import Iterator

import grpc
import pytest

from service.status import from_rpc_error
from templates.reasons import Reason
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

pytestmark = pytest.mark.toolchain

SCRIPT = """
import { config, kv, log } from "agentfactory";

export async function process(text) {
  if (text === "boom") return text.missing.deep;
  await new Promise((resolve) => setTimeout(resolve, 5));
  const runs = kv.update("runs", (value) => String(Number(value ?? "0") + 1));
  log.info("ran", { text });
  return { text, runs: Number(runs.value), words: config.words };
}
"""
KV = {"kv": {"namespace": "notes", "bytes_max": 400}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("languages"))
    world.publish(
        world.source(
            "docs/script", SCRIPT, image="quickjs", file="agent.js", grants=KV, default_config={"words": 3}
        ),
    )  # fmt: skip
    world.seed()
    return world


@pytest.fixture(scope="module")
def node(world: NodeWorld) -> Iterator[NodeProcess]:
    with NodeProcess(world.installation, world.environment()) as node:
        yield node


def test_javascript_answers_with_its_grants(node: NodeProcess) -> None:
    answers = [json.loads(invoke(node.agents(), "docs/script", "hi").output) for _ in range(2)]
    assert answers == [{"text": "hi", "runs": runs, "words": 3} for runs in (1, 2)]


def test_a_timer_of_javascript_waits_on_the_nodes_clock(node: NodeProcess) -> None:
    usage = invoke(node.agents(), "docs/script", "hi").receipt.usage
    assert usage.wall.ToTimedelta().total_seconds() >= 0.005


def test_javascript_fails_with_the_authors_line(node: NodeProcess) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        invoke(node.agents(), "docs/script", "boom")
    told = from_rpc_error(failed.value)
    assert told.reason is Reason.GUEST_ERROR
    assert "cannot read property 'deep' of undefined (line 5)" in told.message
