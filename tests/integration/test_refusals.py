"""What must be refused, one case each, by a real control plane: code, place or numbers, and it still serves afterwards.

What nodes refuse is in test_refusals_by_nodes.py, the pure tables are in tests/unit/templates.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2 as pb

from client.selftest.callers import call_over_tls_1_2
from sandbox.compiler import compile_module
from service.status import RemoteError, from_rpc_error
from templates.approval import merge, sign
from templates.charter import Charter
from templates.reasons import Reason
from tests import small_modules
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation, new_signer
from tests.server_lines import logged

ALICES_SECOND_KEY = new_signer()
TOOL = {"module": "tool.wasm", "abi": "command"}


def _give_alice_two_keys(charter: Charter) -> Charter:
    keys = {**charter.persons["alice"], ALICES_SECOND_KEY.public_key.keyid: ALICES_SECOND_KEY.public_key}
    return replace(charter, persons={**charter.persons, "alice": keys})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("refusals") / "installation", amend=_give_alice_two_keys)


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"debounce_ms": "10"}) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture
def dave(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    """An author who reviews nothing; afterwards the control plane must still take a good template."""
    with plane.person("dave") as client:
        yield client
        assert client.submit(document("good"), validate_only=True).statement


def document(name: str, version: str = "1.0.0", domain: str = "docs", **members: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": name, "version": version, "domain": domain, "role": "r", "description": "d"}
    return {**base, **members}


def refused(call: Callable[[], object]) -> RemoteError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return from_rpc_error(error.value)


# Documents


def _text(**members: Any) -> bytes:
    return json.dumps(document("wrong", **members), indent=1).encode()


@dataclass(frozen=True)
class Wrong:
    data: bytes
    code: Reason
    place: str
    says: str


DOCUMENTS = {
    "duplicate keys": Wrong(
        _text().replace(b'"role"', b'"name": "again",\n "role"'), Reason.DUPLICATE_KEY, "/name", '"name" again'
    ),
    "unknown fields": Wrong(_text(colour="red"), Reason.UNKNOWN_FIELD, "/colour", "colour"),
    "wrong types": Wrong(
        _text(limits={"fuel": "much"}), Reason.WRONG_TYPE, "/limits/fuel", "expected integer, got string"
    ),
    "oversize documents": Wrong(
        _text(description="x" * 300_000), Reason.DOCUMENT_TOO_LARGE, "", "at most 262144 bytes, got 300"
    ),
    "documents that nest too deeply": Wrong(
        _text(default_config={"a": 1}).replace(b'"a": 1', b'"a": ' + b"[" * 40 + b"]" * 40),
        Reason.DOCUMENT_TOO_DEEP,
        "/default_config/a",
        "at most 32 levels",
    ),
    "a number that is none": Wrong(
        _text(default_config={"a": 1}).replace(b'"a": 1', b'"a": NaN'),
        Reason.INVALID_NUMBER,
        "/default_config/a",
        "NaN",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_refused_at_its_place(dave: PersonClient, name: str) -> None:
    wrong = DOCUMENTS[name]
    error = refused(lambda: dave.submit(wrong.data))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    if wrong.code is Reason.DOCUMENT_TOO_LARGE:
        assert error.reason is Reason.SUBMISSION_TOO_LARGE, "the header is refused before anything is parsed"
        assert "262144" in error.message
        assert str(len(wrong.data)) in error.message
        return
    assert error.reason is Reason.INVALID_TEMPLATE
    (violation,) = [one for one in error.violations if one.code == str(wrong.code)]
    assert violation.field.startswith(wrong.place)
    assert violation.description.startswith("line ")
    assert wrong.says in violation.description


def test_agentctl_names_file_line_column_and_code_of_each(tmp_path: Path) -> None:
    files = []
    for name, wrong in DOCUMENTS.items():
        files.append(tmp_path / f"{name.replace(' ', '-')}.json")
        files[-1].write_bytes(wrong.data)
    done = subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", "template", "validate", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    for file, wrong in zip(files, DOCUMENTS.values(), strict=True):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{file}:")]
        assert any(str(wrong.code) in line and wrong.says in line for line in lines), lines
        assert all(line.removeprefix(f"{file}:").split(":")[1].isdecimal() for line in lines)


def test_an_inheritance_cycle(dave: PersonClient, installation: LocalInstallation) -> None:
    """A parent is pinned when it is submitted: only a later version can close the circle."""
    assert refused(lambda: dave.submit(document("own", parent="docs/own"))).reason is Reason.INVALID_TEMPLATE
    first = dave.publish(installation, document("first"), by=["alice", "bob"])
    second = dave.publish(installation, document("second", parent="docs/first"), by=["alice", "bob"])
    assert first.state == second.state == pb.CHANGE_STATE_APPROVED
    error = refused(lambda: dave.submit(document("first", "1.1.0", parent="docs/second")))
    assert error.reason is Reason.INVALID_TEMPLATE
    (violation,) = error.violations
    assert violation.code == "INHERITANCE_CYCLE"
    assert "docs/first" in violation.description
    missing = refused(lambda: dave.submit(document("third", parent="docs/none")))
    assert [one.code for one in missing.violations] == ["MISSING_PARENT"]


def test_widened_grants_and_limits(dave: PersonClient, installation: LocalInstallation) -> None:
    parent = document("narrow", grants={"kv": {"namespace": "notes", "bytes_max": 1000}}, limits={"fuel": 1_000_000})
    dave.publish(installation, parent, by=["alice", "bob"])
    error = refused(
        lambda: dave.submit(
            document(
                "wide",
                parent="docs/narrow",
                grants={"kv": {"namespace": "notes", "bytes_max": 1001}, "agents": ["docs/*"]},
                limits={"fuel": 1_000_001},
            )
        )
    )
    assert {one.code for one in error.violations} == {"WIDENED_GRANT", "WIDENED_LIMIT"}
    text = "\n".join(f"{one.field} {one.description}" for one in error.violations)
    for hint in ("/grants/kv", "/grants/agents", "/limits/fuel", "1000000", "1000001"):
        assert hint in text.replace(",", "")


# Modules


async def test_a_module_that_is_compiled_code_of_this_very_engine(dave: PersonClient) -> None:
    compiled = await compile_module(small_modules.command())
    error = refused(lambda: dave.submit(document("tool", code=TOOL), compiled.code))
    assert error.reason is Reason.COMPILED_CODE
    assert "compiled" in error.message


@pytest.mark.parametrize(
    ("module", "reason", "says"),
    [
        (b"MZ not wasm at all", Reason.NOT_WASM, "0061736d"),
        (b"\0asm", Reason.NOT_WASM, "expected"),
        (small_modules.command()[:-3], Reason.MODULE_INVALID, "unexpected end"),
        (small_modules.command(imports=(("env", "system"),)), Reason.FORBIDDEN_IMPORT, "env"),
        (small_modules.command(pages=4000), Reason.MODULE_MEMORY, str(4000 * 65_536)),
    ],
    ids=["not wasm", "a header only", "truncated", "import", "memory"],
)
def test_a_module_that_no_node_would_run(dave: PersonClient, module: bytes, reason: Reason, says: str) -> None:
    error = refused(lambda: dave.submit(document("tool", code=TOOL), module))
    assert (error.reason, error.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
    assert says in error.message


# Signatures


def test_signatures_that_do_not_count(
    dave: PersonClient, plane: ControlPlaneProcess, installation: LocalInstallation
) -> None:
    change = dave.submit(document("signed", code=TOOL), small_modules.command(pages=3))

    def approve(envelope: bytes, name: str = change.name) -> pb.Change:
        return dave.changes.ApproveChange(pb.ApproveChangeRequest(name=name, envelope=envelope), timeout=30)

    bob = installation.reviewers["bob"]
    genuine = sign(change.statement, bob).to_bytes()
    forged = json.loads(genuine)
    forged["signatures"][0]["sig"] = forged["signatures"][0]["sig"][::-1].replace("=", "A")
    wrong = refused(lambda: approve(json.dumps(forged).encode()))
    assert wrong.reason in {Reason.SIGNATURE_INVALID, Reason.APPROVAL_INVALID}
    missing = refused(lambda: approve(json.dumps({**json.loads(genuine), "signatures": []}).encode()))
    assert missing.reason in {Reason.APPROVAL_INVALID, Reason.APPROVAL_UNDER_THRESHOLD}
    assert refused(lambda: approve(sign(change.statement, new_signer()).to_bytes())).reason is Reason.APPROVAL_STRANGER

    both = merge(sign(change.statement, installation.reviewers["alice"]), sign(change.statement, ALICES_SECOND_KEY))
    one_person = refused(lambda: approve(both.to_bytes()))
    assert one_person.reason is Reason.APPROVAL_ONE_PERSON
    assert "expected one signature of alice, got 2" in one_person.message
    first = approve(sign(change.statement, installation.reviewers["alice"]).to_bytes())
    assert (first.state, list(first.approvers), first.threshold) == (pb.CHANGE_STATE_IN_REVIEW, ["alice"], 2)
    again = refused(lambda: approve(sign(change.statement, ALICES_SECOND_KEY).to_bytes()))
    assert again.reason is Reason.APPROVAL_ONE_PERSON, "one by one is no way either"
    enough = approve(genuine)
    assert (enough.state, list(enough.approvers)) == (pb.CHANGE_STATE_ACTIVE, ["alice", "bob"])


def test_an_authors_own_approval(plane: ControlPlaneProcess, installation: LocalInstallation) -> None:
    with plane.person("alice") as alice:
        change = alice.submit(document("mine"))
        error = refused(lambda: alice.approve(change, installation, "alice"))
        assert error.reason is Reason.APPROVAL_BY_AUTHOR
        assert "alice" in error.message
        assert alice.approve(change, installation, "bob").state == pb.CHANGE_STATE_IN_REVIEW


# Blobs


def test_a_flipped_byte_in_a_blob_of_the_control_plane(
    dave: PersonClient, plane: ControlPlaneProcess, installation: LocalInstallation
) -> None:
    module = small_modules.command(pages=7)
    change = dave.submit(document("flipped", code=TOOL), module)
    (blob,) = [
        path
        for path in (installation.directory / "control-plane" / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == module
    ]
    blob.chmod(0o600)
    blob.write_bytes(bytes([*module[:-1], module[-1] ^ 1]))
    error = refused(lambda: list(dave.changes.FetchChange(pb.FetchChangeRequest(name=change.name), timeout=30)))
    assert error.reason is Reason.BLOB_DAMAGED
    assert blob.name[:8] in error.message


# Clients


def test_a_client_without_a_certificate(plane: ControlPlaneProcess, installation: LocalInstallation) -> None:
    authorities = installation.person("dave").authorities.read_bytes()
    with PersonClient(
        grpc.secure_channel(f"localhost:{plane.port}", grpc.ssl_channel_credentials(authorities))
    ) as none:
        with pytest.raises(grpc.RpcError) as error:
            none.keys.ListRoles(pb.ListRolesRequest(), timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE, "the handshake fails"
    with PersonClient(grpc.insecure_channel(f"localhost:{plane.port}")) as plain:
        with pytest.raises(grpc.RpcError) as error:
            plain.keys.ListRoles(pb.ListRolesRequest(), timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE, "there is no plaintext mode"


def test_a_client_with_tls_1_2(dave: PersonClient, plane: ControlPlaneProcess, installation: LocalInstallation) -> None:
    method = "/agentfactory.admin.v1.KeyService/ListRoles"
    version, received = call_over_tls_1_2(plane.port, method, installation.person("dave"))
    assert version == "TLSv1.2", "grpc lets the handshake pass"
    assert b"grpc-status" in received
    line = logged(plane.lines, reason="TLS_REQUIRED")
    assert (line["method"], line["code"]) == (method, "UNAUTHENTICATED")
    assert not plane.events("rpc_failed")
