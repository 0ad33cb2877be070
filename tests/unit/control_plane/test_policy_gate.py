"""Where the control plane asks the policies, what a denial leaves behind, and what a broken glass does and does not."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from control_plane.break_glass import BreakGlassRefusedError, BreakGlassUnknownError, GlassState
from control_plane.lifecycle import ChangeState
from control_plane.mutation import unasked
from control_plane.policy_gate import standing_of
from control_plane.review import Change
from service.logs import LogFormat, configure_logs
from service.telemetry import BREAK_GLASS, POLICY_DECISIONS
from templates.charter import Domain
from templates.names import TemplateRef
from templates.policies.decision import PolicyDeniedError
from templates.policies.policy_set import InvalidPolicyError, read_policies
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations
from tests.installation import PERSONS, LocalInstallation, default_domains, make_installation
from tests.unit.control_plane.world import COMMAND, World, document

ADMIT = '@id("admit") permit (principal, action, resource);\n'
NO_TEAM = (
    '@id("team-label") @place("/labels/team") forbid (principal, action == Action::"submit", resource)\n'
    'unless { resource.hasTag("team") };\n'
)
EVERYONE = frozenset(PERSONS)
WHY = "payments are down, fix first"


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    """An installation with policies of its own: two of three persons approve them, and docs' templates."""
    domains = {**default_domains(), "policies": Domain(reviewers=EVERYONE, threshold=2)}
    return make_installation(tmp_path_factory.mktemp("governed") / "one", domains=domains)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logs(form=LogFormat.JSON, stream=stream)
    yield stream
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


@pytest.fixture
def world(governed: LocalInstallation, tmp_path: Path) -> Iterator[World]:
    made = World(governed, tmp_path / "state")
    yield made
    made.store.close()


def command(name: str = "tool", version: str = "1.0.0", **members: Any) -> dict[str, Any]:
    return document(name, version, code={"module": "tool.wasm", "abi": "command"}, **members)


def freeze_until(world: World, **ahead: float) -> str:
    end = world.clock() + timedelta(**ahead)
    return (
        '@id("freeze") @message("nothing new over the holidays")\n'
        'forbid (principal, action == Action::"activate", resource)\n'
        f'when {{ context.now < datetime("{end:%Y-%m-%dT%H:%M:%SZ}") }};\n'
    )


async def decree(world: World, text: str, version: str = "1.0.0") -> Change:
    """Have the text approved as policies."""
    return await world.publish(read_policies({"admission.cedar": ADMIT + text}).document(version))


async def denied(awaitable: Any) -> PolicyDeniedError:
    with pytest.raises(PolicyDeniedError) as caught:
        await awaitable
    return caught.value


def counted(world: World, metric: Any, *labels: str) -> float:
    for line in world.telemetry.prometheus_text().decode().splitlines():
        if line.startswith(metric.name + "{") and all(f'"{label}"' in line for label in labels):
            return float(line.rpartition(" ")[2])
    return 0.0


async def test_a_submission_that_the_policies_deny_is_not_stored_and_learns_which_and_where(world: World) -> None:
    await world.start()
    await decree(world, NO_TEAM)
    for validate_only in (True, False):
        error = await denied(world.submit(command(), COMMAND, validate_only=validate_only))
        assert error.reason is Reason.POLICY_DENIED
        assert (error.metadata["policy"], error.metadata["place"]) == ("team-label", "/labels/team")
        assert error.metadata["policies"] == "policies/admission@1.0.0"
    assert [each.ref.domain for each in world.store.changes()] == ["policies"]
    assert (await world.submit(command(labels={"team": "docs"}), COMMAND)).number == 2


async def test_policies_bind_with_the_generation_that_their_last_approval_makes(world: World) -> None:
    await world.start()
    change = await world.submit(read_policies({"a.cedar": ADMIT + NO_TEAM}).document("1.0.0"))
    await world.approve(change, "bob")
    assert (await world.submit(command("before"), COMMAND)).number == 2
    reviewed = await world.approve(change, "carol")
    assert reviewed.change.state is ChangeState.APPROVED
    await denied(world.submit(command("after"), COMMAND))


async def test_policies_that_are_not_valid_cannot_be_submitted(world: World) -> None:
    await world.start()
    carried: dict[str, Any] = {**read_policies({"a.cedar": ADMIT}).document("1.0.0")}
    for spoilt in (
        {**carried, "default_config": {"cedar": {"a.cedar": "permit("}}},
        {**carried, "default_config": {"cedar": {"a.cedar": ADMIT}, "more": 1}},
        {**carried, "name": "other"},
    ):
        with pytest.raises(InvalidPolicyError):
            await world.submit(spoilt)
    assert world.store.changes() == []


async def test_no_policy_keeps_the_policies_from_being_replaced(world: World) -> None:
    await world.start()
    await decree(world, '@id("nothing") @break_glass("never") forbid (principal, action, resource);')
    await denied(world.submit(command(), COMMAND))
    await decree(world, "", "1.1.0")
    assert (await world.submit(command(), COMMAND)).state is ChangeState.IN_REVIEW


