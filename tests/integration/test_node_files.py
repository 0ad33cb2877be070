"""A real node with an operator's exports: agents of both ABIs read them, keep scratch, and reach nothing else."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from agentfactory.agent.v1 import agent_pb2 as pb

from tests.c_modules import c_module
from tests.node_process import CALL_TIMEOUT_S, NodeProcess, invoke
from tests.node_world import NodeWorld

pytestmark = pytest.mark.toolchain

CORPUS = {"mount": "/data", "export": "corpus", "mode": "ro"}
SCRATCH = {"mount": "/scratch", "export": "scratch", "mode": "rw"}
BRIEF = {"mount": "/brief", "export": "brief", "mode": "rw"}
FOREIGN = {"mount": "/foreign", "export": "foreign", "mode": "ro"}
ABSENT = {"mount": "/absent", "export": "absent", "mode": "ro"}

PYTHON = dedent("""
    import os
    from pathlib import Path

    def attempt(path, *arguments):
        try:
            with open(path, *arguments) as file:
                return file.read()
        except OSError as error:
            return os.strerror(error.errno)

    def process(text):
        notes = Path("/scratch/notes.txt")
        with notes.open("a") as file:
            file.write(text)
        brief = Path("/brief/once")
        answer = {
            "listed": sorted(os.listdir("/data")),
            "read": Path("/data/chapters/one.txt").read_text(),
            "notes": notes.read_text(),
            "brief": brief.exists(),
            "foreign": attempt("/foreign/secret"),
            "absent": attempt("/absent/secret"),
            "link": attempt("/data/link"),
            "up": attempt("/data/../../etc/passwd"),
            "host": attempt("/etc/passwd"),
            "write": attempt("/data/new", "w"),
        }
        brief.write_text("now")
        return answer
