"""`agentctl up` as a user has it: Ctrl-C, the second start, a taken port; tables for people and pipes that close."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.factory import ECHO, Factory, Up, agentctl, write_template
from tests.isolation import guests

OPTIONS = ("--port", "0", "--key-kind", "ed25519")


def children_of(pid: int) -> list[int]:
    """Every process below ``pid``, workers included."""
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(below for one in found for below in children_of(one))]


def read(directory: Path, *arguments: str, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    """Run agentctl as a person does, without ``-o json``; stdout is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", "--dir", str(directory), *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_factory_stops_cleanly_and_comes_back_with_everything(tmp_path: Path) -> None:
    directory = tmp_path / "factory"
    first = Up(directory, *OPTIONS)
    assert first.process.poll() is None, first.told
    factory = Factory(directory)
    done = factory.publish(write_template(tmp_path / "echo", "echo", ECHO), "alice")
    assert done.status == 0, done.errors
    waited = factory.ctl("rollout", "status", "--wait", "60")
    assert waited.status == 0, waited.errors
    made = factory.ctl("agent", "create", "echo", "--suffix", "kept")
    assert made.status == 0, made.errors
    ran = factory.ctl("agent", "invoke", made.data["name"], "x").data["receipt"]["invocation_id"]

    second = Up(directory, *OPTIONS)
    assert second.interrupt() == 6
    assert "PORT_TAKEN" in second.told[-1]
    assert "running already" in second.told[-1]

    tables(directory, made.data["name"], ran)
    closed_pipe(directory)

    below = children_of(first.process.pid)
    assert len(below) >= 3, "control plane, node and at least one worker"
    assert first.interrupt() == 0, first.told
    assert first.told[-1] == "stopping"
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    stopped(directory)

    again = Up(directory, *OPTIONS)
    try:
        assert factory.ctl("rollout", "status", "--wait", "60").status == 0
        assert factory.ctl("agent", "invoke", made.data["name"], "y").data["output"] == "y"
        assert factory.ctl("invocation", "show", ran).data["outcome"] == "OK"
        assert [one["template"] for one in factory.ctl("change", "list").data] == ["dev/echo@1.0.0"]
        assert factory.ctl("doctor").status == 0
    finally:
        assert again.interrupt() == 0


def tables(directory: Path, agent: str, invocation: str) -> None:
    """Every reading command, for people: headings or text on stdout, no colours, nothing on stderr."""
    for arguments, status, words in (
        (("node", "list"), 0, ["ID", "CONNECTED", "node-1", "ACTIVE"]),
        (("node", "status"), 0, ["node-1  SERVING", "dev/echo@1.0.0", "approved by alice", "worker"]),
        (("template", "list"), 0, ["TEMPLATE", "dev/echo@1.0.0"]),
        (("template", "show", "dev/echo"), 0, ['"author": "alice"']),
        (("change", "list", "--state", "active"), 0, ["changes/1", "alice"]),
        (("change", "show", "1"), 0, ["What it can do, derived on this machine:", "limits/fuel", "What changes:"]),
        (("rollout", "status"), 0, ["GENERATION", "change changes/1"]),
        (("key", "list"), 0, ["ROLE", "timestamp", "offline"]),
        (("agent", "list"), 0, ["NAME", agent]),
        (("agent", "show", agent), 0, ['"template": "dev/echo"']),
        (("agent", "invoke", agent, "a\x1b[31mb"), 0, ["a\\x1b[31mb"]),
        (("agent", "invoke", agent, "x", "--stream"), 0, ["x"]),
        (("invocation", "list"), 0, ["OUTCOME", invocation]),
        (("invocation", "show", invocation), 0, ['"outcome": "OK"']),
        (("invocation", "logs", invocation), 0, []),
        (("doctor",), 0, ["ok       control-plane: ready"]),
    ):
        done = read(directory, *arguments)
        assert done.returncode == status, (arguments, done.stderr)
        for word in words:
            assert word in done.stdout, (arguments, done.stdout)
        assert "\x1b" not in done.stdout + done.stderr
    refused = read(directory, "agent", "list", "--template", "dev/none")
    assert (refused.returncode, refused.stdout) == (0, "")
    assert "no agents" in refused.stderr


def closed_pipe(directory: Path) -> None:
    """``agentctl … | head`` ends quietly, however early its reader leaves."""
    for arguments in (("node", "list"), ("template", "show", "dev/echo"), ("--help",)):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = read(directory, *arguments, stdout=writing)
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def stopped(directory: Path) -> None:
    """Everything that needs a server says that none answers; doctor says which, and how to start it."""
    assert agentctl(directory, "node", "list").status == 7
    assert agentctl(directory, "agent", "list").status == 7
    status = agentctl(directory, "node", "status")
    assert (status.status, status.data[0]["state"]) == (1, "UNREACHABLE")
    doctor = read(directory, "doctor")
    assert doctor.returncode == 1
    assert "problem  control-plane: does not run" in doctor.stdout
    assert "→ agentctl --dir" in doctor.stdout


