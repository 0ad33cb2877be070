"""Server processes that agentctl starts: logs to files, readiness by /readyz, stopped by SIGTERM, then SIGKILL."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from templates.reasons import AgentFactoryError, Reason

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 25.0
_POLL_S: Final = 0.05
_TAIL_LINES: Final = 12


class ProcessFailedError(AgentFactoryError):
    """A server ended or was not ready in time; the message ends with the last lines of its log."""

    reason = Reason.PROCESS_FAILED


class ServerProcess:
    """One server as a child process."""

    def __init__(self, name: str, module: str, *, environment: Mapping[str, str], log: Path, observation: str) -> None:
        self.name = name
        self._module = module
        self._environment = environment
        self._log = log
        self._observation = observation
        self._log_from = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 when it is not running."""
        return self._child.pid if self._child and self._child.poll() is None else 0

    def start(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        kept["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "ERROR")  # the log expects nothing but JSON
        with self._log.open("ab") as log:
            self._log_from = log.tell()
            self._child = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env={**kept, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,  # the terminal's interrupt reaches agentctl only, which stops all in order
            )

    def wait_ready(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once /readyz answers 200.

        Raises:
            ProcessFailedError: it ended, or was not ready in time.
        """
        self._wait("/readyz", timeout_s)

    def wait_alive(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once /healthz answers 200: it runs, though it may have nothing to serve yet."""
        self._wait("/healthz", timeout_s)

    def _wait(self, path: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self._child is None or self._child.poll() is not None:
                status = self._child.returncode if self._child else "never started"
                raise ProcessFailedError(f"{self.name} ended ({status}):\n{self.tail()}")
            if http_status(self._observation, path) == http.HTTPStatus.OK:
                return
            time.sleep(_POLL_S)
        raise ProcessFailedError(f"{self.name} did not answer {path} within {timeout_s:.0f} s:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of the log, of this start alone: earlier ones wrote to the same file."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_from)
                return "\n".join(log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
        except OSError:
            return "(no log)"

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._child and self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Let it drain after SIGTERM; SIGKILL when it takes longer than ``timeout_s``."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self._child is not None and self._child.poll() is None


def http_status(address: str, path: str) -> int:
    """Return the status of a GET on ``host:port``, 0 when nothing answers."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@contextlib.contextmanager
def running(processes: Sequence[ServerProcess]) -> Iterator[None]:
    """Stop ``processes`` on the way out, in reverse order."""
    try:
        yield
    finally:
        for process in processes:
            if process.is_running() and process.pid:
                os.kill(process.pid, signal.SIGTERM)
        for process in reversed(processes):
            process.stop()


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def is_free(port: int) -> bool:
    """Whether nothing listens on ``port`` of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
