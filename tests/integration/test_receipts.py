"""Receipts of a real node: with every answer, good or failed, verified offline by the library and by agentctl."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb

from client import AgentFactory, AsyncAgentFactory, Limits, receipt_of_error, verify_receipt
from client.profile import Profile
from service.receipt_keys import Envelope, ReceiptUntrustedError
from service.status import DETAILS_KEY, RemoteError
from templates.reasons import Reason
from templates.receipt import ReceiptInvalidError, ReceiptMismatchError
from tests.isolation import guests
from tests.node_process import REPOSITORY, NodeProcess
from tests.node_world import NodeWorld

SMALL = {"fuel": 50_000_000, "wall_ms": 3_000, "memory_bytes": 16 << 20}
PARENT = guests.ask(b"agents.invoke", b'{"template":"docs/echo","input":"from above"}')


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    world = NodeWorld.make(tmp_path_factory.mktemp("receipts"))
    world.publish(
        world.command("docs/echo", guests.ECHO, limits=SMALL, callers=["docs/*"]),
        world.command("docs/spinner", guests.SPINNER, limits=SMALL),
        world.command("docs/exit-seven", guests.EXIT_7, limits=SMALL),
        world.command("docs/parent", PARENT, limits=SMALL, grants={"agents": ["docs/*"]}),
        world.command(
            "docs/childless", PARENT, limits={**SMALL, "child_invocations": 0}, grants={"agents": ["docs/*"]}
        ),
    )
    world.seed()
    with NodeProcess(world.installation, world.environment()) as process:
        yield process


@pytest.fixture
def authorities(node: NodeProcess) -> Path:
    return node.installation.service("web").authorities


@pytest.fixture
def factory(node: NodeProcess) -> Iterator[AgentFactory]:
    files = node.installation.service("web")
    with AgentFactory.connect(
        node.target, certificate=files.certificate, key=files.key, authorities=files.authorities
    ) as connected:
        yield connected


def test_an_answer_can_be_proven_without_the_node(factory: AgentFactory, authorities: Path) -> None:
    answer = factory.invoke_template("docs/echo", "héllo")
    data = factory.receipt_file(answer.receipt)
    found = verify_receipt(data, authorities=authorities, input="héllo", output="héllo")
    assert (found.node, found.outcome) == ("spiffe://factory.test/node/n1", "OK")
    assert found.invocation == answer.receipt.invocation_id
    assert found.template_sha256 == answer.receipt.template_sha256
    assert found.usage["fuel"] == answer.receipt.usage.fuel
    assert found.caller == "spiffe://factory.test/tenant/acme/service/web"
    assert factory.verify(answer, "héllo") == found
    with pytest.raises(ReceiptMismatchError):
        verify_receipt(data, authorities=authorities, input="hello")
    with pytest.raises(ReceiptMismatchError):
        factory.verify(replace(answer, output="other"), "héllo")


def test_the_statement_tells_nothing_about_input_and_output(factory: AgentFactory, authorities: Path) -> None:
    one, two = (factory.invoke_template("docs/echo", "secret") for _ in range(2))
    first, second = (json.loads(each.receipt.statement) for each in (one, two))
    assert first["input_hmac_sha256"] != second["input_hmac_sha256"]
    assert first["input_hmac_sha256"] != first["output_hmac_sha256"] or one.receipt.salt
    bare = replace(Envelope.parse(factory.receipt_file(one.receipt)), salt=b"").to_bytes()
    assert verify_receipt(bare, authorities=authorities).outcome == "OK"
    with pytest.raises(ReceiptInvalidError, match="salt"):
        verify_receipt(bare, authorities=authorities, input="secret")


def test_the_log_shows_the_receipt_and_never_the_salt(
    factory: AgentFactory, authorities: Path, node: NodeProcess
) -> None:
    answer = factory.invoke_template("docs/echo", "text")
    shown = factory.get_invocation(answer.receipt.invocation_id).receipt
    assert (shown.statement, shown.signature) == (answer.receipt.statement, answer.receipt.signature)
    assert shown.salt == ""
    assert verify_receipt(factory.receipt_file(shown), authorities=authorities).outcome == "OK"
    (listed,) = factory.list_invocations(count=1)
    assert listed.receipt.statement == ""
    store = Path(node.environment["AGENTFACTORY_NODE_STORE_DIRECTORY"])
    salt = bytes.fromhex(answer.receipt.salt)
    for path in store.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert salt not in data
            assert answer.receipt.salt.encode() not in data


@pytest.mark.parametrize(
    ("template", "text", "reason"),
    [
        ("docs/spinner", "", Reason.FUEL),
        ("docs/exit-seven", "x", Reason.GUEST_ERROR),
        ("docs/echo", "x" * 1_100_000, Reason.INPUT),
    ],
)
def test_a_failed_answer_carries_a_receipt_too(
    factory: AgentFactory, authorities: Path, template: str, text: str, reason: Reason
) -> None:
    with pytest.raises(RemoteError) as failed:
        factory.invoke_template(template, text)
    receipt = receipt_of_error(failed.value)
    assert receipt is not None
    found = verify_receipt(factory.receipt_file(receipt), authorities=authorities, input=text)
    assert found.outcome == str(reason) == str(failed.value.reason)
    with pytest.raises(ReceiptMismatchError, match=str(reason)):
        verify_receipt(factory.receipt_file(receipt), authorities=authorities, output="")


def test_the_longest_failure_with_its_receipt_fits_into_what_grpc_carries(node: NodeProcess) -> None:
    """8 KiB of metadata: the message percent-encoded, and the status in base64."""
    stub = node.agents("a" * 64, "b" * 64)
    with pytest.raises(grpc.RpcError) as error:
        stub.InvokeTemplate(pb.InvokeTemplateRequest(template="docs/spinner"), timeout=30)
    call: Any = error.value
    sent = dict(call.trailing_metadata())
    assert len(sent[DETAILS_KEY]) < 3_000


def test_what_was_refused_before_it_ran_has_no_receipt(factory: AgentFactory) -> None:
    with pytest.raises(RemoteError) as refused:
        factory.invoke_template("docs/unknown", "")
    assert receipt_of_error(refused.value) is None


def test_a_child_is_attested_below_its_parent(factory: AgentFactory, authorities: Path) -> None:
    answer = factory.invoke_template("docs/parent", "")
    assert answer.receipt.usage.child_invocations == 1
    child = next(one for one in factory.list_invocations() if one.parent_invocation_id == answer.receipt.invocation_id)
    receipt = factory.get_invocation(child.invocation_id).receipt
    found = verify_receipt(factory.receipt_file(receipt), authorities=authorities)
    assert found.parent == answer.receipt.invocation_id


def test_no_child_beyond_the_budget(factory: AgentFactory) -> None:
    answer = factory.invoke_template("docs/childless", "")
    assert '"kind":"budget"' in answer.output.replace(" ", "")
    assert answer.receipt.usage.child_invocations == 0
    fine = factory.invoke_template("docs/parent", "", limits=Limits(child_invocations=1))
    assert "from above" in fine.output


def test_a_restarted_node_signs_anew_what_it_still_knows(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path)
    world.publish(world.command("docs/echo", guests.ECHO, limits=SMALL))
    world.seed()
    files = world.installation.service("web")
    names: dict[str, Any] = {"certificate": files.certificate, "key": files.key, "authorities": files.authorities}
    process = NodeProcess(world.installation, world.environment())
    with process, AgentFactory.connect(process.target, **names) as before:
        answer = before.invoke_template("docs/echo", "x")
        kept = before.receipt_file(answer.receipt)
        assert process.stop() == 0
    with process, AgentFactory.connect(process.target, **names) as after:
        with pytest.raises(ReceiptUntrustedError, match="restarted"):
            after.receipt_file(answer.receipt)
        shown = after.get_invocation(answer.receipt.invocation_id).receipt
        assert shown.statement == answer.receipt.statement
        assert shown.key_id != answer.receipt.key_id
        again = verify_receipt(after.receipt_file(shown), authorities=files.authorities)
    assert again == verify_receipt(kept, authorities=files.authorities, input="x", output="x")


async def test_the_asynchronous_client_verifies_as_well(node: NodeProcess) -> None:
    files = node.installation.service("web")
    async with AsyncAgentFactory.connect(
        node.target, certificate=files.certificate, key=files.key, authorities=files.authorities
    ) as factory:
        answer = await factory.invoke_template("docs/echo", "text")
        assert (await factory.verify(answer, "text")).outcome == "OK"


# agentctl


@dataclass
class Done:
    status: int
    output: str
    errors: str


@pytest.fixture
def directory(node: NodeProcess, tmp_path: Path) -> Path:
    """A profile with this node and one service."""
    identity = node.installation.service("web").certificate.parent
    Profile(
        directory=tmp_path,
        control_plane="localhost:1",
        nodes={"n1": node.target},
        identities={"web": identity, "alice": node.installation.person("alice").certificate.parent},
        person="alice",
        service="web",
    ).write()
    return tmp_path


def ctl(directory: Path, *arguments: str, stdin: bytes = b"") -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", "--dir", str(directory), *arguments],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}"},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_agentctl_writes_and_verifies_a_receipt(directory: Path, authorities: Path) -> None:
    file = directory / "receipt.json"
    asked = directory / "input.txt"
    asked.write_text("héllo\n", encoding="utf-8")
    done = ctl(directory, "agent", "invoke", "docs/echo", f"@{asked}", "--receipt", str(file))
    assert done.status == 0, done.errors
    good = ctl(directory, "-o", "json", "receipt", "verify", str(file), "--input", f"@{asked}")
    assert good.status == 0, good.errors
    assert json.loads(good.output)["checked"] == ["input"]
    assert ctl(directory, "receipt", "verify", "-", "--trust", str(authorities), stdin=file.read_bytes()).status == 0
    other = ctl(directory, "receipt", "verify", str(file), "--input", "hello")
    assert (other.status, "RECEIPT_MISMATCH" in other.errors) == (8, True)
    forged = ctl(directory, "receipt", "verify", "-", stdin=file.read_bytes().replace(b'"sig": "', b'"sig": "AA'))
    assert forged.status == 8
    assert ctl(directory, "receipt", "verify", "-", stdin=b"no receipt").status == 8


def test_agentctl_does_not_believe_another_installations_receipt(directory: Path, tmp_path: Path) -> None:
    file = directory / "receipt.json"
    assert ctl(directory, "agent", "invoke", "docs/echo", "x", "--receipt", str(file)).status == 0
    stranger = NodeWorld.make(tmp_path / "stranger").installation.service("web").authorities
    done = ctl(directory, "receipt", "verify", str(file), "--trust", str(stranger))
    assert (done.status, "RECEIPT_UNTRUSTED" in done.errors) == (8, True)


def test_agentctl_keeps_the_receipt_of_a_failure(directory: Path) -> None:
    file = directory / "receipt.json"
    done = ctl(directory, "agent", "invoke", "docs/spinner", "x", "--receipt", str(file), "--limit", "fuel=1000000")
    assert done.status == 1
    shown = ctl(directory, "-o", "json", "receipt", "verify", str(file), "--input", "x")
    assert shown.status == 0, shown.errors
    assert json.loads(shown.output)["outcome"] == "FUEL"


def test_an_agents_own_limits_hold_for_each_of_its_invocations(directory: Path, factory: AgentFactory) -> None:
    made = ctl(directory, "-o", "json", "agent", "create", "docs/spinner", "--limit", "fuel=1000000")
    assert made.status == 0, made.errors
    record = json.loads(made.output)
    assert record["limits"] == {"fuel": 1_000_000}
    assert factory.get_agent(record["name"]).record.limits == {"fuel": 1_000_000}
    with pytest.raises(RemoteError) as failed:
        factory.invoke(record["name"], "", limits=Limits(fuel=40_000_000))
    receipt = receipt_of_error(failed.value)
    assert receipt is not None
    assert receipt.usage.fuel <= 1_000_000
    assert ctl(directory, "agent", "create", "docs/spinner", "--limit", "feul=1").status == 2
    with pytest.raises(RemoteError) as refused:
        factory.create_agent("docs/spinner", limits=Limits(memory_bytes=100))
    assert refused.value.reason is Reason.INVALID_REQUEST
