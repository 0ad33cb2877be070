"""SIGKILL at many points while people submit and approve: what was acknowledged is there, and nothing is half done.

The moments are drawn from a seed and bounded; each round starts the real process over the same directory. What the
process says after each start is checked against what it said before, and by an ordinary node's verification.
"""

import hashlib
import threading
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2 as pb

from templates.bundle import decompress, read_bundle
from templates.trusted_set import Belief, Installation, accept
from tests import small_modules
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import ENVIRONMENT, LocalInstallation, make_installation

ROUNDS = 12
CODE = {"module": "tool.wasm", "abi": "command"}
FINAL = {pb.CHANGE_STATE_ACTIVE, pb.CHANGE_STATE_SUPERSEDED}

pytestmark = pytest.mark.chaos


class Memory:
    """What the control plane has acknowledged so far, in the words of its answers."""

    def __init__(self) -> None:
        self.changes: dict[str, pb.Change] = {}
        self.generation = 0
        self.next_version = 0

    def note(self, change: pb.Change) -> None:
        self.changes[change.name] = change
        self.generation = max(self.generation, change.generation)


def document(number: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "tool",
        "version": f"1.0.{number}",
        "domain": "docs",
        "role": "r",
        "description": "d",
        "code": CODE,
    }


def work_until_killed(plane: ControlPlaneProcess, installation: LocalInstallation, memory: Memory) -> None:
    """Submit and approve one version after the other until the connection breaks."""
    with plane.person("alice") as alice:
        try:
            for _ in range(50):
                memory.next_version += 1
                number = memory.next_version
                change = alice.submit(document(number), small_modules.command(pages=1 + number % 7))
                memory.note(change)
                memory.note(alice.approve(change, installation, "bob"))
                memory.note(alice.approve(change, installation, "carol"))
        except grpc.RpcError as error:
            if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                error.add_note(str([line for line in plane.lines if line.get("level") in {"warning", "error"}]))
                raise


def check(alice: PersonClient, installation: LocalInstallation, memory: Memory, directory: Path) -> None:
    listed: dict[str, pb.Change] = {}
    token = ""
    while True:
        page = alice.changes.ListChanges(pb.ListChangesRequest(page_size=200, page_token=token))
        listed |= {change.name: change for change in page.changes}
        token = page.next_page_token
        if not token:
            break
    for name, known in memory.changes.items():
        found = listed[name]
        assert (found.template, found.sha256, found.statement) == (known.template, known.sha256, known.statement)
        assert set(known.approvers) <= set(found.approvers), "an acknowledged signature is kept"
        if known.state in FINAL:
            assert found.state in FINAL
            assert found.generation == known.generation
    for change in listed.values():
        assert (change.state in FINAL) == (change.generation > 0) == (len(change.approvers) >= change.threshold), (
            f"{change.name} is half done"
        )
        fetched = list(alice.changes.FetchChange(pb.FetchChangeRequest(name=change.name)))
        code = b"".join(
            part.piece.data for part in fetched[1:] if part.piece.sha256 == fetched[0].header.blobs[0].sha256
        )
        assert hashlib.sha256(code).digest() == fetched[0].header.blobs[0].sha256

    trust = alice.keys.GetTrust(pb.GetTrustRequest())
    accepted = accept(
        read_bundle(decompress(trust.bundle_zstd)),
        belief=Belief(root=installation.trust.roots[0]),
        installation=Installation(node_id="node-1", environment=ENVIRONMENT, production=False),
        now=datetime.now(UTC),
    )
    assert accepted.generation >= memory.generation
    published = {change.template for change in listed.values() if change.generation}
    assert {str(each.ref) for each in accepted.templates.values()} <= published
    generations = alice.rollouts.ListGenerations(pb.ListGenerationsRequest(page_size=200)).generations
    assert [each.generation for each in generations] == list(range(accepted.generation, 0, -1)), "no gap, no repetition"
    assert not list((directory / "blobs" / "partial").iterdir())


@pytest.mark.timeout(600)
def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_half_done(tmp_path: Path) -> None:
    random = Random(20_260)
    installation = make_installation(tmp_path / "installation")
    directory = tmp_path / "installation" / "control-plane"
    memory = Memory()
    for _ in range(ROUNDS):
        plane = ControlPlaneProcess(installation).start()
        with plane.person("alice") as alice:
            check(alice, installation, memory, directory)
        killer = threading.Timer(random.uniform(0.005, 0.6), plane.kill)
        killer.start()
        work_until_killed(plane, installation, memory)
        killer.join()
    with ControlPlaneProcess(installation) as last, last.person("alice") as alice:
        check(alice, installation, memory, directory)
        last_version = memory.next_version + 1
        change = alice.publish(installation, document(last_version), small_modules.command(), by=["bob", "carol"])
        assert change.state == pb.CHANGE_STATE_ACTIVE
    assert memory.generation > 1, "some rounds got somewhere"


@pytest.mark.timeout(600)
def test_killed_while_it_starts(tmp_path: Path) -> None:
    random = Random(7)
    installation = make_installation(tmp_path / "installation")
    for _ in range(10):
        plane = ControlPlaneProcess(installation)
        plane.launch()
        timer = threading.Timer(random.uniform(0.3, 2.5), plane.kill)
        timer.start()
        timer.join()
    with ControlPlaneProcess(installation) as plane, plane.person("alice") as alice:
        check(alice, installation, Memory(), tmp_path / "installation" / "control-plane")
