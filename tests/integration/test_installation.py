"""What `agentctl init` and `agentctl up` lay out, and what doctor says of it: whole or nothing, renewed, private."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.agentctl.main import cli
from client.diagnosis import Finding, diagnose
from client.installation import InstallationExistsError, InvalidInstallationError, create_installation
from client.local_fleet import LocalFleet, PortTakenError, ensure_installation
from client.processes import ProcessFailedError, ServerProcess, free_ports, http_status, is_free
from client.profile import Profile, ProfileError, read_profile
from client.renewal import ends, renew_certificates
from client.standard import development_spec, installation_spec
from service.identity import identity_of_certificate
from service.keystore import KeyKind
from service.tls import certificate_of
from templates.charter import Mode, read_charter

NOW = datetime.now(UTC)


def quiet(_line: str) -> None:
    """Nobody listens."""


def spec_of(directory: Path, **options: Any) -> Any:
    chosen: dict[str, Any] = {
        "environment": "test",
        "production": False,
        "trust_domain": "factory.local",
        "control_plane": "localhost:7400",
        "nodes": (),
        "domains": (),
        "authors": (),
        "services": (),
        "key_kind": "ed25519",
        "secret_bindings": {},
        **options,
    }
    return installation_spec(directory, **chosen)


_MADE: dict[datetime, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encrypting nine keys takes seconds: each installation is made once and copied."""
    for days in (0, 80):
        directory = tmp_path_factory.mktemp("made") / "installation"
        ensure_installation(
            directory,
            node_count=1,
            port=0,
            threshold=1,
            key_kind=KeyKind.ED25519,
            now=NOW - timedelta(days=days),
            tell=quiet,
        )
        _MADE[NOW - timedelta(days=days)] = directory
    yield
    _MADE.clear()


def made(directory: Path, *, now: datetime = NOW) -> Profile:
    shutil.copytree(_MADE[now], directory)
    return read_profile(directory)


def test_what_was_asked_for_is_signed(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path / "i",
        production=True,
        domains=("docs=2:ann,ben,cem", "dev=1:ann"),
        authors=("zoe",),
        services=("acme/web", "beta/batch"),
        nodes=("n1=10.0.0.1:7411", "n2=node.example:7411"),
    )
    profile = create_installation(spec, now=NOW, tell=quiet)
    charter = read_charter((profile.trust_directory / "charter.json").read_bytes())
    assert (charter.mode, charter.environment) == (Mode.PRODUCTION, "test")
    assert {name: domain.threshold for name, domain in charter.domains.items()} == {"docs": 2, "dev": 1}
    assert set(charter.persons) == {"ann", "ben", "cem"}
    assert (profile.person, profile.service) == ("zoe", "web")
    assert set(profile.identities) == {"zoe", "ann", "ben", "cem", "web", "batch", "n1", "n2", "control-plane"}
    web = certificate_of(profile.tls("web"))
    assert str(identity_of_certificate(web)).endswith("/tenant/acme/service/web")
    assert read_profile(profile.directory) == profile
    assert (tmp_path / "i").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"domains": ("docs",)}, "THRESHOLD:REVIEWER"),
        ({"domains": ("d=1:ann",)}, "2 to 41 of a-z"),
        ({"domains": ("docs=1:ann", "docs=1:ben")}, "each domain once"),
        ({"domains": ("docs=3:ann,ben",)}, "threshold from 1 to 2"),
        ({"domains": ("docs=2:ann,ann",)}, "threshold from 1 to 1"),
        ({"domains": ("docs=0:ann",)}, "threshold from 1"),
        ({"nodes": ("n1",)}, "NAME=host:port"),
        ({"nodes": ("n1=localhost:1", "n1=localhost:2")}, "each node once"),
        ({"nodes": ("n1=localhost:xx",)}, "host:port for n1"),
        ({"nodes": ("n1=localhost:0",)}, "host:port for n1"),
        ({"nodes": ("alice=localhost:1",)}, "one identity called 'alice'"),
        ({"nodes": ("N 1=localhost:1",)}, "identity"),
        ({"control_plane": "nohost"}, "host:port for control-plane"),
        ({"services": ("web",)}, "TENANT/NAME"),
        ({"services": ("acme/web", "beta/web")}, "its own name"),
        ({"services": ("acme/bob",)}, "its own name"),
        ({"trust_domain": "UPPER dom"}, "trust domain"),
        ({"authors": ("Zoë",)}, "identity"),
    ],
)
def test_an_installation_that_cannot_be_leaves_nothing(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInstallationError, match=says):
        create_installation(spec_of(tmp_path / "i", **options), now=NOW, tell=quiet)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_installation_can_be_made_again(tmp_path: Path, stop: type[BaseException]) -> None:
    def tell(line: str) -> None:
        if line.startswith("online keys"):
            raise stop

    with pytest.raises(stop):
        create_installation(spec_of(tmp_path / "i"), now=NOW, tell=tell)
    assert list((tmp_path / "i").iterdir()) == []
    create_installation(spec_of(tmp_path / "i"), now=NOW, tell=quiet)
    with pytest.raises(InstallationExistsError, match=r"profile\.json"):
        create_installation(spec_of(tmp_path / "i"), now=NOW, tell=quiet)
    (tmp_path / "i" / "profile.json").unlink()
    with pytest.raises(InstallationExistsError, match="got ca"):
        create_installation(spec_of(tmp_path / "i"), now=NOW, tell=quiet)