async def test_a_reviewer_whom_the_policies_refuse_does_not_count(world: World) -> None:
    await world.start()
    await decree(
        world, '@id("not-carol") forbid (principal == Person::"carol", action == Action::"approve", resource);'
    )
    change = await world.submit(command(), COMMAND)
    await world.approve(change, "bob")
    assert (await denied(world.approve(change, "carol"))).metadata["denied_by"] == "not-carol"
    stored = world.store.change(change.number)
    assert stored is not None
    assert stored.tally(world.publisher.present.charter, Revocations()).counted == {"bob"}


async def test_a_freeze_keeps_complete_approvals_until_it_ends(world: World) -> None:
    await world.start()
    await decree(world, freeze_until(world, hours=2))
    change = await world.submit(command(), COMMAND)
    await world.approve(change, "bob")
    error = await denied(world.approve(change, "carol"))
    assert error.metadata["action"] == "activate"
    assert "nothing new over the holidays" in error.message
    stored = world.store.change(change.number)
    assert stored is not None
    assert stored.state is ChangeState.IN_REVIEW
    assert stored.tally(world.publisher.present.charter, Revocations()).is_reached
    assert world.active() == []
    world.clock.advance(hours=3)
    assert (await world.approve(change, "carol")).change.state is ChangeState.ACTIVE


async def test_a_rollback_asks_of_each_version_that_becomes_active_again(world: World) -> None:
    await world.start()
    await world.publish(command(), COMMAND)
    first = world.publisher.present.number
    await world.publish(command(version="1.1.0"), COMMAND)
    await decree(
        world,
        '@id("no-way-back") forbid (principal == Person::"bob", action == Action::"rollback",'
        ' resource in Template::"docs/tool");',
    )
    error = await denied(world.publisher.rollback(first, author="bob", why="try"))
    assert (error.metadata["action"], error.metadata["denied_by"]) == ("rollback", "no-way-back")
    assert world.active() == ["docs/tool@1.1.0"]
    await world.publisher.rollback(first, author="carol", why="try")
    assert world.active() == ["docs/tool@1.0.0"]


async def test_the_difference_to_the_active_version_is_a_fact(world: World) -> None:
    await world.start()
    await decree(world, '@id("no-wider") forbid (principal, action, resource) when { resource.widens } '
                        "unless { resource.is_new };")  # fmt: skip
    await world.publish(command(), COMMAND)
    kv = {"kv": {"namespace": "notes", "bytes_max": 1024}}
    assert (await denied(world.submit(command(version="1.1.0", grants=kv), COMMAND))).metadata["policy"] == "no-wider"
    assert (await world.submit(command(version="1.2.0"), COMMAND)).state is ChangeState.IN_REVIEW


async def test_revoked_policies_deny_everything_and_never_bring_an_older_version_back(world: World) -> None:
    await world.start()
    await decree(world, "", "1.0.0")
    strict = await decree(world, NO_TEAM, "1.1.0")
    await world.publisher.revoke(
        Revocations(templates=frozenset({strict.sha256})), what="template", author="bob", why="mistake"
    )
    error = await denied(world.submit(command(labels={"team": "docs"}), COMMAND))
    assert error.reason is Reason.POLICY_FAILED
    assert "policies/admission@1.1.0" in error.message
    assert "TEMPLATE_REVOKED" in error.message
    await decree(world, "", "1.2.0")
    await world.submit(command(), COMMAND)


async def test_approvals_of_policies_that_have_run_out_deny_everything(world: World) -> None:
    await world.start()
    await decree(world, "")
    world.clock.advance(days=91)
    error = await denied(world.submit(command(), COMMAND))
    assert "APPROVAL_EXPIRED" in error.message


async def test_policies_that_were_written_into_the_store_without_approval_do_not_count(world: World) -> None:
    await world.start()
    change = await decree(world, NO_TEAM)
    stored = world.store.change(change.number)
    assert stored is not None
    lax = await world.submit(read_policies({"a.cedar": ADMIT}).document("1.1.0"))
    forge = sa.text("UPDATE changes SET envelope = :envelope, generation = 2, state = 'APPROVED' WHERE number = :n")
    with world.store._engine.begin() as connection:
        connection.execute(forge, {"envelope": stored.envelope, "n": lax.number})
    restarted = world.restarted()
    await restarted.start()
    with pytest.raises(AgentFactoryError) as caught:
        await restarted.submit(command(labels={"team": "docs"}), COMMAND)
    assert caught.value.reason is Reason.POLICY_FAILED
    restarted.store.close()


