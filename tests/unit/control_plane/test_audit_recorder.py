"""What is written of calls: whose, from where, of which kind; and that a refusal stays one when the disk is full."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy.exc import OperationalError

from control_plane.audit import Call, Decision, about, acting, current_call, resource_name
from control_plane.audit_recorder import AuditRecorder, action_of, address_of, reads
from control_plane.authorisation import roles_of
from control_plane.sqlite_store import SqliteStore
from service.access.roles import Held, Role, Standing
from service.guard_ports import Context
from service.identity import Identity
from service.peer import Peer
from service.telemetry import Telemetry
from templates.audit_entry import Outcome
from templates.reasons import AgentFactoryError, Reason
from tests.audit_lines import audit_entries
from tests.unit.control_plane.world import Clock

CHANGING = Call(principal="spiffe://factory.test/person/alice", action="ChangeService/RejectChange")
READING = replace(CHANGING, action="ChangeService/GetChange")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(path)
    yield opened
    opened.close()


@pytest.fixture
def recorder(store: SqliteStore) -> AuditRecorder:
    return AuditRecorder(store=store, telemetry=Telemetry(), clock=Clock(), roles_of=lambda _peer: ())


class RefusedError(AgentFactoryError):
    def __init__(self, reason: Reason) -> None:
        super().__init__("a text that quotes a secret")
        self.reason = reason


class _Context:
    """What the recorder asks of a call before anybody knows whose it is."""

    def peer(self) -> str:
        return "ipv4:192.0.2.7:40000"


async def refuse(recorder: AuditRecorder, call: Call, reason: Reason) -> None:
    with acting(replace(call)):
        await recorder.refused(RefusedError(reason), None, trace_id="")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:[fe80::1%25eth0]:50000", "fe80::1"),
        ("unix:/run/socket", ""),
        ("", ""),
        ("ipv4:evil\n:1", ""),
    ],
)
def test_addresses_are_read_as_grpc_spells_them(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_what_is_no_reading_by_its_verb_changes_something() -> None:
    for verb in ("Get", "List", "Fetch", "Export", "Check", "Explain"):
        assert reads(f"XService/{verb}Thing")
    for verb in ("Submit", "Approve", "Update", "Delete", "Block", "Anything", "Verify"):
        assert not reads(f"XService/{verb}Thing")
    assert action_of("/agentfactory.admin.v1.ChangeService/RejectChange") == "ChangeService/RejectChange"


@pytest.mark.parametrize(
    "text", ["", "changes/", "changes/x", "changes/7/8", "a secret", "changes/7\n", "x" * 99 + "/7"]
)
def test_only_numbered_names_of_requests_are_kept(text: str) -> None:
    assert resource_name(text) == ""
    assert resource_name("changes/7") == "changes/7"


@pytest.mark.parametrize(
    ("call", "reason", "outcome"),
    [
        (CHANGING, Reason.CHANGE_UNKNOWN, "REFUSED"),
        (CHANGING, Reason.INTERNAL, "FAILED"),
        (CHANGING, Reason.UNAVAILABLE, "FAILED"),
        (READING, Reason.PERMISSION_DENIED, "REFUSED"),
        (READING, Reason.UNAUTHENTICATED, "REFUSED"),
        (READING, Reason.CHANGE_UNKNOWN, ""),
        (READING, Reason.INTERNAL, ""),
    ],
)
async def test_which_refusals_are_written_and_as_what(
    call: Call, reason: Reason, outcome: str, recorder: AuditRecorder, path: Path
) -> None:
    await refuse(recorder, call, reason)
    written = audit_entries(path)[1:]
    assert [(entry["outcome"], entry["code"]) for entry in written] == ([(outcome, str(reason))] if outcome else [])
    assert "secret" not in str(written)


async def test_a_refusal_is_on_the_disk_before_its_caller_hears_of_it(recorder: AuditRecorder, path: Path) -> None:
    callers = [replace(CHANGING, principal=f"p{number}") for number in range(50)]
    await asyncio.gather(*(refuse(recorder, call, Reason.POLICY) for call in callers))
    assert len(audit_entries(path)) == 51


async def test_a_call_is_its_callers_from_when_it_is_known_whose_it_is(path: Path, store: SqliteStore) -> None:
    peers: list[Peer] = []

    def roles(peer: Peer) -> tuple[str, ...]:
        peers.append(peer)
        return ("person", "admin")

    recorder = AuditRecorder(store=store, telemetry=Telemetry(), clock=Clock(), roles_of=roles)
    with acting(Call()):
        recorder.begun("/agentfactory.admin.v1.ChangeService/RejectChange", cast("Context", _Context()))
        await recorder.refused(RefusedError(Reason.UNAUTHENTICATED), None, trace_id="")
        peer = Peer(Identity.person("factory.test", "anna"), 2e9, groups=frozenset({"staff"}))
        recorder.identified(peer)
        await recorder.refused(RefusedError(Reason.PERMISSION_DENIED), None, trace_id="")
    assert peers == [peer], "roles may come from the groups of a token"
    found = [(entry["principal"], entry["roles"], entry["address"]) for entry in audit_entries(path)[1:]]
    assert found == [("", [], "192.0.2.7"), ("spiffe://factory.test/person/anna", ["person", "admin"], "192.0.2.7")]


def test_roles_are_named_with_the_scopes_that_bound_them() -> None:
    standing = Standing(
        (
            Held(role=Role.VIEWER),
            Held(role=Role.REVIEWER, domains=frozenset({"finance", "docs"})),
            Held(role=Role.OPERATOR, tenants=frozenset({"acme"})),
            Held(role=Role.OPERATOR, domains=frozenset({"docs"}), tenants=frozenset({"acme"})),
        )
    )
    assert roles_of(Peer(Identity.person("factory.test", "anna"), 2e9), standing) == (
        "person",
        "viewer",
        "reviewer:docs",
        "reviewer:finance",
        "operator:acme",
        "operator:docs/acme",
    )


async def test_a_refusal_names_what_its_handler_said_it_is_about(recorder: AuditRecorder, path: Path) -> None:
    with acting(replace(CHANGING)):
        about("templates/docs/echo@1.0.0")
        await recorder.refused(RefusedError(Reason.POLICY), None, trace_id="")
    assert audit_entries(path)[1]["resource"] == "templates/docs/echo@1.0.0"
    about("nothing")
    assert current_call() is None


async def test_where_nothing_can_be_written_a_refusal_stays_one_and_a_change_fails(
    recorder: AuditRecorder, store: SqliteStore
) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("DROP TABLE audit_entries")
    await refuse(recorder, CHANGING, Reason.POLICY)
    with pytest.raises(OperationalError), acting(replace(CHANGING)):
        await recorder.answered()


async def test_a_caller_that_goes_away_leaves_its_entry(recorder: AuditRecorder, path: Path) -> None:
    with acting(replace(CHANGING)):
        waiting = asyncio.ensure_future(recorder.note(replace(CHANGING), Decision(outcome=Outcome.REFUSED, code="X")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await recorder.close()
    assert len(audit_entries(path)) == 2
