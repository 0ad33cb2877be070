"""From submission to a published generation and back: what the control plane promises its persons, on real records."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.generation_records import GenerationUnknownError
from control_plane.lifecycle import Action, ChangeState, TransitionRefusedError
from control_plane.plan import RollbackRefusedError
from control_plane.review import ApprovalRefusedError, ChangeUnknownError
from control_plane.trust_directory import TrustUnreadableError
from templates.bundle import decompress, read_bundle
from templates.charter import Domain
from templates.names import TemplateName, Version
from templates.reasons import AgentFactoryError, Reason
from templates.repository import RoleKeys, RootSpec, build_root
from templates.revocations import Revocations
from templates.trusted_set import Belief, Installation, accept, verify_roots
from tests.installation import ENVIRONMENT, LocalInstallation, make_installation, new_signer
from tests.unit.control_plane.world import COMMAND, IMAGE, SOURCE, World, document, source_document


async def test_the_first_start_publishes_an_empty_generation_that_nodes_accept(world: World) -> None:
    await world.start()
    assert world.listener.heard == [("published", 1, 1)]
    update = world.listener.newest
    assert update is not None
    bundle = read_bundle(decompress(update.frame))
    accepted = accept(
        bundle,
        belief=Belief(root=world.installation.trust.roots[0]),
        installation=Installation(node_id="node-1", environment=ENVIRONMENT, production=False),
        now=world.clock(),
    )
    assert (accepted.generation, accepted.templates) == (1, {})


async def test_a_change_becomes_active_with_the_last_signature_it_needs(world: World) -> None:
    await world.start()
    await world.publish_image()
    change = await world.submit(source_document(), SOURCE)
    assert (change.state, change.generation) == (ChangeState.IN_REVIEW, 0)
    first = await world.approve(change, "bob")
    assert (first.change.state, first.tally.needed, first.tally.counted) == (
        ChangeState.IN_REVIEW,
        2,
        frozenset({"bob"}),
    )
    assert world.active() == []
    second = await world.approve(change, "carol")
    assert (second.change.state, second.change.generation) == (ChangeState.ACTIVE, 3)
    assert world.active() == ["docs/echo@1.0.0"]
    assert [name for name, *_ in world.listener.heard] == ["published"] * 3
    stored = world.store.change(change.number)
    assert stored is not None
    assert (stored.state, stored.generation) == (ChangeState.ACTIVE, 3)


async def test_images_and_abstract_templates_are_in_the_library_and_in_no_plan(world: World) -> None:
    await world.start()
    image = await world.publish_image()
    base = await world.publish(document("base"))
    assert (image.state, base.state) == (ChangeState.APPROVED, ChangeState.APPROVED)
    assert world.active() == []


async def test_a_bundle_carries_the_image_of_what_it_runs(world: World) -> None:
    await world.start()
    await world.publish_image()
    await world.publish(document("base"))
    await world.publish(source_document(parent="docs/base"), SOURCE)
    assert "images/templates/cpython@0.1.0.json" in world.publisher.present.bundle.targets
    assert set(world.publisher.present.accepted.code.values()) == {len(SOURCE), len(IMAGE)}


async def test_a_newer_version_supersedes_and_an_older_one_never_downgrades(world: World) -> None:
    await world.start()
    command: dict[str, Any] = {"code": {"module": "a.wasm", "abi": "command"}}
    for version in ("1.0.0", "1.2.0"):
        await world.publish(document("tool", version, **command), COMMAND)
    late = await world.publish(document("tool", "1.1.0", **command), COMMAND)
    assert world.active() == ["docs/tool@1.2.0"]
    assert world.state_of("docs/tool@1.0.0") == "SUPERSEDED"
    assert late.state is ChangeState.SUPERSEDED
    warned = await world.submit(document("tool", "1.1.5", **command), COMMAND)
    assert "docs/tool@1.2.0 is active and newer" in warned.warnings[0]


@pytest.mark.parametrize(
    ("persons", "reason"),
    [
        (("alice",), Reason.APPROVAL_BY_AUTHOR),
        (("bob", "alice"), Reason.APPROVAL_BY_AUTHOR),
        (("mallory",), Reason.APPROVAL_STRANGER),
    ],
)
async def test_signatures_that_do_not_count_are_refused_and_nothing_is_kept(
    world: World, persons: tuple[str, ...], reason: Reason
) -> None:
    await world.start()
    world.installation = replace(
        world.installation, reviewers={**world.installation.reviewers, "mallory": new_signer()}
    )
    change = await world.submit(document("base"))
    with pytest.raises(AgentFactoryError) as refused:
        await world.approve(change, *persons)
    assert refused.value.reason is reason
    stored = world.store.change(change.number)
    assert stored is not None
    assert stored.envelope is None


async def test_a_signature_over_another_change_is_refused(world: World) -> None:
    await world.start()
    one, other = await world.submit(document("one")), await world.submit(document("other"))
    with pytest.raises(AgentFactoryError) as refused:
        await world.approve(replace(one, statement=other.statement), "bob")
    assert refused.value.reason is Reason.APPROVAL_MISMATCH


async def test_a_flipped_byte_in_a_signature_is_refused(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"))
    approved = await world.approve(change, "bob")
    assert approved.change.envelope is not None
    envelope = approved.change.envelope.replace(b'"sig":"', b'"sig":"A', 1)
    with pytest.raises(AgentFactoryError) as refused:
        await world.publisher.approve(change.number, envelope)
    assert refused.value.reason in {Reason.APPROVAL_INVALID, Reason.SIGNATURE_INVALID}


async def test_two_keys_of_one_person_are_one_person(tmp_path_factory: pytest.TempPathFactory) -> None:
    second = new_signer()
    directory = tmp_path_factory.mktemp("two-keys")
    installation = make_installation(
        directory / "installation",
        amend=lambda charter: replace(
            charter,
            persons={**charter.persons, "bob": {**charter.persons["bob"], second.public_key.keyid: second.public_key}},
        ),
    )
    installation.reviewers = {**installation.reviewers, "bob-again": second}
    world = await World(installation, directory / "state").start()
    change = await world.submit(document("base"))
    with pytest.raises(ApprovalRefusedError) as both:
        await world.approve(change, "bob", "bob-again")
    await world.approve(change, "bob")
    with pytest.raises(ApprovalRefusedError) as later:
        await world.approve(change, "bob-again")
    assert both.value.reason is later.value.reason is Reason.APPROVAL_ONE_PERSON
    world.store.close()


async def test_the_same_signature_twice_counts_once_and_does_no_harm(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"))
    await world.approve(change, "bob")
    again = await world.approve(change, "bob")
    assert again.tally.counted == {"bob"}
    assert again.change.state is ChangeState.IN_REVIEW


async def test_one_person_may_work_alone_where_the_charter_says_so(world: World) -> None:
    await world.start()
    change = await world.submit(document("mine", domain="dev"))
    assert (await world.approve(change, "alice")).change.state is ChangeState.APPROVED


async def test_what_exceeds_the_ceiling_needs_more_reviewers(tmp_path_factory: pytest.TempPathFactory) -> None:
    from templates.charter import Ceiling
    from templates.grants import Grants
    from templates.limits import DEFAULT_LIMITS

    directory = tmp_path_factory.mktemp("ceiling")
    docs = Domain(
        reviewers=frozenset({"alice", "bob", "carol"}),
        threshold=1,
        ceiling=Ceiling(grants=Grants(), limits=DEFAULT_LIMITS),
        threshold_above_ceiling=2,
    )
    world = await World(
        make_installation(directory / "installation", domains={"docs": docs}), directory / "state"
    ).start()
    modest = await world.submit(document("modest"))
    greedy = await world.submit(document("greedy", limits={"fuel": DEFAULT_LIMITS.fuel + 1}))
    assert (await world.approve(modest, "bob")).change.state is ChangeState.APPROVED
    partly = await world.approve(greedy, "bob")
    assert (partly.change.state, partly.tally.needed) == (ChangeState.IN_REVIEW, 2)
    assert "fuel" in partly.tally.above_ceiling[0]
    world.store.close()


async def test_closed_changes_stay_closed(world: World) -> None:
    await world.start()
    published = await world.publish(document("base"))
    rejected = await world.submit(document("other"))
    closed = await world.close(rejected, Action.REJECT, by="bob", why="not\n  needed")
    assert (closed.state, closed.state_reason) == (ChangeState.REJECTED, "bob: not needed")
    for change in (published, rejected):
        with pytest.raises(TransitionRefusedError):
            await world.approve(change, "bob")
        with pytest.raises(TransitionRefusedError):
            await world.close(change, Action.REJECT, by="bob", why="again")
    with pytest.raises(ChangeUnknownError):
        await world.desk.close(99, Action.REJECT, by="bob", why="never was")


async def test_rejecting_takes_a_reviewer_or_the_author(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"), author="dave")
    with pytest.raises(ApprovalRefusedError) as refused:
        await world.close(change, Action.REJECT, by="mallory", why="mine")
    assert refused.value.reason is Reason.APPROVAL_STRANGER
    rejected = await world.close(change, Action.REJECT, by="dave", why="my mistake")
    assert rejected.state_reason == "dave: my mistake"


async def test_a_rejected_version_may_be_submitted_again(world: World) -> None:
    await world.start()
    first = await world.submit(document("base"))
    await world.close(first, Action.REJECT, by="bob", why="typo")
    second = await world.submit(document("base", role="better"))
    assert second.number > first.number


class TestRollback:
    async def test_names_the_older_versions_in_a_higher_generation(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        await world.publish(source_document(), SOURCE)
        await world.publish(source_document(version="1.1.0"), SOURCE + b"#")
        record = await world.publisher.rollback(3, author="bob", why="it is slow")
        assert (record.number, record.cause, record.author) == (5, "rollback to 3: it is slow", "bob")
        assert world.active() == ["docs/echo@1.0.0"]
        assert world.state_of("docs/echo@1.1.0") == "APPROVED"
        assert world.state_of("docs/echo@1.0.0") == "ACTIVE"

    async def test_zero_is_the_newest_generation_with_other_versions(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        await world.publish(source_document(), SOURCE)
        await world.publish(source_document(version="1.1.0"), SOURCE + b"#")
        await world.publish(document("base"))
        await world.publisher.refresh()
        record = await world.publisher.rollback(0, author="bob", why="")
        assert record.cause == "rollback to 3"

    async def test_after_a_rollback_a_newer_version_becomes_active_again(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        for version in ("1.0.0", "1.1.0"):
            await world.publish(source_document(version=version), SOURCE)
        await world.publisher.rollback(0, author="bob", why="")
        await world.publish(source_document(version="1.1.1"), SOURCE)
        assert world.active() == ["docs/echo@1.1.1"]

    async def test_refuses_what_may_not_run_today_and_says_all_of_it(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        change = await world.publish(source_document(), SOURCE)
        await world.publish(source_document(version="1.1.0"), SOURCE + b"#")
        await world.publisher.revoke(
            Revocations(templates=frozenset({change.sha256})), what="template", author="bob", why=""
        )
        with pytest.raises(RollbackRefusedError, match=r"1 that may not: docs/echo@1\.0\.0.*revoked"):
            await world.publisher.rollback(3, author="bob", why="")
        assert world.active() == ["docs/echo@1.1.0"]

    async def test_refuses_to_go_below_a_floor(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        directory = tmp_path_factory.mktemp("floor")
        installation = make_installation(directory / "installation")
        world = await World(installation, directory / "state").start()
        await world.publish_image()
        for version in ("1.0.0", "1.1.0"):
            await world.publish(source_document(version=version), SOURCE)
        floors = {TemplateName("docs", "echo"): Version.parse("1.1.0")}
        await world.publisher.update_trust(installation.amended_charter(floors=floors), author="alice")
        with pytest.raises(RollbackRefusedError, match=r"1\.1\.0 or newer, got 1\.0\.0"):
            await world.publisher.rollback(3, author="bob", why="")
        world.store.close()

    async def test_refuses_when_nothing_would_change_or_there_is_no_such_generation(self, world: World) -> None:
        await world.start()
        with pytest.raises(GenerationUnknownError):
            await world.publisher.rollback(0, author="bob", why="")
        with pytest.raises(GenerationUnknownError):
            await world.publisher.rollback(7, author="bob", why="")
        with pytest.raises(RollbackRefusedError, match="got the same"):
            await world.publisher.rollback(1, author="bob", why="")


class TestRevoke:
    async def test_a_template_leaves_the_plan_at_once(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        change = await world.publish(source_document(), SOURCE)
        await world.publisher.revoke(
            Revocations(templates=frozenset({change.sha256})), what="template docs/echo@1.0.0", author="bob", why="bad"
        )
        assert world.listener.heard[-1][0] == "urgent"
        assert world.active() == []
        assert world.state_of("docs/echo@1.0.0") == "REVOKED"
        with pytest.raises(AgentFactoryError) as refused:
            await world.submit(source_document(name="child", parent="docs/echo"), SOURCE)
        assert refused.value.reason is Reason.INVALID_TEMPLATE

    async def test_an_image_takes_everything_that_runs_on_it_along(self, world: World) -> None:
        await world.start()
        image = await world.publish_image()
        await world.publish(source_document(), SOURCE)
        await world.publish(document("tool", code={"module": "a.wasm", "abi": "command"}), COMMAND)
        assert image.code_sha256 is not None
        await world.publisher.revoke(
            Revocations(modules=frozenset({image.code_sha256})), what="module", author="bob", why=""
        )
        assert world.active() == ["docs/tool@1.0.0"]
        with pytest.raises(AgentFactoryError) as refused:
            await world.submit(source_document(version="1.0.1"), SOURCE)
        assert refused.value.reason is Reason.IMAGE_UNKNOWN

    async def test_a_reviewer_takes_what_falls_below_its_threshold_along(self, world: World) -> None:
        await world.start()
        tool: dict[str, Any] = {"code": {"module": "a.wasm", "abi": "command"}}
        both = await world.submit(document("both", **tool), COMMAND, author="dave")
        await world.approve(both, "alice", "bob", "carol")
        two = await world.submit(document("two", **tool), COMMAND, author="dave")
        await world.approve(two, "alice", "bob")
        await world.publisher.revoke(Revocations(reviewers=frozenset({"bob"})), what="reviewer", author="carol", why="")
        assert world.active() == ["docs/both@1.0.0"]
        change = await world.submit(document("next"), author="dave")
        with pytest.raises(ApprovalRefusedError) as refused:
            await world.approve(change, "bob")
        assert refused.value.reason is Reason.APPROVAL_BY_REVOKED

    async def test_a_change_in_review_is_closed(self, world: World) -> None:
        await world.start()
        change = await world.submit(document("base"))
        await world.publisher.revoke(
            Revocations(templates=frozenset({change.sha256})), what="template", author="bob", why=""
        )
        with pytest.raises(TransitionRefusedError):
            await world.approve(change, "bob", "carol")

    async def test_only_the_charter_lifts_it(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        directory = tmp_path_factory.mktemp("lift")
        installation = make_installation(directory / "installation")
        world = await World(installation, directory / "state").start()
        await world.publish_image()
        change = await world.publish(source_document(), SOURCE)
        revoked = Revocations(templates=frozenset({change.sha256}))
        await world.publisher.revoke(revoked, what="template", author="bob", why="")
        await world.publisher.update_trust(installation.amended_charter(lifted=revoked), author="alice")
        assert world.state_of("docs/echo@1.0.0") == "APPROVED"
        await world.publisher.rollback(3, author="bob", why="")
        assert world.active() == ["docs/echo@1.0.0"]
        world.store.close()


class TestTrust:
    @pytest.fixture
    def own(self, tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
        return make_installation(tmp_path_factory.mktemp("trust") / "installation")

    async def test_a_newer_charter_is_published_once_it_verifies(self, own: LocalInstallation) -> None:
        world = await World(own, own.directory / "state").start()
        amended = own.amended_charter(lease_s_max=120)
        record = await world.publisher.update_trust(amended, author="alice")
        assert (record.number, record.cause) == (2, "trust update")
        lease = world.publisher.present.accepted.lease
        assert lease.expires - lease.signed_at <= timedelta(seconds=120)
        world.store.close()

    async def test_what_is_not_signed_offline_changes_nothing(self, own: LocalInstallation) -> None:
        world = await World(own, own.directory / "state").start()
        forged = replace(own, targets=new_signer()).amended_charter(lease_s_max=900)
        with pytest.raises(AgentFactoryError) as refused:
            await world.publisher.update_trust(forged, author="mallory")
        assert refused.value.reason is Reason.METADATA_UNDER_THRESHOLD
        amended = own.amended_charter(lease_s_max=120)
        await world.publisher.update_trust(amended, author="alice")
        with pytest.raises(AgentFactoryError) as older:
            await world.publisher.update_trust(own.trust, author="alice")
        assert older.value.reason is Reason.METADATA_ROLLBACK
        assert world.publisher.present.number == 2
        world.store.close()

    async def test_a_domain_that_the_charter_drops_leaves_the_plan(self, own: LocalInstallation) -> None:
        world = await World(own, own.directory / "state").start()
        tool = document("tool", domain="dev", code={"module": "a.wasm", "abi": "command"})
        await world.publish(tool, COMMAND)
        domains = {name: domain for name, domain in own.charter.domains.items() if name != "dev"}
        await world.publisher.update_trust(own.amended_charter(domains=domains), author="alice")
        assert world.active() == []
        world.store.close()

    async def test_a_new_root_reaches_nodes_with_the_bundle(self, own: LocalInstallation) -> None:
        world = await World(own, own.directory / "state").start()
        spec = RootSpec(
            environment=ENVIRONMENT,
            mode=own.charter.mode,
            version=2,
            expires=own.expires,
            root=RoleKeys(keys=(own.root.public_key,)),
            targets=RoleKeys(keys=(own.targets.public_key,)),
            snapshot=RoleKeys(keys=(own.online.snapshot.public_key,)),
            timestamp=RoleKeys(keys=(own.online.timestamp.public_key,)),
        )
        newer = replace(own.trust, roots=(*own.trust.roots, build_root(spec, [own.root])))
        await world.publisher.update_trust(newer, author="alice")
        bundle = world.publisher.present.bundle
        assert verify_roots(own.trust.roots[0], bundle) == newer.roots[1]
        world.store.close()

    async def test_a_newer_charter_in_the_directory_is_taken_at_start(self, own: LocalInstallation) -> None:
        world = await World(own, own.directory / "state").start()
        await world.publish(document("base"))
        again = world.restarted()
        await again.publisher.start(own.amended_charter(lease_s_max=60))
        assert (again.publisher.present.number, again.publisher.present.charter.lease_s_max) == (3, 60)
        older = again.restarted()
        await older.publisher.start(own.trust)
        assert older.publisher.present.charter.lease_s_max == 60
        older.store.close()

    async def test_another_installation_s_documents_are_refused(
        self, own: LocalInstallation, installation: LocalInstallation
    ) -> None:
        world = await World(own, own.directory / "state").start()
        again = world.restarted()
        with pytest.raises(TrustUnreadableError, match="a state directory of its own"):
            await again.publisher.start(installation.trust)
        again.store.close()


class TestRestart:
    async def test_takes_up_where_it_stopped(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        await world.publish(source_document(), SOURCE)
        waiting = await world.submit(source_document(version="1.1.0"), SOURCE)
        await world.approve(waiting, "bob")
        lease = world.publisher.present.accepted.lease
        again = await world.restarted().start()
        assert again.publisher.present.number == 3
        assert again.active() == ["docs/echo@1.0.0"]
        assert again.publisher.present.accepted.lease.version > lease.version
        assert [name for name, *_ in again.listener.heard] == ["published", "lease"]
        assert (await again.approve(waiting, "carol")).change.state is ChangeState.ACTIVE
        again.store.close()

    async def test_rebuilds_a_damaged_bundle_from_its_records(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        await world.publish(source_document(), SOURCE)
        record = world.store.generation(3)
        assert record is not None
        path = world.directory / "blobs" / record.bundle_sha256[:2] / record.bundle_sha256
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        again = await world.restarted().start()
        assert again.publisher.present.number == 3, "the same bytes need no new number"
        assert again.active() == ["docs/echo@1.0.0"]
        again.store.close()

    async def test_survives_long_absences_as_far_as_the_offline_documents_do(self, world: World) -> None:
        await world.start()
        await world.publish_image()
        await world.publish(source_document(), SOURCE)
        world.clock.advance(days=80)
        again = await world.restarted().start()
        assert again.active() == ["docs/echo@1.0.0"]
        again.clock.advance(days=20)
        expired = await again.restarted().start()
        assert expired.active() == [], "its approval has run out"
        expired.clock.advance(days=300)
        dead = expired.restarted()
        with pytest.raises(AgentFactoryError) as refused:
            await dead.start()
        assert refused.value.reason is Reason.METADATA_EXPIRED
        dead.store.close()


class TestLease:
    async def test_is_renewed_over_the_same_generation(self, world: World) -> None:
        await world.start()
        first = world.publisher.present.accepted.lease
        world.clock.advance(seconds=60)
        await world.publisher.renew_lease()
        second = world.publisher.present.accepted.lease
        assert (world.publisher.present.number, second.version) == (1, first.version + 1)
        assert second.expires > first.expires
        assert world.listener.heard[-1] == ("lease", 1, second.version)

    async def test_is_as_long_as_it_was_told_but_never_longer_than_the_charter_allows(
        self, installation: LocalInstallation, tmp_path: object, world: World
    ) -> None:
        world.store.close()
        short = await World(installation, world.directory / "short", lease_s=30).start()
        lease = short.publisher.present.accepted.lease
        assert lease.expires - lease.signed_at == timedelta(seconds=30)
        short.store.close()
        greedy = await World(installation, world.directory / "long", lease_s=10**6).start()
        lease = greedy.publisher.present.accepted.lease
        assert lease.expires - lease.signed_at == timedelta(seconds=installation.charter.lease_s_max)
        greedy.store.close()

    async def test_keep_fresh_refreshes_the_other_roles_at_half_their_life(self, world: World) -> None:
        await world.start()
        world.clock.advance(days=4)
        keeping = asyncio.ensure_future(world.publisher.keep_fresh(every_s=0.001))
        await world.listener.hears("published", 2)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert ("published", 2, 2) in world.listener.heard

    async def test_is_renewed_in_time_after_a_charter_has_shortened_it(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        installation = make_installation(tmp_path_factory.mktemp("short") / "installation", lease_s_max=3600)
        world = await World(installation, installation.directory / "state").start()
        keeping = asyncio.ensure_future(world.publisher.keep_fresh())
        await asyncio.sleep(0)
        await world.publisher.update_trust(installation.amended_charter(lease_s_max=1), author="alice")
        await world.listener.hears("lease", 2)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        world.store.close()

    async def test_keep_fresh_outlives_an_expired_root(self, world: World) -> None:
        await world.start()
        world.clock.advance(days=400)
        keeping = asyncio.ensure_future(world.publisher.keep_fresh(every_s=0.001))
        done, _ = await asyncio.wait({keeping}, timeout=0.05)
        assert not done
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert world.publisher.present.number == 1


async def test_work_goes_on_when_its_caller_goes_away(world: World) -> None:
    await world.start()
    change = await world.submit(document("base"))
    asking = asyncio.ensure_future(world.approve(change, "bob", "carol"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with world.turns:
        pass
    assert world.publisher.present.number == 2
    assert world.state_of("docs/base@1.0.0") == "APPROVED"


async def test_a_failed_publication_leaves_everything_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("wrong-keys")
    installation = make_installation(directory / "installation")
    world = await World(installation, directory / "state").start()
    change = await world.submit(document("base"))
    stranger = replace(installation.online, library=new_signer())
    world.publisher._terms = replace(world.publisher._terms, signers=stranger)
    with pytest.raises(AgentFactoryError) as refused:
        await world.approve(change, "bob", "carol")
    assert refused.value.reason in {Reason.METADATA_UNDER_THRESHOLD, Reason.KEY_REFUSED}
    assert world.publisher.present.number == 1
    stored = world.store.change(change.number)
    assert stored is not None
    assert (stored.state, stored.envelope) == (ChangeState.IN_REVIEW, None)
    world.store.close()
