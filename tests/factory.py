"""A factory on this machine as a user has it: `agentctl up` started it, `agentctl` is how it is asked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine import wat2wasm

START_TIMEOUT_S = 90.0
ECHO = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start") (local $n i32)
    (loop $again
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $n (i32.load (i32.const 8)))
      (i32.store (i32.const 4) (local.get $n))
      (if (local.get $n) (then
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br $again))))))"""
SPIN = '(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))'


@dataclass(frozen=True)
class Done:
    status: int
    data: Any
    errors: str


@dataclass
class Factory:
    directory: Path

    def ctl(self, *arguments: str, stdin: str = "") -> Done:
        return agentctl(self.directory, *arguments, stdin=stdin)

    def publish(self, template: Path, *reviewers: str) -> Done:
        """Submit and approve; return the last approval."""
        submitted = self.ctl("template", "publish", str(template))
        assert submitted.status == 10, submitted.errors
        done = submitted
        for reviewer in reviewers:
            done = self.ctl("--as", reviewer, "change", "approve", submitted.data[0]["change"], "--yes")
        return done

    def wait_active(self, generation: int, *, timeout_s: float = START_TIMEOUT_S) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            (node,) = self.ctl("node", "list").data
            if node["generation"] >= generation and node["stage"] == "ACTIVE":
                return
            assert not node["refusal"], node["refusal"]
            time.sleep(0.1)
        pytest.fail(f"generation {generation} did not become active")


def write_template(directory: Path, name: str, wat: str, **fields: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "agent.wasm").write_bytes(wat2wasm(wat))
    document = {
        "schema": 1,
        "domain": "dev",
        "name": name,
        "version": "1.0.0",
        "role": "test",
        "description": "For tests.",
        "capabilities": ["echo"],
        "code": {"module": "agent.wasm", "abi": "command"},
        **fields,
    }
    path = directory / "template.json"
    path.write_text(json.dumps(document))
    return path


def agentctl(directory: Path, *arguments: str, stdin: str = "") -> Done:
    """Run agentctl with ``-o json``."""
    done = subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", "--dir", str(directory), "-o", "json", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)


class Up:
    """A running `agentctl up`; ``told`` is what it said until it was ready."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client.agentctl.main", "--dir", str(directory), "up", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        if self.process.stderr is None:
            raise RuntimeError("expected a pipe")
        self.told: list[str] = []
        for line in self.process.stderr:
            self.told.append(line.rstrip("\n"))
            if "Ctrl-C" in line:
                break

    def interrupt(self) -> int:
        """Press Ctrl-C and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=60)
        self.told += errors.splitlines()
        return self.process.returncode


@contextmanager
def running_factory(directory: Path, *options: str) -> Iterator[Factory]:
    """`agentctl up` on free ports, with keys that are made fast."""
    up = Up(directory, "--port", "0", "--key-kind", "ed25519", *options)
    try:
        if up.process.poll() is not None:
            raise RuntimeError(f"expected agentctl up to serve, got {up.told}")
        yield Factory(directory)
    finally:
        status = up.interrupt()
    if status:
        raise RuntimeError(f"expected agentctl up to end with 0, got {status}: {up.told}")