def test_of_two_that_make_an_installation_at_once_the_second_touches_nothing(tmp_path: Path) -> None:
    refused = []

    def tell(line: str) -> None:
        if not line.startswith(("certificate", "root")):  # before anything was made, and when nearly all is
            return
        with pytest.raises(InstallationExistsError, match="another command"):
            create_installation(spec_of(tmp_path / "i"), now=NOW, tell=quiet)
        refused.append(line)

    profile = create_installation(spec_of(tmp_path / "i"), now=NOW, tell=tell)
    assert len(refused) == 2
    assert read_profile(profile.directory) == profile
    assert all(path.exists() for path in (*profile.signing_keys.values(), *profile.identities.values()))


@pytest.fixture
def listener() -> Iterator[int]:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


def test_a_taken_port_is_said_before_anything_is_made(tmp_path: Path, listener: int) -> None:
    assert not is_free(listener)
    assert is_free(free_ports(1)[0])
    with pytest.raises(PortTakenError, match=f"at {listener}.*--port"):
        ensure_installation(
            tmp_path / "i",
            node_count=1,
            port=listener,
            threshold=1,
            key_kind=KeyKind.ED25519,
            now=NOW,
            tell=quiet,
        )
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("which", ["control_plane", "node", "observation"])
def test_a_taken_port_of_an_installation_is_said_with_its_owner(tmp_path: Path, listener: int, which: str) -> None:
    profile = made(tmp_path / "i")
    address = f"localhost:{listener}"
    LocalFleet(profile).refuse_taken_ports()
    changed = {
        "control_plane": replace(profile, control_plane=address),
        "node": replace(profile, nodes={"node-1": address}),
        "observation": replace(profile, observation={**profile.observation, "node-1": f"127.0.0.1:{listener}"}),
    }[which]
    owner = "control-plane" if which == "control_plane" else "node-1"
    with pytest.raises(PortTakenError, match=f"{listener} to be free for {owner}.*running already"):
        LocalFleet(changed).refuse_taken_ports()


def test_an_installation_of_init_is_not_started_by_up(tmp_path: Path) -> None:
    create_installation(spec_of(tmp_path / "i"), now=NOW, tell=quiet)
    with pytest.raises(ProfileError, match="agentctl init"):
        ensure_installation(
            tmp_path / "i", node_count=1, port=0, threshold=1, key_kind=KeyKind.ED25519, now=NOW, tell=quiet
        )


