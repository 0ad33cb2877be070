"""What persons do to changes that are not published by it: on real records, with the history that it leaves."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from control_plane.lifecycle import Action, ChangeState, TransitionRefusedError
from control_plane.mutation import Ask, Asked, unasked
from control_plane.review import EtagMismatchError, NotAllowedError
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations
from tests.unit.control_plane.world import COMMAND, SOURCE, World, document, only_try, source_document

TOOL: dict[str, Any] = {"code": {"module": "tool.wasm", "abi": "command"}}


def on_etag(person: str, etag: str) -> Ask[object]:
    return replace(unasked(person), etag=etag)


async def test_a_version_from_draft_to_revoked_with_everything_on_record(world: World) -> None:
    await world.start()
    draft = await world.submit(document("tool", **TOOL), COMMAND, is_draft=True)
    assert (draft.state, world.active()) == (ChangeState.DRAFT, [])
    sent = await world.intake.send_draft(draft.number, by="alice")
    assert (sent.number, sent.state) == (draft.number, ChangeState.IN_REVIEW)
    await world.desk.comment(draft.number, by="bob", text="why 64 MiB?")
    await world.approve(sent, "bob")
    active = (await world.approve(sent, "carol")).change
    assert active.state is ChangeState.ACTIVE
    deprecated = await world.close(active, Action.DEPRECATE, by="bob", why="use docs/other")
    assert (deprecated.state, deprecated.state_reason) == (ChangeState.DEPRECATED, "bob: use docs/other")
    assert world.active() == ["docs/tool@1.0.0"], "it runs on"
    revoked = Revocations(templates=frozenset({active.sha256}))
    await world.publisher.revoke(revoked, what="template docs/tool@1.0.0", author="carol", why="bad")
    assert world.stored(draft).state is ChangeState.REVOKED
    assert [(each.by, each.action, each.after, each.text) for each in world.store.events(draft.number)] == [
        ("alice", Action.DRAFT, ChangeState.DRAFT, draft.sha256),
        ("alice", Action.SUBMIT, ChangeState.IN_REVIEW, draft.sha256),
        ("bob", Action.COMMENT, ChangeState.IN_REVIEW, "why 64 MiB?"),
        ("bob", Action.APPROVE, ChangeState.IN_REVIEW, ""),
        ("carol", Action.APPROVE, ChangeState.ACTIVE, ""),
        ("bob", Action.DEPRECATE, ChangeState.DEPRECATED, "use docs/other"),
        ("carol", Action.REVOKE, ChangeState.REVOKED, "revoke template docs/tool@1.0.0: bad"),
    ]


class TestDrafts:
    async def test_are_not_approved_before_they_are_submitted(self, world: World) -> None:
        await world.start()
        draft = await world.submit(document("base"), is_draft=True)
        with pytest.raises(TransitionRefusedError) as refused:
            await world.approve(draft, "bob", "carol")
        assert refused.value.reason is Reason.CHANGE_STATE
        assert world.stored(draft) == draft

    async def test_are_resolved_anew_when_they_are_submitted(self, world: World) -> None:
        await world.start()
        await world.publish_image("0.1.0")
        draft = await world.submit(source_document(), SOURCE, is_draft=True)
        await world.publish_image("0.2.0", b"\0asm image two")
        world.clock.advance(days=30)
        sent = await world.intake.send_draft(draft.number, by="alice")
        assert sent.sha256 != draft.sha256
        assert b"cpython@0.2.0" in sent.resolved
        assert (sent.created_at, sent.updated_at) == (draft.created_at, world.clock())
        assert sent.approval_expires > draft.approval_expires, "an approval has its whole life before it"
        assert (await world.approve(sent, "bob", "carol")).change.state is ChangeState.ACTIVE

    async def test_give_way_to_what_their_author_sends_and_to_nobody_else(self, world: World) -> None:
        await world.start()
        first = await world.submit(document("tool", **TOOL), COMMAND, is_draft=True)
        same = await world.submit(document("tool", **TOOL), COMMAND, is_draft=True)
        assert same == first
        other = await world.submit(document("tool", **TOOL), COMMAND, author="bob", is_draft=True)
        second = await world.submit(document("tool", **TOOL, role="another"), COMMAND, is_draft=True)
        assert second.number not in {first.number, other.number}
        assert (world.stored(first).state, world.stored(other).state) == (ChangeState.WITHDRAWN, ChangeState.DRAFT)
        final = await world.submit(document("tool", **TOOL, role="another"), COMMAND)
        assert (final.state, world.stored(second).state) == (ChangeState.IN_REVIEW, ChangeState.WITHDRAWN)
        with pytest.raises(AgentFactoryError) as refused:
            await world.intake.send_draft(other.number, by="bob")
        assert refused.value.reason is Reason.VERSION_EXISTS

    async def test_are_their_author_s_to_submit(self, world: World) -> None:
        await world.start()
        draft = await world.submit(document("base"), is_draft=True)
        with pytest.raises(NotAllowedError):
            await world.intake.send_draft(draft.number, by="bob")
        with pytest.raises(EtagMismatchError):
            await world.intake.send_draft(draft.number, by="alice", ask=on_etag("alice", "1.9"))
        tried = await world.intake.send_draft(draft.number, by="alice", ask=only_try("alice"))
        assert tried.state is ChangeState.IN_REVIEW
        assert world.stored(draft) == draft
        await world.intake.send_draft(draft.number, by="alice")
        with pytest.raises(TransitionRefusedError):
            await world.intake.send_draft(draft.number, by="alice")

    async def test_go_with_the_module_that_is_revoked(self, world: World) -> None:
        await world.start()
        draft = await world.submit(document("tool", **TOOL), COMMAND, is_draft=True)
        other = await world.submit(document("base"), is_draft=True)
        module = Revocations(modules=frozenset({hashlib.sha256(COMMAND).hexdigest()}))
        await world.publisher.revoke(module, what="module", author="bob", why="")
        assert world.stored(draft).state is ChangeState.REVOKED
        assert world.stored(other).state is ChangeState.DRAFT


class TestWithdrawing:
    async def test_is_the_author_s_and_frees_the_version(self, world: World) -> None:
        await world.start()
        change = await world.submit(document("base"))
        await world.approve(change, "bob")
        with pytest.raises(NotAllowedError, match="expected alice"):
            await world.close(change, Action.WITHDRAW, by="bob")
        closed = await world.close(change, Action.WITHDRAW, by="alice")
        assert (closed.state, closed.state_reason) == (ChangeState.WITHDRAWN, "alice")
        again = await world.submit(document("base", role="better"))
        assert again.number > change.number
        with pytest.raises(TransitionRefusedError) as refused:
            await world.approve(change, "carol")
        assert refused.value.reason is Reason.CHANGE_CLOSED

    async def test_works_when_the_charter_has_dropped_the_domain(self, world: World) -> None:
        await world.start()
        change = await world.submit(document("base"))
        domains = {name: each for name, each in world.installation.charter.domains.items() if name != "docs"}
        await world.publisher.update_trust(world.installation.amended_charter(domains=domains), author="root")
        closed = await world.close(change, Action.WITHDRAW, by="alice", why="moved")
        assert closed.state is ChangeState.WITHDRAWN


class TestDeprecating:
    async def test_survives_generations_and_restarts_until_it_is_restored(self, world: World) -> None:
        await world.start()
        one = await world.publish(document("tool", "1.0.0", **TOOL), COMMAND)
        await world.close(one, Action.DEPRECATE, by="alice", why="old")
        await world.publish(document("other"))
        assert world.state_of("docs/tool@1.0.0") == "DEPRECATED"
        again = await world.restarted().start()
        assert again.state_of("docs/tool@1.0.0") == "DEPRECATED"
        await again.publish(document("tool", "1.1.0", **TOOL), COMMAND + b"!")
        assert again.stored(one).state is ChangeState.DEPRECATED
        tried = await again.desk.close(one.number, Action.RESTORE, by="bob", why="", ask=only_try("bob"))
        assert tried.change.state is ChangeState.SUPERSEDED
        assert again.state_of("docs/tool@1.0.0") == "DEPRECATED"
        restored = await again.close(one, Action.RESTORE, by="bob", why="needed after all")
        assert (restored.state, restored.state_reason) == (ChangeState.SUPERSEDED, "")
        assert again.state_of("docs/tool@1.0.0") == "SUPERSEDED"
        with pytest.raises(TransitionRefusedError):
            await again.close(one, Action.RESTORE, by="bob")
        again.store.close()

    async def test_new_versions_build_on_another_one_if_there_is_one(self, world: World) -> None:
        await world.start()
        await world.publish_image("0.1.0")
        newer = await world.publish_image("0.2.0", b"\0asm image two")
        await world.close(newer, Action.DEPRECATE, by="bob", why="leaks")
        change = await world.submit(source_document(), SOURCE)
        assert b"cpython@0.1.0" in change.resolved
        assert not [each for each in change.warnings if "deprecated" in each]
        older = next(each for each in world.store.changes() if str(each.ref) == "images/cpython@0.1.0")
        await world.close(older, Action.DEPRECATE, by="bob", why="old")
        warned = await world.submit(source_document("late"), SOURCE)
        assert b"cpython@0.2.0" in warned.resolved
        assert [each for each in warned.warnings if each.startswith("images/cpython@0.2.0 is deprecated")]

    async def test_a_revocation_that_is_lifted_leaves_it_to_the_plan(self, world: World) -> None:
        await world.start()
        change = await world.publish(document("base"))
        await world.close(change, Action.DEPRECATE, by="bob", why="old")
        revoked = Revocations(templates=frozenset({change.sha256}))
        await world.publisher.revoke(revoked, what="it", author="bob", why="")
        assert world.stored(change).state is ChangeState.REVOKED
        await world.publisher.update_trust(world.installation.amended_charter(lifted=revoked), author="root")
        assert world.stored(change).state is ChangeState.APPROVED
        assert [each.action for each in world.store.events(change.number)][-2:] == [Action.REVOKE, Action.LIFT]


async def test_an_etag_that_is_not_the_present_one_changes_nothing(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"))
    await world.desk.comment(change.number, by="carol", text="wait")
    for action in (Action.WITHDRAW, Action.REJECT):
        with pytest.raises(EtagMismatchError) as refused:
            await world.desk.close(change.number, action, by="alice", why="x", ask=on_etag("alice", change.etag))
        assert refused.value.metadata == {"etag": "1.2"}
    with pytest.raises(EtagMismatchError):
        await world.desk.comment(change.number, by="dave", text="late", ask=on_etag("dave", change.etag))
    assert world.stored(change).state is ChangeState.IN_REVIEW
    now = world.stored(change).etag
    closed = await world.desk.close(change.number, Action.WITHDRAW, by="alice", why="", ask=on_etag("alice", now))
    assert closed.change.state is ChangeState.WITHDRAWN


async def test_trying_only_changes_nothing_and_answers_as_if_it_had(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"))
    reviewed = await world.desk.close(change.number, Action.REJECT, by="bob", why="no", ask=only_try("bob"))
    assert reviewed.change.state is ChangeState.REJECTED
    said = await world.desk.comment(change.number, by="bob", text="no", ask=only_try("bob"))
    assert said.change.etag == "1.2"
    assert world.stored(change) == change
    assert len(world.store.events(change.number)) == 1


async def test_trying_to_approve_to_the_threshold_signs_and_verifies_and_publishes_nothing(world: World) -> None:
    from templates.approval import merge, sign

    await world.start()
    change = await world.submit(document("tool", **TOOL), COMMAND)
    bob, carol = (sign(change.statement, world.installation.reviewers[person]) for person in ("bob", "carol"))
    before, heard = world.publisher.present, list(world.listener.heard)
    for envelope, state in ((bob, ChangeState.IN_REVIEW), (merge(bob, carol), ChangeState.ACTIVE)):
        tried = await world.publisher.approve(change.number, envelope.to_bytes(), ask=only_try("bob"))
        assert tried.change.state is state
    for mutation in (
        world.publisher.revoke(
            Revocations(reviewers=frozenset({"bob"})), what="b", author="b", why="", ask=only_try("b")
        ),
        world.publisher.update_trust(
            world.installation.amended_charter(lease_s_max=300), author="root", ask=only_try("root")
        ),
    ):
        assert (await mutation).number == before.number + 1
    assert world.publisher.present is before
    assert world.listener.heard == heard
    assert world.stored(change) == change
    signed = world.store.signed_state()
    assert signed is not None
    assert signed.generation.number == before.number
    assert (await world.approve(change, "bob", "carol")).change.state is ChangeState.ACTIVE


async def test_the_plan_and_the_trust_documents_have_etags_too(world: World) -> None:
    await world.start()
    for version in ("1.0.0", "1.1.0"):
        await world.publish(document("tool", version, **TOOL), COMMAND)
    seen = world.publisher.present.etag
    amended = world.installation.amended_charter(lease_s_max=300)
    with pytest.raises(EtagMismatchError):
        await world.publisher.update_trust(amended, author="root", ask=on_etag("root", "another"))
    await world.publish(document("base"))
    with pytest.raises(EtagMismatchError):
        await world.publisher.rollback(0, author="bob", why="", ask=on_etag("bob", seen))
    present = world.publisher.present.etag
    await world.publisher.rollback(0, author="bob", why="", ask=on_etag("bob", present))
    assert world.active() == ["docs/tool@1.0.0"]


async def test_a_failed_commit_leaves_what_is_believed_as_it_was(world: World) -> None:
    await world.start()
    change = await world.publish(document("tool", **TOOL), COMMAND)

    def fail(_: object) -> bytes:
        raise sa.exc.OperationalError("disk", None, OSError("full"))

    ask: Ask[object] = Ask(asked=Asked(person="bob", method="m", request_id="r"), encode=fail)
    with pytest.raises(sa.exc.OperationalError):
        await world.desk.close(change.number, Action.DEPRECATE, by="bob", why="old", ask=ask)
    assert world.state_of("docs/tool@1.0.0") == "ACTIVE"
    assert world.stored(change).state is ChangeState.ACTIVE
