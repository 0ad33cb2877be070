"""A real ``agentfactory-node``, and what services and persons say to it: for tests and benches."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from agentfactory.agent.v1 import agent_pb2, agent_pb2_grpc
from agentfactory.node.v1 import node_pb2, node_pb2_grpc

from service.tls import TlsFiles, channel_credentials
from tests.installation import LocalInstallation

REPOSITORY = Path(__file__).parent.parent
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0


@dataclass(slots=True)
class NodeProcess:
    """Started by `start`, or as a context manager; `lines` are its JSON log lines so far."""

    installation: LocalInstallation
    environment: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ("-m", "data_plane.main")
    port: int = 0
    observation_port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    process: "subprocess.Popen[str] | None" = None
    _started: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None
    _channels: list[grpc.Channel] = field(default_factory=list)

    def start(self) -> Self:
        """Start and wait until it listens; raise RuntimeError with its log when it does not."""
        self.launch()
        if not self._started.wait(START_TIMEOUT_S) or not self.port:
            self.kill()
            raise RuntimeError(f"expected a node that listens, got {self.lines}")
        return self

    def launch(self) -> None:
        """Start without waiting."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTFACTORY_")}
        self.port = 0
        self._started.clear()
        self.process = subprocess.Popen(
            [sys.executable, *self.program, *self.arguments],
            cwd=REPOSITORY,
            env={**inherited, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}", **self.environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        if process.stderr is None:
            raise RuntimeError("expected a pipe")
        with process.stderr:
            for line in process.stderr:
                try:
                    parsed = json.loads(line)
                except json.JSONDecodeError:
                    parsed = {"event": line.rstrip("\n")}
                self.lines.append(parsed)
                if parsed.get("event") == "node_started":
                    self.port, self.observation_port = parsed["port"], parsed["observation_port"]
                    self._started.set()
        self._started.set()

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait for its end and return its exit status; all of its lines have been read then."""
        if self.process is None or self._reader is None:
            raise RuntimeError("expected a process that was started")
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.wait()

    def stop(self) -> int:
        """SIGTERM, and wait."""
        if self.process is None:
            raise RuntimeError("expected a process that was started")
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    def channel(self, files: TlsFiles) -> grpc.Channel:
        channel = grpc.secure_channel(self.target, channel_credentials(files))
        self._channels.append(channel)
        return channel

    def aio_channel(self, files: TlsFiles) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self.target, channel_credentials(files))

    def agents(self, tenant: str = "acme", name: str = "web") -> agent_pb2_grpc.AgentServiceStub:
        return agent_pb2_grpc.AgentServiceStub(self.channel(self.installation.service(name, tenant)))

    def operator(self, person: str = "alice") -> node_pb2_grpc.NodeServiceStub:
        return node_pb2_grpc.NodeServiceStub(self.channel(self.installation.person(person)))

    def status(self) -> node_pb2.NodeStatus:
        return self.operator().GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=CALL_TIMEOUT_S)

    def until(self, what: str, true: Any, *, timeout_s: float = 30.0) -> node_pb2.NodeStatus:
        """Wait until ``true(status)``; raise RuntimeError with the status and the log when it does not come."""
        deadline = time.monotonic() + timeout_s
        status = self.status()
        while not true(status):
            if time.monotonic() > deadline:
                raise RuntimeError(f"expected {what}, got {status}, {self.lines[-20:]}")
            time.sleep(0.05)
            status = self.status()
        return status

    def observed(self, path: str) -> tuple[int, bytes]:
        """GET a page of the loopback observer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.observation_port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.lines if line.get("event") == name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def invoke(
    stub: agent_pb2_grpc.AgentServiceStub, template: str, text: str = "", **limits: int
) -> agent_pb2.InvokeResponse:
    """Run a template once."""
    request = agent_pb2.InvokeTemplateRequest(template=template, input=text)
    if limits:
        request.limits.CopyFrom(agent_pb2.Limits(**limits))
    return stub.InvokeTemplate(request, timeout=CALL_TIMEOUT_S)
