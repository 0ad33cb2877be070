"""The throw-away node: a real node process over a store of its own, and what its log and its pages say."""

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.processes import ServerProcess, free_ports, http_status
from client.selftest.world import ENVIRONMENT, NODE, TRUST_DOMAIN, World
from service.identity import Identity
from templates.repository import Generation

CANARY_VARIABLE: Final = "SELFTEST_CANARY"
_PACKAGE_ROOT: Final = Path(__file__).parent.parent.parent
_IMPORT_TIMEOUT_S: Final = 180.0
_START_TIMEOUT_S: Final = 240.0  # compiles every guest and a whole interpreter, on however slow a machine


@dataclass(frozen=True, slots=True)
class Imported:
    """How ``agentfactory-node --import-bundle`` ended: its status and the reason that it logged, if it refused."""

    status: int
    reason: str
    text: str


@dataclass(slots=True)
class Node:
    """One node over one store. Its ports are loopback's, and free a moment before.

    ``environment`` is what stands in that of its process beside the settings.
    """

    world: World
    name: str = NODE
    address: str = ""
    observation: str = ""
    canary: str = field(default_factory=lambda: f"canary-environment-{secrets.token_hex(16)}")
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: ServerProcess | None = None
    _log_read: int = 0

    @property
    def store(self) -> Path:
        return self.world.directory / "stores" / self.name

    @property
    def log(self) -> Path:
        return self.world.directory / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Of the front and broker; 0 when it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start and wait until it serves.

        Raises:
            ProcessFailedError: it ended, or was not ready in time.
        """
        self.launch().wait_ready(timeout_s=_START_TIMEOUT_S)

    def launch(self) -> ServerProcess:
        """Start without waiting for it to serve."""
        port, observation_port = free_ports(2)
        self.address, self.observation = f"localhost:{port}", f"127.0.0.1:{observation_port}"
        self._process = ServerProcess(
            self.name,
            "data_plane.main",
            environment={
                CANARY_VARIABLE: self.canary,
                **self.environment,
                **self._environment(port=port, observation_port=observation_port),
            },
            log=self.log,
            observation=self.observation,
        )
        self._process.start()
        return self._process

    def stop(self) -> None:
        """Let it drain and end it."""
        if self._process is not None:
            self._process.stop(timeout_s=10.0)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def is_ready(self) -> bool:
        """Whether it runs and says that it serves."""
        return bool(self.pid) and http_status(self.observation, "/readyz") == 200

    def new_log(self) -> list[str]:
        """Return the whole lines that were logged since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._log_read)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._log_read += len(whole)
        return whole.decode("utf-8", "backslashreplace").split("\n")[:-1]

    def import_bundle(self, generation: Generation | bytes) -> Imported:
        """Put a generation into the store, as ``agentfactory-node --import-bundle`` does; the node must not run."""
        directory = self.world.directory / "import"
        directory.mkdir(exist_ok=True)
        bundle = directory / f"{secrets.token_hex(8)}.bundle"
        data = generation if isinstance(generation, bytes) else generation.bundle().to_bytes()
        bundle.write_bytes(data)
        blobs = directory / "blobs"
        self.world.write_blobs(blobs)
        done = subprocess.run(
            [sys.executable, "-m", "data_plane.main", "--import-bundle", bundle, "--import-blobs", blobs],
            env=self._environment(port=0, observation_port=0),
            cwd=_PACKAGE_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        return Imported(done.returncode, _reason(text.splitlines()), text)

    async def imported(self, generation: Generation | bytes) -> Imported:
        """`import_bundle`, beside other work."""
        return await asyncio.to_thread(self.import_bundle, generation)

    def _environment(self, *, port: int, observation_port: int) -> dict[str, str]:
        tls = self.world.tls(Identity.node(TRUST_DOMAIN, self.name))
        values = {
            "listen_host": "127.0.0.1",
            "listen_port": str(port),
            "observation_host": "127.0.0.1",
            "observation_port": str(observation_port),
            "trust_domain": TRUST_DOMAIN,
            "environment": ENVIRONMENT,
            "tls_certificate_file": str(tls.certificate),
            "tls_key_file": str(tls.key),
            "tls_authorities_file": str(tls.authorities),
            "store_directory": str(self.store),
            "root_file": str(self.world.directory / "root.json"),
            "mode": "development",
            "worker_idle_s": "10",
            **self.settings,
        }
        return {f"AGENTFACTORY_NODE_{name.upper()}": value for name, value in values.items()}


def _reason(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        try:
            reason = json.loads(line).get("reason")
        except (ValueError, AttributeError):
            continue
        if reason:
            return str(reason)
    return ""
