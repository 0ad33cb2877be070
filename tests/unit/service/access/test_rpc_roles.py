"""Every RPC of both planes × every role. The rows come from the protocol files: a new RPC without one fails here."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import agentfactory
import pytest
from google.protobuf.descriptor import FileDescriptor

from control_plane import authorisation as control_plane
from data_plane import authorisation as data_plane
from service.access.authority import Authority, Ground
from service.access.roles import BINDABLE, Binding, Effect, Held, Role, RoleBook, Rules
from service.identity import Identity
from service.peer import Peer
from service.status import PermissionDeniedError
from tests.trust_world import charter

PLANES: Mapping[str, Rules] = {"control plane": control_plane.RULES, "node": data_plane.RULES}
DOCUMENT = Path(__file__).parents[4] / "docs/access.md"
TRUST_DOMAIN = "factory.test"
BOOK = RoleBook(tuple(Binding(held=Held(role=role), persons=frozenset({f"the-{role}"})) for role in sorted(BINDABLE)))


def protocol_files() -> Iterator[FileDescriptor]:
    for module in pkgutil.walk_packages(agentfactory.__path__, "agentfactory."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR


METHODS = sorted(
    f"/{service.full_name}/{method.name}"
    for file in protocol_files()
    for service in file.services_by_name.values()
    for method in service.methods
)


def peer(role: Role) -> Peer:
    match role:
        case Role.NODE:
            identity = Identity.node(TRUST_DOMAIN, "n1")
        case Role.INVOKER:
            identity = Identity.service(TRUST_DOMAIN, "acme", "billing")
        case Role.REVIEWER:
            identity = Identity.person(TRUST_DOMAIN, "alice")
        case _:
            identity = Identity.person(TRUST_DOMAIN, f"the-{role}")
    return Peer(identity, 2e9)


def documented() -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
    """Read the tables of docs/access.md: (plane, service/method) to its effect and the roles that are ticked."""
    found: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}
    plane, columns = "", [""]
    for line in DOCUMENT.read_text().splitlines():
        if heading := re.fullmatch(r"### RPCs of the (control plane|node)", line):
            plane = heading[1]
        elif plane and line.startswith("| RPC |"):
            columns = [each.strip() for each in line.strip("| ").split("|")]
        elif plane and (row := re.fullmatch(r"\| `(\w+/\w+)` \|(.+)\|", line)):
            cells = [each.strip() for each in row[2].split("|")]
            ticked = {role for role, cell in zip(columns[2:], cells[1:], strict=True) if cell == "✓"}
            found[plane, row[1]] = (cells[0], frozenset(ticked))
        elif line.startswith("## "):
            plane = ""
    return found


def short(method: str) -> str:
    return method.rpartition(".")[2]


def test_every_rpc_of_the_protocol_has_a_row_and_every_row_is_an_rpc() -> None:
    assert {method for rules in PLANES.values() for method in rules} == set(METHODS)


@pytest.mark.parametrize("plane", PLANES)
def test_a_plane_has_a_row_for_every_rpc_of_the_services_that_it_serves(plane: str) -> None:
    module = control_plane if plane == "control plane" else data_plane
    served = {method for method in METHODS if method[1:].partition("/")[0] in module.SERVICE_NAMES}
    assert set(PLANES[plane]) == served


def test_the_document_has_the_same_tables() -> None:
    ruled = {
        (plane, short(method)): (str(rule.effect), frozenset(str(role) for role in rule.roles))
        for plane, rules in PLANES.items()
        for method, rule in rules.items()
    }
    assert documented() == ruled


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("plane", "method"), [(plane, method) for plane in PLANES for method in METHODS])
def test_a_role_may_call_what_the_document_ticks_and_nothing_else(plane: str, method: str, role: Role) -> None:
    ground = Ground(book=BOOK, charter=charter())
    authority = Authority(PLANES[plane], lambda: ground)
    ticked = documented().get((plane, short(method)), ("", frozenset[str]()))[1]
    if role in ticked:
        authority.authorise(peer(role), method)
        return
    with pytest.raises(PermissionDeniedError):
        authority.authorise(peer(role), method)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("method", ["/agentfactory.admin.v2.NewService/Do", "", "/", "agentfactory"])
def test_what_is_not_in_the_table_is_nobodys(plane: str, method: str) -> None:
    ground = Ground(book=BOOK, charter=charter())
    for role in Role:
        with pytest.raises(PermissionDeniedError):
            Authority(PLANES[plane], lambda: ground).authorise(peer(role), method)


@pytest.mark.parametrize("plane", PLANES)
def test_a_person_without_a_role_may_nothing(plane: str) -> None:
    ground = Ground(book=BOOK, charter=charter())
    stranger = Peer(Identity.person(TRUST_DOMAIN, "mallory"), 2e9)
    for method in PLANES[plane]:
        with pytest.raises(PermissionDeniedError):
            Authority(PLANES[plane], lambda: ground).authorise(stranger, method)


def test_what_only_reads_is_not_what_changes() -> None:
    """Secure mode trusts the effects: an RPC that sounds like a change may not call itself a reading one."""
    verbs = (
        "Create BatchCreate Delete Update Submit Approve Reject Rollback Release Withdraw CommentOn Deprecate Restore "
        "OpenBreak ConfirmBreak"
    )
    changes = re.compile(rf"/({verbs.replace(' ', '|')})")
    for rules in PLANES.values():
        for method, rule in rules.items():
            assert (rule.effect is Effect.WRITE) is bool(changes.search(method)), method