def test_up_renews_what_runs_out_for_the_same_identities(tmp_path: Path) -> None:
    profile = made(tmp_path / "i", now=NOW - timedelta(days=80))
    before = {name: certificate_of(profile.tls(name)) for name in profile.identities}
    told: list[str] = []
    renew_certificates(profile, now=NOW - timedelta(days=30), tell=told.append)
    assert told == [], "nothing is due yet"
    again = ensure_installation(
        profile.directory, node_count=1, port=0, threshold=1, key_kind=KeyKind.ED25519, now=NOW, tell=told.append
    )
    assert again == profile
    assert "node-1" in told[0]
    for name, old in before.items():
        new = certificate_of(profile.tls(name))
        assert new.not_valid_after_utc > NOW + timedelta(days=80)
        assert identity_of_certificate(new) == identity_of_certificate(old)
        assert _names(new) == _names(old)
    assert "localhost" in _names(certificate_of(profile.tls("node-1")))


def _names(certificate: Any) -> str:
    from cryptography.x509 import SubjectAlternativeName

    return str(certificate.extensions.get_extension_for_class(SubjectAlternativeName).value)


def test_an_authority_that_was_moved_away_renews_nothing(tmp_path: Path) -> None:
    profile = made(tmp_path / "i", now=NOW - timedelta(days=80))
    (profile.directory / "ca").rename(tmp_path / "away")
    later = NOW + timedelta(days=30)
    renew_certificates(profile, now=later, tell=quiet)
    assert ends(profile.identities["cli"]) < later
    (finding,) = [one for one in diagnose(profile.directory, now=later) if one.subject == "certificate cli"]
    assert (finding.severity, finding.remedy) == (
        "problem",
        "let the keeper of the certificate authority issue it again",
    )


# Doctor


def findings(profile: Profile) -> list[Finding]:
    return list(diagnose(profile.directory, now=NOW))


def _expose_reviewer(profile: Profile) -> None:
    profile.signing_keys["bob"].chmod(0o644)


def _expose_tls(profile: Profile) -> None:
    (profile.identities["cli"] / "key.pem").chmod(0o640)


def _expose_online(profile: Profile) -> None:
    (profile.directory / "control-plane" / "keys" / "plan.pem").chmod(0o604)


def _lose_certificate(profile: Profile) -> None:
    (profile.identities["cli"] / "cert.pem").unlink()


def _damage_certificate(profile: Profile) -> None:
    (profile.identities["alice"] / "cert.pem").write_text("hello")


def _damage_profile(profile: Profile) -> None:
    (profile.directory / "profile.json").write_text("[]")


def _lose_profile(profile: Profile) -> None:
    (profile.directory / "profile.json").unlink()


@pytest.mark.parametrize(
    ("damage", "subject", "says", "remedy"),
    [
        (_expose_reviewer, "secrets", "bob.pem is open to other users", "chmod 600"),
        (_expose_tls, "secrets", "key.pem is open to other users", "chmod 600"),
        (_expose_online, "secrets", "plan.pem is open to other users", "chmod 600"),
        (_lose_certificate, "certificate cli", "No such file", "restore"),
        (_damage_certificate, "certificate alice", "", "restore"),
        (_damage_profile, "profile", "expected a JSON object", "restore it from a backup"),
        (_lose_profile, "profile", "expected a profile at", "up"),
    ],
)
def test_doctor_names_what_is_wrong_and_how_to_mend_it(
    tmp_path: Path, damage: Callable[[Profile], None], subject: str, says: str, remedy: str
) -> None:
    profile = made(tmp_path / "i")
    damage(profile)
    problems = [one for one in findings(profile) if one.severity == "problem" and one.subject == subject]
    assert problems
    assert says in problems[0].text
    assert remedy in problems[0].remedy