""")

C = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  char line[100] = "", kept[200] = "", input[50] = "";
  size_t length = fread(input, 1, sizeof input - 1, stdin);
  FILE *file = fopen("/data/chapters/one.txt", "r");
  if (!file || !fgets(line, sizeof line, file)) return 1;
  fclose(file);
  file = fopen("/scratch/notes.txt", "a");
  if (!file || fwrite(input, 1, length, file) != length || fclose(file)) return 2;
  file = fopen("/scratch/notes.txt", "r");
  if (!file || !fread(kept, 1, sizeof kept - 1, file)) return 3;
  fclose(file);
  const char *foreign = fopen("/foreign/secret", "r") ? "open" : strerror(errno);
  printf("%s|%s|%s", line, kept, foreign);
  return 0;
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("world"))
    python = world.source("docs/reader", PYTHON, grants={"files": [CORPUS, SCRATCH, BRIEF, FOREIGN, ABSENT]})
    command = world.module("docs/command", c_module(C), abi="command", grants={"files": [CORPUS, SCRATCH, FOREIGN]})
    runtime = next(each for ref, each in world.library.items() if ref.domain == "images")
    world.publish(python, command, runtime)
    world.seed()
    return world


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    corpus, foreign = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("foreign")
    (corpus / "chapters").mkdir()
    (corpus / "chapters" / "one.txt").write_text("It was a dark and stormy night.")
    (corpus / "link").symlink_to("/etc/passwd")
    (foreign / "secret").write_text("of another tenant")
    return {
        "corpus": {"path": str(corpus), "tenants": ["*"]},
        "foreign": {"path": str(foreign), "tenants": ["rival"]},
        "scratch": {"scratch_bytes_max": 1_000},
        "brief": {"lifetime": "invocation"},
    }


@pytest.fixture(scope="module")
def node(world: NodeWorld, exports: dict[str, Any]) -> Iterator[NodeProcess]:
    environment = world.environment(file_exports=json.dumps(exports))
    with NodeProcess(world.installation, environment) as node:
        yield node


def ask(node: NodeProcess, text: str, *, agent: str = "", tenant: str = "acme") -> dict[str, Any]:
    stub = node.agents(tenant)
    if not agent:
        answer: dict[str, Any] = json.loads(invoke(stub, "docs/reader", text).output)
        return answer
    request = pb.InvokeAgentRequest(name=agent, input=text)
    reply: dict[str, Any] = json.loads(stub.InvokeAgent(request, timeout=CALL_TIMEOUT_S).output)
    return reply


def create(node: NodeProcess, name: str) -> str:
    request = pb.CreateAgentRequest(template="docs/reader", agent_id=name)
    return str(node.agents().CreateAgent(request, timeout=CALL_TIMEOUT_S).name)


def test_a_python_agent_reads_the_corpus_and_reaches_nothing_else(node: NodeProcess) -> None:
    answer = ask(node, "a", tenant="first")
    assert answer == {
        "listed": ["chapters", "link"],
        "read": "It was a dark and stormy night.",
        "notes": "a",
        "brief": False,
        "foreign": "Permission denied",
        "absent": "Permission denied",
        "link": "Symbolic link loop",
        "up": "Operation not permitted",
        "host": "No such file or directory",
        "write": "Read-only file system",
    }


def test_scratch_stays_with_its_owner_and_a_brief_one_does_not_stay(node: NodeProcess) -> None:
    one, other = create(node, "one"), create(node, "other")
    assert ask(node, "x", agent=one)["notes"] == "x"
    again = ask(node, "y", agent=one)
    assert (again["notes"], again["brief"]) == ("xy", False)
    assert ask(node, "z", agent=other)["notes"] == "z"
    assert ask(node, "t", tenant="second")["notes"] == "t"
    assert ask(node, "u", tenant="third")["notes"] == "u"
    brief = scratch_of(node) / "invocations"
    deadline = time.monotonic() + 30
    while list(brief.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(brief.iterdir()) == []


def test_a_tenant_whom_an_export_is_for_reads_it(node: NodeProcess) -> None:
    assert ask(node, "", tenant="rival")["foreign"] == "of another tenant"


def test_the_scratch_of_a_deleted_agent_goes_with_it(node: NodeProcess) -> None:
    name = create(node, "mortal")
    ask(node, "left behind", agent=name)
    node.agents().DeleteAgent(pb.DeleteAgentRequest(name=name), timeout=CALL_TIMEOUT_S)
    assert not list((scratch_of(node) / "agents" / "scratch" / "acme" / "docs" / "reader").glob("mortal.*"))
    assert ask(node, "anew", agent=create(node, "mortal"))["notes"] == "anew"


def test_a_command_from_c_reads_and_writes_with_stdio(node: NodeProcess) -> None:
    stub = node.agents("cees")
    line = "It was a dark and stormy night."
    assert invoke(stub, "docs/command", "one ").output == f"{line}|one |Permission denied"
    assert invoke(stub, "docs/command", "two ").output == f"{line}|one two |Permission denied"


def test_the_receipt_says_how_much_was_read_and_written(node: NodeProcess) -> None:
    stub = node.agents("counted")
    receipt = invoke(stub, "docs/command", "twelve bytes").receipt
    assert receipt.usage.file_written_bytes == len("twelve bytes")
    assert receipt.usage.file_read_bytes == len("It was a dark and stormy night.") + len("twelve bytes")
    stated = json.loads(receipt.statement)["usage"]
    assert (stated["file_read_bytes"], stated["file_written_bytes"]) == (43, 12)
    looked_up = stub.GetInvocation(pb.GetInvocationRequest(invocation_id=receipt.invocation_id), timeout=CALL_TIMEOUT_S)
    assert looked_up.receipt.statement == receipt.statement


def test_files_cost_no_host_calls_and_hold_no_descriptors(node: NodeProcess) -> None:
    record = invoke(node.agents(), "docs/reader", "").receipt
    assert record.usage.host_calls == 0
    deadline = time.monotonic() + 30
    while held_files(node) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert held_files(node) == []
    status, page = node.observed("/metrics")
    assert status == 200
    assert b'agentfactory_host_calls_total{interface="files",result="ok"}' in page
    assert b'agentfactory_host_calls_total{interface="files",result="denied"}' in page, "of the other tenant's export"


def test_a_killed_node_finds_scratch_again_and_clears_what_was_brief(world: NodeWorld, node: NodeProcess) -> None:
    kept = "x" * 40
    assert invoke(node.agents("durable"), "docs/command", kept).output.endswith(f"|{kept}|Permission denied")
    node.kill()
    (scratch_of(node) / "invocations" / "orphan").mkdir()
    lost = scratch_of(node) / "agents" / "scratch" / "acme" / "docs" / "reader" / "never-made.1700000000000000"
    lost.mkdir(parents=True)
    with NodeProcess(world.installation, node.environment) as again:
        assert not list((scratch_of(node) / "invocations").iterdir())
        assert not lost.exists()
        answer = invoke(again.agents("durable"), "docs/command", "y").output
        assert answer.endswith(f"|{kept}y|Permission denied")


def scratch_of(node: NodeProcess) -> Path:
    return Path(node.environment["AGENTFACTORY_NODE_STORE_DIRECTORY"]) / "agent-files"


def held_files(node: NodeProcess) -> list[str]:
    """What the node holds open of exports and scratch."""
    assert node.process is not None
    exports = json.loads(node.environment["AGENTFACTORY_NODE_FILE_EXPORTS"])
    roots = (exports["corpus"]["path"], exports["foreign"]["path"], str(scratch_of(node)))
    found = []
    for link in Path(f"/proc/{node.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(roots)]
