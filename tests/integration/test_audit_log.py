"""The audit log over the wire: pages, export, verification, and nodes that remember what they were shown."""

import json
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2
from agentfactory.admin.v1 import audit_pb2 as pb
from agentfactory.admin.v1.audit_pb2_grpc import AuditServiceStub
from agentfactory.distribution.v1 import distribution_pb2
from agentfactory.distribution.v1.distribution_pb2_grpc import DistributionServiceStub
from agentfactory.node.v1 import node_pb2

from client.audit_log import verify_export
from service.status import from_rpc_error
from templates.audit_checkpoint import read_checkpoint
from templates.audit_entry import AuditInvalidError, entry_digest
from templates.audit_verification import FindingKind
from templates.reasons import Reason
from tests.audit_lines import audit_entries
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation
from tests.node_process import NodeProcess
from tests.node_world import NodeWorld

DOCUMENT: dict[str, Any] = {"schema": 1, "version": "1.0.0", "domain": "docs", "role": "r", "description": "d"}
QUICK = {"audit_checkpoint_s": "0.2", "debounce_ms": "0"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("log") / "installation")


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"audit_checkpoint_s": "3600"}) as started:
        yield started


@pytest.fixture
def alice(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with plane.person("alice") as client:
        yield client


def exported(client: PersonClient, **wanted: Any) -> list[bytes]:
    request = pb.ExportAuditRequest(filter=pb.AuditFilter(**wanted))
    data = b"".join(each.lines for each in AuditServiceStub(client.channel).ExportAudit(request, timeout=60))
    return data.splitlines()


def test_lists_come_in_pages_newest_first_and_entries_by_name(alice: PersonClient) -> None:
    for number in range(5):
        alice.submit({**DOCUMENT, "name": f"n{number}"})
    stub = AuditServiceStub(alice.channel)
    seen: list[dict[str, Any]] = []
    token = ""
    while True:
        page = stub.ListAuditEntries(
            pb.ListAuditEntriesRequest(
                page_size=2, page_token=token, filter=pb.AuditFilter(action="SubmitTemplate", principal="alice")
            )
        )
        assert len(page.entries) <= 2
        seen += [json.loads(each.line) for each in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert [each["details"]["template"] for each in seen] == [f"docs/n{number}@1.0.0" for number in range(4, -1, -1)]
    name = f"auditEntries/{seen[0]['sequence']}"
    found = stub.GetAuditEntry(pb.GetAuditEntryRequest(name=name))
    assert found.sha256.hex() == entry_digest(found.line.encode())
    for bad in ("auditEntries/999999", "auditEntries/", "changes/1", "auditEntries/-1"):
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetAuditEntry(pb.GetAuditEntryRequest(name=bad))
        assert from_rpc_error(refused.value).reason is Reason.AUDIT_UNKNOWN
    with pytest.raises(grpc.RpcError) as refused:
        stub.ListAuditEntries(pb.ListAuditEntriesRequest(filter=pb.AuditFilter(outcome="MAYBE")))
    assert from_rpc_error(refused.value).reason is Reason.INVALID_REQUEST


def test_an_export_verifies_offline_and_any_change_to_it_shows(
    alice: PersonClient, installation: LocalInstallation, tmp_path: Path
) -> None:
    alice.submit({**DOCUMENT, "name": "exported"})
    lines, root = exported(alice), installation.trust.roots[0]
    verdict = verify_export(lines, root=root, held_by_nodes={})
    assert verdict.findings == ()
    assert (verdict.first, verdict.last) == (1, verdict.entries)
    for at in range(1, len(lines)):
        for changed in (
            [*lines[:at], lines[at].replace(b"1", b"2", 1), *lines[at + 1 :]],
            [*lines[:at], *lines[at + 1 :]],
            [*lines[:at], lines[at], lines[at], *lines[at + 1 :]],
            lines[:at],
        ):
            assert not verify_export(changed, root=root, held_by_nodes={}).is_whole, (at, lines[at])
    entry, following = (line for line in lines[1:3])
    file = tmp_path / "line"
    file.write_bytes(entry)
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert json.loads(following)["previous"] == digest, "common tools do"


def test_an_extract_is_no_whole_and_a_foreign_root_vouches_for_nothing(
    alice: PersonClient, installation: LocalInstallation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alice.submit({**DOCUMENT, "name": "extracted"})
    extract = exported(alice, action="SubmitTemplate")
    assert {json.loads(line)["action"] for line in extract[1:]} == {"TemplateService/SubmitTemplate"}
    with pytest.raises(AuditInvalidError):
        verify_export(extract, root=installation.trust.roots[0], held_by_nodes={})
    other = make_installation(tmp_path_factory.mktemp("other") / "installation").trust.roots[0]
    verdict = verify_export(exported(alice), root=other, held_by_nodes={})
    assert {each.kind for each in verdict.findings} >= {FindingKind.CHECKPOINT, FindingKind.TRUNCATED}
    for garbage in ([], [b""], [b"{}"], [b"\xff"], [b'{"audit_export":1}']):
        with pytest.raises(AuditInvalidError):
            verify_export(garbage, root=installation.trust.roots[0], held_by_nodes={})


def test_the_control_plane_verifies_its_own_log_and_names_what_is_wrong(
    alice: PersonClient, installation: LocalInstallation
) -> None:
    stub = AuditServiceStub(alice.channel)
    whole = stub.VerifyAudit(pb.VerifyAuditRequest(), timeout=60)
    assert list(whole.findings) == []
    assert read_checkpoint(whole.checkpoint).checkpoint.sequence == whole.last
    with closing(sqlite3.connect(installation.directory / "control-plane" / "state.db")) as connection:
        connection.execute("DROP TRIGGER audit_entries_stay")
        connection.execute("UPDATE audit_entries SET line = replace(line, 'DONE', 'FAILED') WHERE sequence = 3")
        connection.commit()
    found = stub.VerifyAudit(pb.VerifyAuditRequest(), timeout=60)
    assert found.findings
    assert all(each.kind == "EDITED" and each.first <= 3 <= each.last for each in found.findings)


def test_what_nodes_refuse_and_quarantine_stands_in_the_log(
    plane: ControlPlaneProcess, installation: LocalInstallation
) -> None:
    digest = "ab" * 32

    def say() -> Iterator[distribution_pb2.SubscribeRequest]:
        hello = distribution_pb2.Hello(protocol_versions=[1], keeps_audit_checkpoints=True)
        yield distribution_pb2.SubscribeRequest(hello=hello)
        for _ in range(20):
            yield distribution_pb2.SubscribeRequest(
                nack=distribution_pb2.Nack(
                    generation=1,
                    phase=distribution_pb2.PHASE_VERIFY,
                    template="docs/echo@1.0.0",
                    reason="APPROVAL_UNDER_THRESHOLD",
                    message="canary in a message",
                )
            )
        yield distribution_pb2.SubscribeRequest(
            nack=distribution_pb2.Nack(generation=1, reason="canary reason", template="canary template")
        )
        for _ in range(3):
            report = distribution_pb2.Report(state="UNISOLATED", quarantined=[digest, "canary"])
            yield distribution_pb2.SubscribeRequest(report=report)
        done.wait(30)

    done = threading.Event()
    database = installation.directory / "control-plane" / "state.db"
    with plane.channel(installation.node("node-9")) as channel:
        call = DistributionServiceStub(channel).Subscribe(say())
        until = time.monotonic() + 30
        told: list[dict[str, Any]] = []
        while time.monotonic() < until and len(told) < 4:
            told = [entry for entry in audit_entries(database) if entry["resource"] == "nodes/node-9"]
            time.sleep(0.05)
        done.set()
        call.cancel()
    assert [(each["action"], each["code"], each["count"]) for each in told] == [
        ("Node/RefuseGeneration", "APPROVAL_UNDER_THRESHOLD", 1),
        ("Node/RefuseGeneration", "INTERNAL", 1),
        ("Node/Quarantine", "TEMPLATE_QUARANTINED", 1),
        ("Node/StopServing", "", 1),
    ], "each kind once: repetitions are counted"
    assert told[0]["details"] == {"generation": "1", "phase": "VERIFY", "template": "docs/echo@1.0.0"}
    assert told[0]["principal"].endswith("/node/node-9")
    assert "canary" not in json.dumps(told)


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld.make(tmp_path / "world")


def shown(client: PersonClient) -> int:
    return AuditServiceStub(client.channel).VerifyAudit(pb.VerifyAuditRequest(), timeout=60).last


def test_a_log_that_is_rewritten_and_signed_anew_shows_at_the_nodes(world: NodeWorld) -> None:
    """Whoever has the control plane's machine, and so every online key: the log verifies, the node does not agree."""
    installation, root = world.installation, world.installation.trust.roots[0]
    database = installation.directory / "control-plane" / "state.db"

    def status(node: NodeProcess, sequence: int) -> node_pb2.NodeStatus:
        def seen(found: node_pb2.NodeStatus) -> bool:
            document = found.audit_checkpoint
            return bool(document) and read_checkpoint(document).checkpoint.sequence >= sequence

        return node.until(f"checkpoint {sequence}", seen)

    with ControlPlaneProcess(installation, QUICK) as plane:
        environment = world.environment("n1", control_plane=f"localhost:{plane.port}", reconnect_s_max="1")
        with NodeProcess(installation, environment) as node, plane.person("alice") as alice:
            for number in range(3):
                alice.submit({**DOCUMENT, "name": f"before{number}"})
            held = status(node, shown(alice)).audit_checkpoint
            assert verify_export(exported(alice), root=root, held_by_nodes={"n1": held}).is_whole
        assert plane.stop() == 0
    with closing(sqlite3.connect(database)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in ("audit_entries", "audit_checkpoints"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()

    with ControlPlaneProcess(installation, QUICK) as plane, plane.person("alice") as alice:
        for number in range(12):
            alice.submit({**DOCUMENT, "name": f"after{number}"})
        own = AuditServiceStub(alice.channel).VerifyAudit(pb.VerifyAuditRequest(), timeout=60)
        assert list(own.findings) == [], "nothing inside of the log shows it"
        environment = world.environment("n1", control_plane=f"localhost:{plane.port}", reconnect_s_max="1")
        with NodeProcess(installation, environment) as node:
            found = node.until("connected", lambda each: each.control_plane_connected)
            assert found.audit_checkpoint == held, "the node remembers over its restart"
            verdict = verify_export(exported(alice), root=root, held_by_nodes={"n1": found.audit_checkpoint})
            assert FindingKind.WITNESS in {each.kind for each in verdict.findings}
            node.until("again", lambda each: each.control_plane_connected)
            entries = [entry for entry in audit_entries(database) if entry["action"] == "AuditLog/FindFork"]
            assert [entry["code"] for entry in entries] == ["AUDIT_FORKED"]
            again = AuditServiceStub(alice.channel).VerifyAudit(pb.VerifyAuditRequest(), timeout=60)
            assert {each.kind for each in again.findings} == {"WITNESS"}
            assert list(again.nodes) == ["n1"]
            alice.fleet.ListNodes(admin_pb2.ListNodesRequest())
            assert node.until("the same", lambda each: bool(each.audit_checkpoint)).audit_checkpoint == held
