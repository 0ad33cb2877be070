"""A real ``agentfactory-control-plane``, and what persons say to it: for integration, chaos and node tests."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from agentfactory.admin.v1 import access_pb2_grpc, admin_pb2, admin_pb2_grpc, policy_pb2_grpc

from service.tls import TlsFiles, channel_credentials
from templates.approval import merge, sign
from tests.installation import LocalInstallation

REPOSITORY = Path(__file__).parent.parent
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 60.0


@dataclass(slots=True)
class ControlPlaneProcess:
    """Started by `start`, or as a context manager; `lines` are its JSON log lines so far."""

    installation: LocalInstallation
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    observation_port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    _started: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def start(self) -> Self:
        """Start and wait until it serves; raise RuntimeError with its log when it does not."""
        self.launch()
        if not self._started.wait(START_TIMEOUT_S) or not self.port:
            self.kill()
            raise RuntimeError(f"expected a control plane that serves, got {self.lines}")
        return self

    def launch(self) -> None:
        """Start without waiting."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTFACTORY_")}
        environment = self.installation.control_plane_environment(**self.settings)
        self.port = 0
        self._started.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.main"],
            cwd=REPOSITORY,
            env={**inherited, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stderr is None:
            raise RuntimeError("expected a pipe")
        with process.stderr:
            for line in process.stderr:
                try:
                    parsed = json.loads(line)
                except json.JSONDecodeError:
                    parsed = {"event": line.rstrip("\n")}
                self.lines.append(parsed)
                if parsed.get("event") == "control_plane_started":
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
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.wait()

    def stop(self) -> int:
        """SIGTERM, and wait."""
        if self.process is None:
            raise RuntimeError("expected a process that was started")
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def channel(self, files: TlsFiles) -> grpc.Channel:
        return grpc.secure_channel(f"localhost:{self.port}", channel_credentials(files))

    def aio_channel(self, files: TlsFiles) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(f"localhost:{self.port}", channel_credentials(files))

    def person(self, name: str) -> "PersonClient":
        return PersonClient(self.channel(self.installation.person(name)))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.lines if line.get("event") == name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class PersonClient:
    """One person's connection; a context manager."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.templates = admin_pb2_grpc.TemplateServiceStub(channel)
        self.changes = admin_pb2_grpc.ChangeServiceStub(channel)
        self.rollouts = admin_pb2_grpc.RolloutServiceStub(channel)
        self.fleet = admin_pb2_grpc.FleetServiceStub(channel)
        self.keys = admin_pb2_grpc.KeyServiceStub(channel)
        self.policies = policy_pb2_grpc.PolicyServiceStub(channel)
        self.access = access_pb2_grpc.AccessServiceStub(channel)

    def submit(
        self,
        document: Mapping[str, Any] | bytes,
        *code: bytes,
        request_id: str = "",
        validate_only: bool = False,
        sha256: Sequence[bytes] | None = None,
        piece_bytes: int = 256 * 1024,
    ) -> admin_pb2.Change:
        """Submit; ``sha256`` lies about the code's digests."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digests = sha256 if sha256 is not None else [hashlib.sha256(each).digest() for each in code]
        header = admin_pb2.SubmitHeader(
            document=data,
            filename="template.json",
            blobs=[
                admin_pb2.BlobHeader(sha256=digest, length=len(each))
                for digest, each in zip(digests, code, strict=True)
            ],
            validate_only=validate_only,
            request_id=request_id,
        )

        def parts() -> Iterator[admin_pb2.SubmitTemplateRequest]:
            yield admin_pb2.SubmitTemplateRequest(header=header)
            for each in code:
                for start in range(0, len(each), piece_bytes):
                    yield admin_pb2.SubmitTemplateRequest(piece=each[start : start + piece_bytes])

        return self.templates.SubmitTemplate(parts(), timeout=CALL_TIMEOUT_S)

    def approve(self, change: admin_pb2.Change, installation: LocalInstallation, *persons: str) -> admin_pb2.Change:
        """Sign with the keys of ``persons`` and hand the signatures in, all in one envelope."""
        envelopes = [sign(change.statement, installation.reviewers[person]) for person in persons]
        merged = envelopes[0]
        for each in envelopes[1:]:
            merged = merge(merged, each)
        return self.changes.ApproveChange(
            admin_pb2.ApproveChangeRequest(name=change.name, envelope=merged.to_bytes()), timeout=CALL_TIMEOUT_S
        )

    def publish(
        self, installation: LocalInstallation, document: Mapping[str, Any], *code: bytes, by: Sequence[str]
    ) -> admin_pb2.Change:
        """Submit and approve with the signatures of ``by``."""
        return self.approve(self.submit(document, *code), installation, *by)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.channel.close()
