"""What a node saw of the audit log, it keeps: over restarts, and against a control plane that says otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_plane.audit_witness import AuditWitness
from templates.audit_checkpoint import read_checkpoint, sign_checkpoint
from tests.audit_world import STRANGER
from tests.installation import LocalInstallation, make_installation

KEY = b"k" * 32


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("seen") / "one")


def witness_of(path: Path, installation: LocalInstallation) -> AuditWitness:
    return AuditWitness(
        path / "audit-checkpoint", key=KEY, environment="test", root=lambda: installation.trust.roots[0]
    )


def chain(installation: LocalInstallation, *entries: str) -> list[bytes]:
    from datetime import UTC, datetime

    from templates.audit_checkpoint import Checkpoint

    documents, previous = [], "0" * 64
    for number, digest in enumerate(entries, start=1):
        checkpoint = Checkpoint(
            environment="test",
            sequence=number,
            entry_sha256=digest * 64,
            previous=previous,
            time=datetime(2030, 1, 1, tzinfo=UTC),
        )
        previous = checkpoint.digest
        documents.append(sign_checkpoint(checkpoint, installation.online.snapshot))
    return documents


async def test_it_is_kept_over_a_restart(tmp_path: Path, installation: LocalInstallation) -> None:
    documents = chain(installation, "a", "b", "c")
    witness = witness_of(tmp_path, installation)
    assert witness.held == b""
    await witness.take(documents[:1])
    await witness.take(documents[1:])
    assert witness.held == documents[2]
    again = witness_of(tmp_path, installation)
    assert (again.held, again.warning) == (documents[2], "")


async def test_a_rewritten_log_is_refused_and_said(tmp_path: Path, installation: LocalInstallation) -> None:
    true, forged = chain(installation, "a", "b"), chain(installation, "a", "d", "e")
    witness = witness_of(tmp_path, installation)
    await witness.take(true)
    for offered in (forged, forged[2:], forged[:1], true[:1]):
        await witness.take(offered)
        assert witness.held == true[1]
        assert "not the one that this node saw" in witness.warning
    await witness.take([true[1]])
    assert witness.held == true[1]


async def test_what_is_not_signed_by_the_trusted_root_is_not_taken(
    tmp_path: Path, installation: LocalInstallation
) -> None:
    (document,) = chain(installation, "a")
    checkpoint = read_checkpoint(document).checkpoint
    witness = witness_of(tmp_path, installation)
    foreign = sign_checkpoint(replace(checkpoint, environment="other"), installation.online.snapshot)
    for offered in ([sign_checkpoint(checkpoint, STRANGER)], [foreign], [b"{}"], [], [document] * 257):
        await witness.take(offered)
        assert witness.held == b""
    await witness.take([document])
    assert witness.held == document


async def test_a_damaged_file_is_said_and_does_not_stop_the_node(
    tmp_path: Path, installation: LocalInstallation
) -> None:
    witness = witness_of(tmp_path, installation)
    documents = chain(installation, "a", "b")
    await witness.take(documents[:1])
    file = tmp_path / "audit-checkpoint"
    file.write_bytes(file.read_bytes()[:-1])
    again = witness_of(tmp_path, installation)
    assert again.held == b""
    assert "damaged" in again.warning
    await again.take(documents)
    assert (again.held, again.warning) == (documents[1], "")