def test_an_interrupt_while_keys_are_made_leaves_nothing_half_done(tmp_path: Path) -> None:
    import signal

    directory = tmp_path / "factory"
    # Whoever runs the tests in the background of a script has interrupts ignored, and children inherit that.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", f"{heard}; from client.agentctl.main import main; main()"),
            *("--dir", str(directory), "up", "--port", "0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("reviewers' keys"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--dir", "NONE", "up", "--nodes", "0"), 2, "--nodes"),
        (("--dir", "NONE", "up", "--threshold", "3"), 2, "--threshold"),
        (("--dir", "NONE", "init", "--domain", "docs"), 2, "INVALID_INSTALLATION"),
        (("template", "import", "-", "--domain", "Two Words"), 2, "--domain"),
        (("template", "run", "NONE", "--input", "x"), 2, "NONE"),
        (("agent", "invoke", "x", "@/does/not/exist"), 2, "cannot read @/does/not/exist"),
        (("revoke", "planet", "x", "--reason", "r"), 2, "planet"),
        (("change", "reject", "1"), 2, "--reason"),
        (("rollout", "status", "--wait", "-1"), 2, "--wait"),
        (("agent", "create", "x", "--config", "{'a': 1}"), 2, "expected a JSON object"),
        (("agent", "create", "x", "--config", '{"a": NaN}'), 2, "NaN"),
    ],
)
def test_usage_is_refused_before_anything_happens(
    tmp_path: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    words = [str(tmp_path / "none") if word == "NONE" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", *words],
        input="{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert says.replace("NONE", str(tmp_path / "none")) in done.stderr
    assert not list(tmp_path.iterdir())


BOUND = {
    "billing-token": {
        "origin": "http://billing.example:8080", "header": "Authorization",
        "methods": ["GET"], "path_prefixes": ["/v1"], "templates": ["dev/*"],
    }
}  # fmt: skip


def test_an_author_tries_a_grant_against_a_service_of_their_own_network(tmp_path: Path) -> None:
    directory = tmp_path / "factory"
    with threaded_http_server() as port:
        origin = f"http://billing.example:{port}"
        bindings = json.dumps({"billing-token": {**BOUND["billing-token"], "origin": origin}})
        allowed = ("--private", f"{origin}=127.0.0.1/32", "--node-settings", '{"worker_idle_s": 7.5}')
        first = Up(directory, *OPTIONS, "--secret-bindings", bindings, *allowed)
        try:
            assert first.process.poll() is None, first.told
            assert any("private_origins, worker_idle_s" in line for line in first.told), first.told
            factory = Factory(directory)
            factory.publish(fetching(tmp_path / "fetching", origin), "alice")
            assert factory.ctl("rollout", "status", "--wait", "60").status == 0
            assert asked(factory) == {"status": 200, "body": "from the service"}
        finally:
            assert first.interrupt() == 0, first.told

        others = Up(directory, *OPTIONS, "--secret-bindings", json.dumps(BOUND))
        assert others.interrupt() == 2
        assert "docs/grants.md" in "".join(others.told)
        for wrong, named in (({"worker_idel_s": 1}, "WORKER_IDEL_S"), ({"store_directory": "/tmp"}, "STORE_DIRECTORY")):
            refused = Up(directory, *OPTIONS, "--node-settings", json.dumps(wrong))
            assert refused.interrupt() != 0
            assert named in "".join(refused.told), refused.told

        again = Up(directory, *OPTIONS, "--secret-bindings", bindings)
        try:
            assert again.process.poll() is None, again.told
            assert asked(factory)["status"] == 200, "what was said the first time is kept, what was refused is not"
        finally:
            assert again.interrupt() == 0, again.told

    away = Up(directory, *OPTIONS, "--node-settings", '{"private_origins": null}')
    try:
        assert asked(factory) is None
    finally:
        assert away.interrupt() == 0, away.told


def asked(factory: Factory) -> Any:
    """Return what the agent was answered, None for a destination that was denied."""
    done = factory.ctl("agent", "invoke", "dev/fetching", "")
    assert done.status == 0, done.errors
    answer = json.loads(done.data["output"])
    if "error" in answer:
        assert answer["error"]["kind"] in {"denied", "failed"}, answer
        return None
    return {name: answer["ok"][name] for name in ("status", "body")}


def fetching(directory: Path, origin: str) -> Path:
    request = {"binding": "billing", "request": json.dumps({"method": "GET", "path": "/v1/x"})}
    grant = {"binding": "billing", "origin": origin, "methods": ["GET"], "path_prefixes": ["/v1"]}
    guest = guests.ask(b"http.fetch", json.dumps(request).encode())
    return write_template(directory, "fetching", guest, grants={"http": [grant]})


@contextmanager
def threaded_http_server() -> Iterator[int]:
    """Serve one answer on loopback; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the service")

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
