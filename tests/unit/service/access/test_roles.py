"""Who holds which role, and where."""

import json
from typing import Any

import pytest

from control_plane.authorisation import ADMIN, RULES
from data_plane import authorisation as data_plane
from service.access.authority import Authority, Ground, GroundKeeper
from service.access.role_file import InvalidRolesError, read_roles
from service.access.roles import Role, standing
from service.identity import Identity
from service.peer import Peer
from service.status import PermissionDeniedError
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.trust_world import charter

SUBMIT = f"{ADMIN}TemplateService/SubmitTemplate"
REVOKE = f"{ADMIN}RolloutService/Revoke"
RELEASE = f"/{data_plane.NODE_SERVICE}/ReleaseQuarantine"


def person(name: str, *groups: str) -> Peer:
    return Peer(Identity.person("factory.test", name), 2e9, groups=frozenset(groups))


def book(*bindings: dict[str, Any]) -> bytes:
    return json.dumps({"schema": 1, "bindings": list(bindings)}).encode()


def authority(roles: bytes | None, *, rules: Any = RULES, revoked: Revocations = NO_REVOCATIONS) -> Authority:
    ground = Ground(book=None if roles is None else read_roles(roles), charter=charter(), revocations=revoked)
    return Authority(rules, lambda: ground)


class TestWithoutARoleFile:
    def test_every_certified_person_may_look_and_propose(self) -> None:
        authority(None).require(person("mallory"), SUBMIT, domain="docs")

    def test_only_persons_of_the_charter_operate(self) -> None:
        authority(None, rules=data_plane.RULES).require(person("alice"), f"/{data_plane.NODE_SERVICE}/Drain")
        with pytest.raises(PermissionDeniedError, match="operator"):
            authority(None, rules=data_plane.RULES).authorise(person("mallory"), f"/{data_plane.NODE_SERVICE}/Drain")

    def test_before_there_is_a_charter_any_person_may_operate_a_node_that_serves_nobody(self) -> None:
        Authority(data_plane.RULES).authorise(person("mallory"), f"/{data_plane.NODE_SERVICE}/Drain")


class TestWithARoleFile:
    def test_only_who_is_named_holds_anything(self) -> None:
        judged = authority(book({"role": "author", "persons": ["anna"]}))
        judged.require(person("anna"), SUBMIT, domain="docs")
        with pytest.raises(PermissionDeniedError, match="no role"):
            judged.authorise(person("otto"), SUBMIT)

    def test_a_scope_ends_where_it_says(self) -> None:
        judged = authority(book({"role": "author", "persons": ["anna"], "domains": ["docs"]}))
        judged.authorise(person("anna"), SUBMIT)
        judged.require(person("anna"), SUBMIT, domain="docs")
        with pytest.raises(PermissionDeniedError, match="for the domain images"):
            judged.require(person("anna"), SUBMIT, domain="images")

    def test_scopes_of_two_roles_do_not_mix(self) -> None:
        judged = authority(
            book(
                {"role": "author", "persons": ["anna"], "domains": ["docs"]},
                {"role": "viewer", "persons": ["anna"]},
            )
        )
        with pytest.raises(PermissionDeniedError):
            judged.require(person("anna"), SUBMIT, domain="images")

    def test_an_operator_of_one_tenant_releases_nothing_of_another_and_not_everything(self) -> None:
        judged = authority(book({"role": "operator", "persons": ["olga"], "tenants": ["acme"]}), rules=data_plane.RULES)
        judged.require(person("olga"), RELEASE, tenant="acme")
        for tenant in ("rival", "*"):
            with pytest.raises(PermissionDeniedError):
                judged.require(person("olga"), RELEASE, tenant=tenant)

    def test_what_concerns_everybody_takes_a_role_that_is_held_everywhere(self) -> None:
        drain = f"/{data_plane.NODE_SERVICE}/Drain"
        bindings = (
            {"role": "operator", "persons": ["olga"]},
            {"role": "operator", "persons": ["otto"], "domains": ["docs"]},
            {"role": "operator", "persons": ["oskar"], "tenants": ["acme"]},
        )
        for rules, method in (
            (RULES, REVOKE),
            (RULES, f"{ADMIN}AccessService/BlockAddress"),
            (data_plane.RULES, drain),
        ):
            judged = authority(book(*bindings), rules=rules)
            judged.require_everywhere(person("olga"), method)
            for scoped in ("otto", "oskar"):
                judged.authorise(person(scoped), method)
                with pytest.raises(PermissionDeniedError):
                    judged.require_everywhere(person(scoped), method)

    def test_a_reviewer_of_any_domain_stops_things_for_all_of_them_and_does_nothing_else_there(self) -> None:
        judged = authority(book())
        judged.require_everywhere(person("carol"), REVOKE)
        with pytest.raises(PermissionDeniedError):
            judged.require_everywhere(person("carol"), f"{ADMIN}AccessService/BlockAddress")

    def test_members_of_a_group_hold_what_the_group_holds(self) -> None:
        judged = authority(book({"role": "admin", "groups": ["platform"]}))
        judged.authorise(person("anna", "platform", "other"), f"{ADMIN}AccessService/SetSecureMode")
        with pytest.raises(PermissionDeniedError):
            judged.authorise(person("anna", "other"), f"{ADMIN}AccessService/SetSecureMode")

    def test_reviewers_are_those_of_the_charter_and_of_their_domains(self) -> None:
        judged = authority(book())
        judged.require(person("carol"), REVOKE, domain="docs")
        with pytest.raises(PermissionDeniedError):
            judged.require(person("carol"), REVOKE, domain="images")
        with pytest.raises(PermissionDeniedError):
            judged.require(person("mallory"), REVOKE)


