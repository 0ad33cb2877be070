"""What a person does with agentctl, and a program with the client library, is one trace with what comes of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from client.agent_factory import AgentFactory
from client.aio import AsyncAgentFactory
from sandbox.engine import wat2wasm
from service.telemetry import ServiceName, SpanName
from tests.isolation import guests
from tests.otlp_collector import Collected, CollectedSpan, collecting
from tests.recorded_tracing import PARENT, TRACE

COMMAND = [sys.executable, "-m", "client.agentctl.main"]
TELEMETRY = ("OTEL_", "TRACEPARENT")
SCRIPT, SYNC, ASYNC = "Script", "Sync", "Async"


@dataclass(frozen=True, slots=True)
class Story:
    """What the collector has after everything ended; ``traces`` are those that the client's side chose."""

    collected: Collected
    directory: Path
    traces: Mapping[str, str]
    parents: Mapping[str, str]

    def calls(self, trace_id: str) -> list[CollectedSpan]:
        found = [each for each in self.collected.named(SpanName.RPC_SERVER) if each.trace_id == trace_id]
        assert found
        return found


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(TELEMETRY)} | variables


def agentctl(directory: Path, *arguments: str, expected: int = 0, **variables: str) -> str:
    done = subprocess.run(
        [*COMMAND, "--dir", str(directory), "-o", "json", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return done.stdout


def template(directory: Path) -> Path:
    (directory / "agent.wasm").write_bytes(wat2wasm(guests.ECHO))
    document = {"schema": 1, "domain": "dev", "name": "echo", "version": "1.0.0", "role": "r", "description": "d"}
    path = directory / "template.json"
    path.write_text(json.dumps({**document, "code": {"module": "agent.wasm", "abi": "command"}}))
    return path


def wait_until_active(directory: Path, *, generation: int) -> None:
    until = time.monotonic() + 60
    while True:
        (node,) = json.loads(agentctl(directory, "node", "list"))
        if (node["generation"], node["stage"]) == (generation, "ACTIVE"):
            return
        assert time.monotonic() < until, node
        time.sleep(0.1)


async def ask_asynchronously(directory: Path) -> str:
    async with AsyncAgentFactory.connect(profile=directory) as factory:
        return (await factory.invoke_template("dev/echo", "async")).output


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("factory") / "installation"
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("an application")
    traces, parents = {SCRIPT: TRACE}, {SCRIPT: PARENT[36:52]}
    with collecting() as collected:
        collector: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint}
        with subprocess.Popen(
            [*COMMAND, "--dir", str(directory), "up", "--port", "0", "--key-kind", "ed25519"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**collector),
        ) as up:
            assert up.stderr is not None
            assert any("Ctrl-C" in line for line in up.stderr)
            path = template(tmp_path_factory.mktemp("template"))
            (change,) = json.loads(agentctl(directory, "template", "publish", str(path), expected=10, **collector))
            agentctl(directory, "--as", "alice", "change", "approve", change["change"], "--yes", **collector)
            wait_until_active(directory, generation=2)
            agentctl(directory, "change", "show", "changes/99", expected=4, **collector)
            agentctl(directory, "node", "status", TRACEPARENT=PARENT)
            agentctl(directory, "change", "list", TRACEPARENT="not one", OTEL_SDK_DISABLED="true", **collector)
            for name in (SYNC, ASYNC):
                with tracer.start_as_current_span(name) as span:
                    context = span.get_span_context()
                    traces[name], parents[name] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
                    if name == SYNC:
                        with AgentFactory.connect(profile=directory) as factory:
                            assert factory.invoke_template("dev/echo", "sync").output == "sync"
                    else:
                        assert asyncio.run(ask_asynchronously(directory)) == "async"
            up.send_signal(signal.SIGINT)
            assert up.wait(60) == 0
        yield Story(collected, directory, traces, parents)


@pytest.mark.parametrize(
    ("command", "status", "method"),
    [("template publish", 10, "SubmitTemplate"), ("change approve", None, "ApproveChange")],
)
def test_a_command_begins_a_trace_that_its_calls_belong_to(
    story: Story, command: str, status: int | None, method: str
) -> None:
    span = story.collected.one(SpanName.COMMAND, command=command)
    assert (span.service, span.kind, span.parent_id, span.failed) == (ServiceName.AGENTCTL, "CLIENT", "", False)
    assert span.attributes.get("exit_code") == status
    below = story.collected.below(span)
    assert {each.name for each in below} == {SpanName.RPC_SERVER}
    assert method in {str(each.attributes["method"]).rpartition("/")[2] for each in below}


def test_a_reviewers_command_leads_to_the_swap_on_the_node(story: Story) -> None:
    approve = story.collected.one(SpanName.COMMAND, command="change approve")
    (activate,) = [
        each for each in story.collected.named(SpanName.UPDATE_ACTIVATE) if each.trace_id == approve.trace_id
    ]
    assert story.collected.path(activate)[0] == SpanName.COMMAND
    assert (activate.service, activate.instance) == (ServiceName.NODE, "node-1")


def test_a_command_that_fails_says_its_reason_and_not_its_arguments(story: Story) -> None:
    span = story.collected.one(SpanName.COMMAND, command="change show")
    assert (span.failed, span.message) == (True, "CHANGE_UNKNOWN")
    assert "changes/99" not in str(span)


def test_the_processes_that_up_starts_send_to_the_same_collector(story: Story) -> None:
    assert {each.service for each in story.collected.spans} == set(ServiceName)
    assert set(story.collected.metrics) == {ServiceName.CONTROL_PLANE, ServiceName.NODE}
    assert story.collected.one(SpanName.COMMAND, command="up").parent_id == ""


@pytest.mark.parametrize("name", [SCRIPT, SYNC, ASYNC])
def test_what_a_script_or_a_program_is_in_is_continued(story: Story, name: str) -> None:
    assert {each.parent_id for each in story.calls(story.traces[name])} == {story.parents[name]}


def test_without_a_collector_a_command_makes_no_span(story: Story) -> None:
    commands = [each.attributes["command"] for each in story.collected.named(SpanName.COMMAND)]
    assert sorted(map(str, commands)) == ["change approve", "change show", "template publish", "up"]


def test_the_logs_hold_nothing_but_json(story: Story) -> None:
    logs = sorted((story.directory / "logs").glob("*.log"))
    assert [log.name for log in logs] == ["control-plane.log", "node-1.log"]
    for log in logs:
        lines = log.read_text().splitlines()
        assert all("event" in json.loads(line) for line in lines)
