"""When a control plane refuses to start: one clear line, exit status 2, and nothing was listening."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from agentfactory.admin.v1 import admin_pb2

from service.keystore import KeyKind, create_key
from tests.control_plane_process import ControlPlaneProcess
from tests.installation import PASSPHRASE, LocalInstallation, make_installation, write_trust


def keys(installation: LocalInstallation) -> Path:
    return installation.directory / "control-plane" / "keys"


def replace_key(installation: LocalInstallation) -> None:
    (keys(installation) / "plan.pem").unlink()
    create_key(keys(installation) / "plan.pem", kind=KeyKind.ED25519, passphrase=PASSPHRASE)


def damage_database(installation: LocalInstallation) -> None:
    (installation.directory / "control-plane" / "state.db").write_bytes(b"this is no database" * 100)


SPOILT: dict[str, tuple[Callable[[LocalInstallation], object], str, str]] = {
    "no trust documents": (
        lambda it: shutil.rmtree(it.trust_directory),
        "TRUST_UNREADABLE",
        "agentctl init",
    ),
    "no charter": (lambda it: (it.trust_directory / "charter.json").unlink(), "TRUST_UNREADABLE", "charter.json"),
    "charter that is none": (
        lambda it: (it.trust_directory / "charter.json").write_bytes(b"{}"),
        "CHARTER_INVALID",
        "",
    ),
    "charter that was edited": (
        lambda it: (it.trust_directory / "charter.json").write_bytes(it.amended_charter(lease_s_max=999).charter),
        "TARGET_MISMATCH",
        "charter.json",
    ),
    "key open to others": (lambda it: (keys(it) / "plan.pem").chmod(0o644), "EXPOSED_KEY_FILE", "plan.pem"),
    "passphrase open to others": (
        lambda it: (it.directory / "control-plane" / "passphrase").chmod(0o644),
        "EXPOSED_KEY_FILE",
        "passphrase",
    ),
    "missing key": (lambda it: (keys(it) / "plan.pem").unlink(), "INVALID_KEY_FILE", "plan.pem"),
    "another key": (replace_key, "METADATA_UNDER_THRESHOLD", "plan"),
    "wrong passphrase": (
        lambda it: (it.directory / "control-plane" / "passphrase").write_bytes(b"wrong"),
        "WRONG_PASSPHRASE",
        "",
    ),
    "no certificate": (lambda it: it.control_plane().certificate.unlink(), "INVALID_TLS_FILES", ""),
    "damaged database": (damage_database, "STATE_UNUSABLE", "database"),
}


def refusal(installation: LocalInstallation, settings: dict[str, str] | None = None) -> dict[str, str]:
    plane = ControlPlaneProcess(installation, settings or {})
    plane.launch()
    assert plane.wait() == 2
    assert plane.port == 0
    (line,) = plane.events("control_plane_refused_to_start")
    return line


@pytest.mark.parametrize("case", SPOILT.values(), ids=SPOILT)
def test_refuses(tmp_path: Path, case: tuple[Callable[[LocalInstallation], object], str, str]) -> None:
    spoil, reason, text = case
    installation = make_installation(tmp_path / "installation")
    installation.control_plane()
    spoil(installation)
    line = refusal(installation)
    assert line["reason"] == reason
    assert text in line["error"]


def test_refuses_an_expired_root(tmp_path: Path) -> None:
    installation = make_installation(
        tmp_path / "installation", now=datetime.now(UTC) - timedelta(days=10), expires_after=timedelta(days=9)
    )
    line = refusal(installation)
    assert (line["reason"], "root" in line["error"]) == ("METADATA_EXPIRED", True)


def test_refuses_development_documents_in_production(tmp_path: Path) -> None:
    line = refusal(make_installation(tmp_path / "installation"), {"production": "true"})
    assert line["reason"] == "DEVELOPMENT_MODE"


def test_refuses_a_lease_that_the_charter_does_not_allow(tmp_path: Path) -> None:
    line = refusal(make_installation(tmp_path / "installation", lease_s_max=60), {"lease_s": "61"})
    assert "AGENTFACTORY_CP_LEASE_S: expected at most 60" in line["error"]


def test_refuses_variables_that_nobody_reads(tmp_path: Path) -> None:
    plane = ControlPlaneProcess(make_installation(tmp_path / "installation"), {"debounce": "5"})
    plane.launch()
    assert plane.wait() == 1
    text = "\n".join(line["event"] for line in plane.lines)
    assert "refuses to start" in text
    assert "AGENTFACTORY_CP_DEBOUNCE: nothing reads it; did you mean AGENTFACTORY_CP_DEBOUNCE_MS?" in text


def test_two_processes_do_not_share_a_state(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "installation")
    with ControlPlaneProcess(installation):
        assert refusal(installation)["reason"] == "STATE_LOCKED"


def test_warns_of_what_is_about_to_expire(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "installation", expires_after=timedelta(days=20))
    with ControlPlaneProcess(installation) as plane, plane.person("alice") as alice:
        listed = alice.keys.ListRoles(admin_pb2.ListRolesRequest())
        assert [warning.split()[0] for warning in listed.warnings] == ["root", "targets"]
        assert plane.stop() == 0
        assert {line["warning"].split()[0] for line in plane.events("expiry_near")} == {"root", "targets"}


def test_a_newer_root_laid_out_beside_the_old_one_mends_an_expired_one(tmp_path: Path) -> None:
    from dataclasses import replace

    from templates.repository import RoleKeys, RootSpec, build_root

    installation = make_installation(
        tmp_path / "installation", now=datetime.now(UTC) - timedelta(days=10), expires_after=timedelta(days=9)
    )
    assert refusal(installation)["reason"] == "METADATA_EXPIRED"
    installation.expires = (datetime.now(UTC) + timedelta(days=365)).replace(microsecond=0)
    spec = RootSpec(
        environment=installation.charter.environment,
        mode=installation.charter.mode,
        version=2,
        expires=installation.expires,
        root=RoleKeys(keys=(installation.root.public_key,)),
        targets=RoleKeys(keys=(installation.targets.public_key,)),
        snapshot=RoleKeys(keys=(installation.online.snapshot.public_key,)),
        timestamp=RoleKeys(keys=(installation.online.timestamp.public_key,)),
    )
    newer = installation.amended_charter()
    shutil.rmtree(installation.trust_directory)
    write_trust(
        installation.trust_directory,
        replace(newer, roots=(*newer.roots, build_root(spec, [installation.root]))),
    )
    with ControlPlaneProcess(installation) as plane:
        assert plane.stop() == 0