def test_a_revoked_person_holds_nothing_whatever_a_file_says() -> None:
    judged = authority(
        book({"role": "admin", "persons": ["alice"]}), revoked=Revocations(reviewers=frozenset({"alice"}))
    )
    assert judged.standing(person("alice")).roles == frozenset()


def test_a_person_named_like_a_machine_is_a_person() -> None:
    held = standing(Identity.person("factory.test", "node"), book=read_roles(book()), charter=charter())
    assert Role.NODE not in held.roles


def test_an_invoker_is_one_of_its_own_tenant() -> None:
    held = standing(Identity.service("factory.test", "acme", "billing"), book=None, charter=None)
    assert held.permits({Role.INVOKER}, tenant="acme")
    assert not held.permits({Role.INVOKER}, tenant="rival")


def test_standings_follow_the_generation_and_the_role_file() -> None:
    present = [charter()]
    keeper = GroundKeeper(lambda: present[0], lambda seen: (seen, Revocations()))
    judged = Authority(RULES, keeper)
    assert Role.REVIEWER in judged.standing(person("carol")).roles
    assert judged.standing(person("carol")) is judged.standing(person("carol"))
    present[0] = charter(domains={})
    assert Role.REVIEWER not in judged.standing(person("carol")).roles
    keeper.book = read_roles(book({"role": "viewer", "persons": ["carol"]}))
    assert judged.standing(person("carol")).roles == {Role.VIEWER}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"schema": 1}',
        b'{"schema": 2, "bindings": []}',
        b'{"schema": 1, "bindings": [], "bindings": []}',
        b'{"schema": 1, "bindings": {}}',
        b" " * 1_048_577,
        book({"persons": ["a"]}),
        book({"role": "author"}),
        book({"role": "author", "persons": []}),
        book({"role": "author", "persons": ["*"]}),
        book({"role": "author", "persons": "anna"}),
        book({"role": "author", "persons": [7]}),
        book({"role": "author", "persons": ["anna"], "tenant": ["x"]}),
        book({"role": "author", "persons": ["anna"], "domains": ["Docs"]}),
        *(book({"role": role, "persons": ["anna"]}) for role in ("reviewer", "node", "invoker", "root", "ADMIN")),
    ],
)
def test_what_is_not_a_role_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRolesError):
        read_roles(data)