async def test_a_charter_whose_floor_names_policies_wants_them(governed: LocalInstallation, tmp_path: Path) -> None:
    world = World(governed, tmp_path / "state")
    await world.start()
    assert standing_of(world.publisher.present, world.clock()).named == "built-in defaults"
    ref = TemplateRef.parse("policies/admission@1.0.0")
    await world.publisher.update_trust(governed.amended_charter(floors={ref.template_name: ref.version}), author="bob")
    error = await denied(world.submit(command(), COMMAND))
    assert "floor" in error.message
    world.store.close()


async def test_two_persons_break_the_glass_for_one_version_and_everybody_hears(
    world: World, logged: io.StringIO
) -> None:
    await world.start()
    await decree(world, freeze_until(world, hours=48))
    present = world.publisher.present
    fix, other = await world.submit(command("fix"), COMMAND), await world.submit(command("other"), COMMAND)
    glass = await world.glasses.open(fix.ref, why=WHY, minutes=30, present=present, ask=unasked("bob"))
    await world.approve(fix, "bob")
    await world.approve(other, "bob")
    await denied(world.approve(fix, "carol"))  # one person alone has put nothing aside
    with pytest.raises(BreakGlassRefusedError, match="second person"):
        await world.glasses.confirm(glass.name, present=present, ask=unasked("bob"))
    await world.glasses.confirm(glass.name, present=present, ask=unasked("carol"))
    await denied(world.approve(other, "carol"))
    assert (await world.approve(fix, "carol")).change.state is ChangeState.ACTIVE
    (noted,) = await world.glasses.page(before=None, limit=10)
    assert [(use.action, use.person, use.policies) for use in noted.uses] == [("activate", "alice", ("freeze",))]
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    alerts = [each for each in lines if str(each["event"]).startswith("break_glass_")]
    assert [(each["event"], each["level"], each["person"]) for each in alerts] == [
        ("break_glass_opened", "warning", "bob"),
        ("break_glass_confirmed", "warning", "carol"),
        ("break_glass_used", "warning", "alice"),
    ]
    assert all((each["template"], each["why"]) == ("docs/fix@1.0.0", WHY) for each in alerts)
    assert [counted(world, BREAK_GLASS, each) for each in ("opened", "confirmed", "used")] == [1, 1, 1]
    assert counted(world, POLICY_DECISIONS, "activate", "deny") == 2


async def test_a_broken_glass_replaces_no_approval(world: World) -> None:
    await world.start()
    await decree(world, freeze_until(world, hours=48))
    change = await world.submit(command(), COMMAND)
    await broken(world, change.ref)
    reviewed = await world.approve(change, "bob")
    assert (reviewed.change.state, reviewed.tally.is_reached) == (ChangeState.IN_REVIEW, False)
    assert world.active() == []
    with pytest.raises(AgentFactoryError) as caught:
        await world.approve(change, "alice")  # the author
    assert caught.value.reason is Reason.APPROVAL_BY_AUTHOR


async def test_a_broken_glass_ends_with_its_time_when_closed_and_with_its_persons(world: World) -> None:
    await world.start()
    await decree(world, freeze_until(world, days=30))
    changes = [await world.submit(command(f"tool{number}"), COMMAND) for number in range(3)]
    for change in changes:
        await world.approve(change, "bob")
    await broken(world, changes[0].ref, minutes=30)
    world.clock.advance(minutes=30)
    await denied(world.approve(changes[0], "carol"))
    closed = await broken(world, changes[1].ref)
    await world.glasses.close(closed, present=world.publisher.present, ask=unasked("alice"))
    await denied(world.approve(changes[1], "carol"))
    assert [each.state(world.clock()) for each in await world.glasses.page(before=None, limit=2)] == [
        GlassState.CLOSED,
        GlassState.LAPSED,
    ]
    await broken(world, changes[2].ref)
    await world.publisher.revoke(
        Revocations(reviewers=frozenset({"bob"})), what="reviewer", author="carol", why="key stolen"
    )
    assert await world.glasses.usable(changes[2].ref, present=world.publisher.present) is None


async def test_a_broken_glass_survives_a_restart_and_an_unknown_one_is_none(world: World) -> None:
    await world.start()
    name = await broken(world, TemplateRef.parse("docs/tool@1.0.0"))
    restarted = world.restarted()
    await restarted.start()
    (found,) = await restarted.glasses.page(before=None, limit=10)
    assert (found.name, found.state(world.clock()), found.confirmed_by) == (name, GlassState.OPEN, "carol")
    for unknown in ("breakGlass/99", "99", "changes/1", "breakGlass/x"):
        with pytest.raises(BreakGlassUnknownError):
            await restarted.glasses.confirm(unknown, present=restarted.publisher.present, ask=unasked("carol"))
    restarted.store.close()


async def broken(world: World, ref: TemplateRef, minutes: int = 60) -> str:
    present = world.publisher.present
    glass = await world.glasses.open(ref, why=WHY, minutes=minutes, present=present, ask=unasked("bob"))
    return (await world.glasses.confirm(glass.name, present=present, ask=unasked("carol"))).name
