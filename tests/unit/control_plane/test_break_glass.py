"""The table of `control_plane.break_glass`, fact by fact, and the records of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.break_glass import (
    CONFIRM_WITHIN,
    BreakGlass,
    BreakGlassRefusedError,
    GlassState,
    close,
    confirm,
    open_glass,
    usable,
    used,
)
from control_plane.sqlite_break_glass import SqliteBreakGlass
from templates.charter import Charter, Domain
from templates.names import TemplateRef
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.installation import LocalInstallation
from tests.unit.control_plane.world import World

NOW = datetime(2026, 12, 24, 10, tzinfo=UTC)
REF = TemplateRef.parse("docs/tool@1.0.0")
WHY = "payments are down, fix first"


@pytest.fixture
def charter(installation: LocalInstallation) -> Charter:
    domains = {
        "docs": Domain(reviewers=frozenset({"alice", "bob"}), threshold=2),
        "policies": Domain(reviewers=frozenset({"carol"}), threshold=1),
        "other": Domain(reviewers=frozenset({"dora"}), threshold=1),
    }
    return replace(installation.charter, domains=domains)


def opened(charter: Charter, by: str = "alice", **members: Any) -> BreakGlass:
    values: dict[str, Any] = {"why": WHY, "minutes": 30, "now": NOW, **members}
    return open_glass(REF, by=by, charter=charter, revocations=NO_REVOCATIONS, **values)


def in_state(charter: Charter, state: GlassState) -> BreakGlass:
    glass = opened(charter)
    if state is not GlassState.WAITING:
        glass = confirm(glass, by="bob", charter=charter, revocations=NO_REVOCATIONS, now=NOW)
    if state is GlassState.CLOSED:
        glass = close(glass, by="alice", charter=charter, revocations=NO_REVOCATIONS, now=NOW)
    return glass


Step = Callable[[BreakGlass, Charter], BreakGlass]
LATER = NOW + timedelta(minutes=30)


def _confirm(by: str, now: datetime = NOW) -> Step:
    return lambda glass, charter: confirm(glass, by=by, charter=charter, revocations=NO_REVOCATIONS, now=now)


def _close(by: str, now: datetime = NOW) -> Step:
    return lambda glass, charter: close(glass, by=by, charter=charter, revocations=NO_REVOCATIONS, now=now)


@pytest.mark.parametrize(
    ("state", "step", "expected"),
    [
        (GlassState.WAITING, _confirm("bob"), GlassState.OPEN),
        (GlassState.WAITING, _confirm("carol"), GlassState.OPEN),  # who reviews the policies may, everywhere
        (GlassState.WAITING, _confirm("alice"), None),
        (GlassState.WAITING, _confirm("dora"), None),
        (GlassState.WAITING, _confirm("nobody"), None),
        (GlassState.WAITING, _confirm("bob", NOW + CONFIRM_WITHIN), None),
        (GlassState.WAITING, _close("bob"), GlassState.CLOSED),
        (GlassState.WAITING, _close("dora"), None),
        (GlassState.WAITING, _close("bob", NOW + CONFIRM_WITHIN), None),
        (GlassState.OPEN, _confirm("bob"), GlassState.OPEN),
        (GlassState.OPEN, _confirm("carol"), None),
        (GlassState.OPEN, _confirm("bob", LATER), None),
        (GlassState.OPEN, _close("carol"), GlassState.CLOSED),
        (GlassState.OPEN, _close("dora"), None),
        (GlassState.OPEN, _close("bob", LATER), None),
        (GlassState.CLOSED, _confirm("bob"), None),
        (GlassState.CLOSED, _close("bob"), GlassState.CLOSED),
    ],
)
def test_each_fact_in_each_state(charter: Charter, state: GlassState, step: Step, expected: GlassState | None) -> None:
    glass = in_state(charter, state)
    assert glass.state(NOW) is state
    if expected is None:
        with pytest.raises(BreakGlassRefusedError):
            step(glass, charter)
    else:
        assert step(glass, charter).state(NOW) is expected


def test_its_time_begins_with_the_second_person_and_ends_by_itself(charter: Charter) -> None:
    glass = confirm(
        opened(charter), by="bob", charter=charter, revocations=NO_REVOCATIONS, now=NOW + timedelta(minutes=59)
    )
    assert glass.expires == NOW + timedelta(minutes=89)
    assert glass.state(NOW + timedelta(minutes=88, seconds=59)) is GlassState.OPEN
    assert glass.state(NOW + timedelta(minutes=89)) is GlassState.LAPSED


@pytest.mark.parametrize(
    "members", [{"by": "dora"}, {"why": "fix"}, {"why": " " * 50}, {"why": "x" * 1001}, {"minutes": 241}]
)
def test_no_reviewer_no_real_reason_too_long_nothing_is_opened(charter: Charter, members: dict[str, Any]) -> None:
    with pytest.raises(BreakGlassRefusedError):
        opened(charter, **members)


def test_whoever_is_revoked_opens_confirms_and_keeps_nothing_open(charter: Charter) -> None:
    for person in ("alice", "bob"):
        revoked = Revocations(reviewers=frozenset({person}))
        with pytest.raises(BreakGlassRefusedError):
            confirm(opened(charter), by="bob", charter=charter, revocations=revoked, now=NOW)
        glass = in_state(charter, GlassState.OPEN)
        assert usable([glass], REF, charter=charter, revocations=NO_REVOCATIONS, now=NOW) == glass
        assert usable([glass], REF, charter=charter, revocations=revoked, now=NOW) is None
    with pytest.raises(BreakGlassRefusedError):
        open_glass(
            REF,
            by="alice",
            why=WHY,
            minutes=5,
            charter=charter,
            revocations=Revocations(reviewers=frozenset({"alice"})),
            now=NOW,
        )


def test_it_is_for_one_version_alone(charter: Charter) -> None:
    glass = in_state(charter, GlassState.OPEN)
    for other in ("docs/tool@1.0.1", "docs/tools@1.0.0", "policies/tool@1.0.0"):
        ref = TemplateRef.parse(other)
        assert usable([glass], ref, charter=charter, revocations=NO_REVOCATIONS, now=NOW) is None


def test_records_come_back_as_they_were_stored(charter: Charter, world: World) -> None:
    store = SqliteBreakGlass(world.store)
    first = store.add(opened(charter))
    second = store.add(opened(charter, by="bob"))
    assert [each.number for each in store.all()] == [second.number, first.number]
    assert [each.number for each in store.all(before=second.number)] == [first.number]
    assert store.not_closed(REF) == []  # neither is confirmed
    confirmed = confirm(first, by="bob", charter=charter, revocations=NO_REVOCATIONS, now=NOW)
    noted = used(confirmed, action="activate", person="alice", policies=["freeze", "team-label"], now=NOW)
    store.save(noted)
    assert store.get(first.number) == noted
    assert store.not_closed(REF) == [noted]
    store.save(close(noted, by="bob", charter=charter, revocations=NO_REVOCATIONS, now=NOW))
    assert store.not_closed(REF) == []