def test_doctor_says_that_nothing_runs_and_what_runs_out(tmp_path: Path) -> None:
    profile = made(tmp_path / "i", now=NOW - timedelta(days=80))
    found = {one.subject: one for one in findings(profile)}
    assert (found["control-plane"].severity, found["control-plane"].text) == ("problem", "does not run")
    assert found["node-1"].remedy == f"agentctl --dir {profile.directory} up"
    assert found["certificate cli"].severity == "warning"
    assert "up renews it" in found["certificate cli"].remedy
    assert "roles" not in found, "there is nobody to ask"
    assert found["engine"].severity == found["disk"].severity == "ok"
    assert found["offline keys"].severity == "warning"
    assert found["isolation"].text.startswith("workers reach level ")
    expired = {one.subject: one for one in diagnose(profile.directory, now=NOW + timedelta(days=30))}
    assert expired["certificate cli"].text.startswith("expired")


# Processes


def server(tmp_path: Path, module: str, port: int) -> ServerProcess:
    return ServerProcess(
        "it", module, environment={}, log=tmp_path / "logs" / "it.log", observation=f"127.0.0.1:{port}"
    )


def test_a_server_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    ending = server(tmp_path, "no_such_module", port)
    with pytest.raises(ProcessFailedError, match="never started"):
        ending.wait_ready()
    assert ending.tail() == "(no log)"
    ending.start()
    with pytest.raises(ProcessFailedError, match="No module named"):
        ending.wait_ready(timeout_s=30)
    assert (ending.pid, ending.is_running()) == (0, False)
    ending.stop()


def test_the_log_of_an_earlier_start_is_not_quoted(tmp_path: Path) -> None:
    said = []
    for module in ("no_such_module", "another_one"):
        ending = server(tmp_path, module, 1)
        ending.start()
        with pytest.raises(ProcessFailedError, match=module) as failed:
            ending.wait_ready(timeout_s=30)
        said.append(str(failed.value))
    assert "no_such_module" not in said[1]
    assert "no_such_module" in next(tmp_path.rglob("*.log")).read_text()


def test_a_server_that_does_not_answer_or_end_is_given_up_and_killed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stubborn = server(tmp_path, "timeit", port)
    stubborn._module = "http.server"  # serves on another port and knows no /readyz
    stubborn.start()
    try:
        assert stubborn.pid
        with pytest.raises(ProcessFailedError, match="did not answer /healthz within 0 s"):
            stubborn.wait_alive(timeout_s=0.2)
    finally:
        stubborn.stop(timeout_s=0.0)
    assert not stubborn.is_running()
    assert http_status(f"127.0.0.1:{port}", "/readyz") == 0


def test_a_development_installation_needs_no_more_than_its_directory(tmp_path: Path) -> None:
    spec = development_spec(tmp_path, control_plane="localhost:1", nodes={}, observation={}, threshold=2)
    assert spec.domains["documentation"].threshold == 2
    assert spec.domains["dev"].self_review


def test_bindings_of_secrets_stand_in_the_charter_that_init_signs(tmp_path: Path) -> None:
    binding = {
        "origin": "https://api.crossref.org",
        "header": "Authorization",
        "path_prefixes": ["/works"],
        "methods": ["GET"],
        "templates": ["documentation/*"],
    }
    arguments = ["--dir", str(tmp_path / "made"), "init", "--key-kind", "ed25519", "--secret-bindings"]
    made = CliRunner().invoke(cli, [*arguments, json.dumps({"crossref-token": binding})])
    assert made.exit_code == 0
    charter = read_charter((tmp_path / "made" / "trust" / "charter.json").read_bytes())
    assert charter.secret_bindings["crossref-token"].origin == "https://api.crossref.org"
    arguments[1] = str(tmp_path / "refused")
    refused = CliRunner().invoke(cli, [*arguments, json.dumps({"crossref-token": {**binding, "header": "a b"}})])
    assert refused.exit_code != 0
    assert not (tmp_path / "refused").exists()
