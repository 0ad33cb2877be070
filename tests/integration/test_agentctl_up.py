"""`agentctl up` as a user has it: Ctrl-C, the second start, a taken port; tables for people and pipes that close."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factory import ECHO, Factory, Up, agentctl, write_template

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
