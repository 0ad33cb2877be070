import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot

from templates.bundle import Bundle
from templates.canonical import canonical_bytes, sha256_hex
from templates.charter import Domain
from templates.names import TemplateName, Version
from templates.reasons import AgentFactoryError, Reason
from templates.repository import renew_lease as sign_lease
from templates.revocations import Revocations
from templates.trusted_set import (
    Accepted,
    Belief,
    RoleMark,
    accept,
    read_belief,
    verify_roots,
)
from templates.trusted_set_errors import StateInvalidError
from tests.trust_forgery import (
    COMPACT,
    HOUR,
    accepted_at,
    first_replaced,
    forged,
    offer,
    refused,
)
from tests.trust_world import (
    AGENT_REF,
    DAY,
    HARDWARE_MODULE,
    HARDWARE_REF,
    IMAGE_MODULE,
    IMAGE_REF,
    NODE,
    NOW,
    VALIDITY,
    World,
    approval,
    believe,
    charter,
    entry,
    hardware,
    online,
    persons,
    pinned,
    ready_world,
    role_keys,
    root,
    signer,
    targets,
)

# Going back


ROLLBACKS = {
    "timestamp": Reason.METADATA_ROLLBACK,
    "snapshot": Reason.GENERATION_ROLLBACK,
    "targets": Reason.METADATA_ROLLBACK,
    "plan": Reason.METADATA_ROLLBACK,
    "library-docs": Reason.METADATA_ROLLBACK,
}


@pytest.mark.parametrize("role", ROLLBACKS)
def test_no_role_goes_back(role: str) -> None:
    bundle, belief = offer()
    believed = believe(bundle, belief).belief
    assert believed.mark is not None
    ahead = replace(believed.mark.roles[role], version=5)
    higher = replace(believed, mark=replace(believed.mark, roles={**believed.mark.roles, role: ahead}))
    refused(ROLLBACKS[role], bundle, higher, match="expected (version|generation) 5 or newer, got 1")


def test_an_older_generation_is_refused_when_it_comes_back_under_a_new_lease() -> None:
    world = ready_world()
    old = world.publish()
    world.plan = replace(world.plan, entries=())
    newer = accepted_at(world, NOW + HOUR)
    refused(Reason.METADATA_ROLLBACK, old.bundle(), newer.belief, now=NOW + HOUR)
    fresh = sign_lease({**old.metadata}, signer=signer("timestamp"), validity=VALIDITY, now=NOW + 2 * HOUR)
    revived = old.bundle().with_timestamp(fresh)
    refused(Reason.GENERATION_ROLLBACK, revived, newer.belief, now=NOW + 2 * HOUR)


def test_an_older_plan_in_a_newer_generation_is_refused() -> None:
    world = ready_world()
    first = world.publish()
    world.plan = replace(world.plan, entries=())
    second = accepted_at(world, NOW + HOUR)
    third = world.publish(now=NOW + 2 * HOUR)
    plan = {name: data for name, data in first.metadata.items() if name == "1.plan.json"}
    files = {path: data for path, data in third.bundle().files.items() if "plan" not in path}
    mixed = Bundle(
        files={**files, "metadata/1.plan.json": plan["1.plan.json"], "targets/plan.json": first.targets["plan.json"]}
    )

    def bump(signed: Any) -> None:
        signed.version += 1

    def point_back(signed: Snapshot) -> None:
        bump(signed)
        data = plan["1.plan.json"]
        signed.meta["plan.json"] = MetaFile(version=1, length=len(data), hashes={"sha256": sha256_hex(data)})

    refused(Reason.METADATA_ROLLBACK, forged(mixed, "snapshot", point_back), second.belief, now=NOW + 2 * HOUR)


def test_two_states_of_one_generation_are_refused() -> None:
    first, second = ready_world(), ready_world()
    second.plan = replace(second.plan, entries=())
    believed = accepted_at(first)
    refused(Reason.GENERATION_CONFLICT, second.publish().bundle(), believed.belief)


def test_one_timestamp_does_not_name_two_generations() -> None:
    world = ready_world()
    believed = accepted_at(world)
    world.plan = replace(world.plan, entries=())

    def same_number(signed: Any) -> None:
        signed.version = 1

    again = forged(world.publish().bundle(), "timestamp", same_number)
    refused(Reason.METADATA_MISMATCH, again, believed.belief, match="expected version 1 to name generation 1")


def test_a_role_that_was_listed_must_stay_listed() -> None:
    bundle, belief = offer()
    believed = believe(bundle, belief).belief
    assert believed.mark is not None
    gone = {**believed.mark.roles, "library-gone": RoleMark(version=1, keyids=frozenset())}
    refused(Reason.METADATA_MISSING, bundle, replace(believed, mark=replace(believed.mark, roles=gone)))


def test_a_library_of_a_dropped_domain_does_not_go_back_either() -> None:
    world = ready_world()
    more = {**world.charter.domains, "gone": Domain(reviewers=frozenset({"alice"}), threshold=1)}
    world.charter = replace(world.charter, domains=more)
    believed = accepted_at(world)
    assert believed.belief.mark is not None
    roles = {**believed.belief.mark.roles, "library-gone": RoleMark(version=2, keyids=frozenset())}
    world.charter = replace(charter(), version=2)
    belief = replace(believed.belief, mark=replace(believed.belief.mark, roles=roles))
    refused(Reason.METADATA_ROLLBACK, world.publish(now=NOW + HOUR).bundle(), belief, now=NOW + HOUR)


def test_files_of_two_generations_do_not_mix() -> None:
    world = ready_world()
    first = world.publish().bundle()
    world.add(hardware(description="new"), approval(hardware(description="new"), "alice", "bob"))
    second = world.publish(now=NOW + HOUR).bundle()
    believe(second, pinned(world), now=NOW + HOUR)
    changed = [path for path in second.files if first.files.get(path) not in {None, second.files[path]}]
    assert len(changed) >= 3
    for path in changed:
        with pytest.raises(AgentFactoryError):
            believe(Bundle(files={**second.files, path: first.files[path]}), pinned(world), now=NOW + HOUR)


# What only grows, and what was once in order


def test_a_revocation_in_the_plan_withdraws_a_template_and_nothing_else() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(templates=frozenset({hardware().digest})))
    accepted = accepted_at(world)
    assert {each.ref for each in accepted.templates.values()} == {AGENT_REF}
    assert [(each.template, each.reason) for each in accepted.withdrawn] == [(HARDWARE_REF, Reason.TEMPLATE_REVOKED)]
    assert sha256_hex(HARDWARE_MODULE) not in accepted.code


def test_a_revoked_image_withdraws_every_template_that_it_runs() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(modules=frozenset({sha256_hex(IMAGE_MODULE)})))
    accepted = accepted_at(world)
    assert [(each.template, each.reason) for each in accepted.withdrawn] == [(AGENT_REF, Reason.CODE_REVOKED)]


def test_a_revocation_outlives_the_plan_that_made_it() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(templates=frozenset({hardware().digest})))
    first = accepted_at(world)
    world.plan = replace(world.plan, revocations=Revocations())
    second = accepted_at(world, NOW + HOUR, first.belief)
    assert [each.reason for each in second.withdrawn] == [Reason.TEMPLATE_REVOKED]


def test_a_revocation_outlives_the_charter_that_made_it_until_one_lifts_it() -> None:
    world = ready_world()
    revoked = Revocations(templates=frozenset({hardware().digest}))
    world.charter = charter(revocations=revoked)
    belief = accepted_at(world).belief
    world.charter = charter(version=2)
    second = accepted_at(world, NOW + HOUR, belief)
    assert [each.reason for each in second.withdrawn] == [Reason.TEMPLATE_REVOKED]
    world.charter = charter(version=3, lifted=revoked)
    third = accepted_at(world, NOW + 2 * HOUR, second.belief)
    assert third.withdrawn == ()
    assert third.belief.revocations == second.belief.revocations


def test_a_revoked_reviewer_no_longer_counts() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(reviewers=frozenset({"carol"})))
    accepted = accepted_at(world)
    assert [(each.template, each.reason) for each in accepted.withdrawn] == [(HARDWARE_REF, Reason.APPROVAL_BY_REVOKED)]


def test_a_revoked_node_runs_nothing() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(nodes=frozenset({"n1"})))
    bundle = world.publish().bundle()
    accepted = believe(bundle, pinned(world))
    assert accepted.templates == {}
    assert accepted.code == {}
    assert {each.reason for each in accepted.withdrawn} == {Reason.NODE_REVOKED}
    assert len(believe(bundle, pinned(world), installation=replace(NODE, node_id="n2")).templates) == 2


def test_a_raised_floor_withdraws_older_versions() -> None:
    world = ready_world()
    world.charter = charter(floors={TemplateName.parse("docs/hardware"): Version.parse("1.0.1")})
    assert [each.reason for each in accepted_at(world).withdrawn] == [Reason.BELOW_FLOOR]


def test_a_person_who_leaves_the_charter_makes_a_plan_that_counts_on_them_suspect() -> None:
    world = ready_world()
    world.charter = charter(
        persons={name: keys for name, keys in persons().items() if name != "carol"},
        domains={
            "docs": Domain(reviewers=frozenset({"alice", "bob"}), threshold=2),
            "images": charter().domains["images"],
        },
    )
    refused(Reason.APPROVAL_STRANGER, world.publish().bundle(), pinned(world))


# Roots


def test_newer_roots_are_kept_although_the_update_fails() -> None:
    world = ready_world()
    world.roots.append(root(version=2))
    bundle = forged(world.publish().bundle(), "plan", by=("mallory",))
    newest = verify_roots(world.roots[0], bundle)
    assert newest == world.roots[1]
    refused(Reason.METADATA_UNDER_THRESHOLD, bundle, Belief(root=newest))
    believe(world.publish(now=NOW + HOUR).bundle(), Belief(root=newest), now=NOW + HOUR)


def test_root_rotates_by_its_own_threshold_over_several_versions() -> None:
    world = ready_world()
    new = role_keys("root-c", "root-d", threshold=2)
    world.roots += [
        root("root-a", "root-b", "root-c", "root-d", version=2, root=new),
        root("root-c", "root-d", version=3, root=new),
    ]
    accepted = accepted_at(world)
    assert accepted.root_version == 3
    assert accepted.belief.root == world.roots[2]


def test_a_root_in_between_may_have_run_out() -> None:
    world = World(roots=[root(expires=NOW - DAY), root(version=2, expires=NOW - HOUR), root(version=3)])
    assert accepted_at(world).root_version == 3


def test_an_older_root_than_the_trusted_one_is_not_looked_at() -> None:
    world = ready_world()
    world.roots.append(root(version=2))
    bundle = world.publish().bundle()
    damaged = Bundle(files={**bundle.files, "metadata/1.root.json": b"damaged"})
    belief = Belief(root=world.roots[1])
    assert believe(damaged, belief) == believe(bundle, belief)


def test_a_trusted_root_that_was_damaged_is_not_trusted() -> None:
    bundle, belief = offer()
    damaged = first_replaced(belief.root, b'"threshold":2', b'"threshold":1')
    refused(Reason.METADATA_UNDER_THRESHOLD, bundle, Belief(root=damaged))


def test_a_root_without_consistent_snapshots_is_refused() -> None:
    plain: Metadata[Root] = Metadata.from_bytes(root())
    plain.signed.consistent_snapshot = False
    plain.sign(signer("root-a"))
    plain.sign(signer("root-b"), append=True)
    bundle, _ = offer()
    refused(Reason.METADATA_INVALID, bundle, Belief(root=plain.to_bytes(COMPACT)))


def test_a_new_root_recovers_from_a_fast_forward_attack() -> None:
    """Whoever had the online keys counted to the end; the keys are taken away, and counting begins anew."""
    world = ready_world()
    last = 2**53 - 1

    def to_the_end(signed: Any) -> None:
        signed.version = last

    attacked = forged(world.publish().bundle(), "snapshot", to_the_end)
    attacked = forged(attacked, "timestamp", to_the_end)
    believed = believe(attacked, pinned(world))
    assert believed.generation == last
    honest = world.publish(now=NOW + HOUR).bundle()
    refused(Reason.METADATA_ROLLBACK, honest, believed.belief, now=NOW + HOUR)

    world.roots.append(root(version=2, snapshot=role_keys("snapshot-2"), timestamp=role_keys("timestamp-2")))
    world.signers = online(snapshot=signer("snapshot-2"), timestamp=signer("timestamp-2"))
    recovered = accepted_at(world, NOW + HOUR, believed.belief)
    assert recovered.generation < last


def test_a_fast_forwarded_plan_recovers_by_taking_the_plan_key_away() -> None:
    world = ready_world()

    def to_the_end(signed: Any) -> None:
        signed.version = 2**53 - 1

    believed = believe(forged(world.publish().bundle(), "plan", to_the_end), pinned(world))
    world.charter = charter(version=2)
    world.plan = replace(world.plan, entries=())
    refused(Reason.METADATA_ROLLBACK, world.publish(now=NOW + HOUR).bundle(), believed.belief, now=NOW + HOUR)
    world.targets = targets(world.charter, plan=role_keys("plan-2"))
    world.signers = online(plan=signer("plan-2"))
    assert accepted_at(world, NOW + 2 * HOUR, believed.belief).templates == {}


def test_a_key_that_is_added_does_not_open_the_way_back() -> None:
    world = ready_world()
    old = world.publish().bundle()
    world.plan = replace(world.plan, entries=())
    believed = accepted_at(world, NOW + HOUR)
    more = root(version=2, timestamp=role_keys("timestamp", "timestamp-2"))
    offered = Bundle(files={**old.files, "metadata/2.root.json": more})
    refused(Reason.METADATA_ROLLBACK, offered, believed.belief, now=NOW + HOUR)


def test_rotating_the_online_keys_does_not_let_the_charter_go_back() -> None:
    world = ready_world()
    first = world.charter
    world.charter = charter(version=2, approval_days_max=300)
    believed = accepted_at(world)
    rotated = World(charter=first, metadata=None)
    rotated.roots = [
        *world.roots,
        root(version=2, snapshot=role_keys("snapshot-2"), timestamp=role_keys("timestamp-2")),
    ]
    rotated.signers = online(snapshot=signer("snapshot-2"), timestamp=signer("timestamp-2"))
    refused(Reason.METADATA_ROLLBACK, rotated.publish().bundle(), believed.belief, match="targets: expected version 2")


# Beliefs on disk


def test_a_belief_reads_back_as_it_was_written() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(nodes=frozenset({"n9"})))
    believed = accepted_at(world).belief
    assert read_belief(believed.to_bytes()) == believed
    assert read_belief(pinned(world).to_bytes()) == pinned(world)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"root": 1},
        {"mark": {}},
        {"revocations": {}},
        {"mark": {"snapshot_sha256": "0" * 64, "signed_at": "now", "roles": {}}},
        {
            "mark": {
                "snapshot_sha256": "0" * 64,
                "signed_at": "2030-13-01T00:00:00Z",
                "roles": {name: {"version": 1, "keyids": []} for name in ("snapshot", "targets", "timestamp")},
            }
        },
    ],
)
def test_a_belief_that_cannot_be_read_is_refused(change: dict[str, Any]) -> None:
    value = {**json.loads(pinned(ready_world()).to_bytes()), **change}
    with pytest.raises(StateInvalidError, match="expected"):
        read_belief(canonical_bytes(value))


# What need not be verified twice


def _again(world: World, before: Accepted) -> Accepted:
    """Publish and accept with the memory of ``before``; the result must be that of a node without it."""
    bundle = world.publish().bundle()
    remembering = accept(bundle, belief=before.belief, installation=NODE, now=NOW, previous=before)
    fresh = believe(bundle, before.belief)
    assert replace(remembering, verified={}) == replace(fresh, verified={})
    return remembering


def test_an_unchanged_approval_is_taken_over_and_a_changed_one_is_not() -> None:
    world = ready_world()
    before = accepted_at(world)
    world.add(hardware(description="new"), approval(hardware(description="new"), "alice", "bob"))
    after = _again(world, before)
    assert after.verified[AGENT_REF].resolved is before.verified[AGENT_REF].resolved
    assert after.verified[IMAGE_REF].resolved is before.verified[IMAGE_REF].resolved
    assert after.verified[HARDWARE_REF].sha256 == hardware(description="new").digest


TWISTS: dict[str, Callable[[World], None]] = {
    "a revoked reviewer": lambda world: setattr(
        world, "plan", replace(world.plan, revocations=Revocations(reviewers=frozenset({"carol"})))
    ),
    "a revoked template": lambda world: setattr(
        world, "plan", replace(world.plan, revocations=Revocations(templates=frozenset({hardware().digest})))
    ),
    "a raised floor": lambda world: setattr(
        world, "charter", charter(version=2, floors={TemplateName.parse("docs/hardware"): Version.parse("2.0.0")})
    ),
    "a shorter patience": lambda world: setattr(world, "charter", charter(version=2, approval_days_max=99)),
    "a template that leaves the plan": lambda world: setattr(
        world, "plan", replace(world.plan, entries=(entry(hardware()),))
    ),
    "another approval of the same": lambda world: world.approvals.update(
        {HARDWARE_REF: approval(hardware(), "alice", "bob", expires=NOW + DAY)}
    ),
}


@pytest.mark.parametrize("name", TWISTS)
def test_memory_never_changes_what_is_accepted(name: str) -> None:
    world = ready_world()
    before = accepted_at(world)
    TWISTS[name](world)
    assert set(_again(world, before).verified) <= {AGENT_REF, HARDWARE_REF, IMAGE_REF}


REFUSED_TWISTS: dict[str, tuple[Reason, Callable[[World], None]]] = {
    "an approval that lost a signature": (
        Reason.APPROVAL_UNDER_THRESHOLD,
        lambda world: world.approvals.update({HARDWARE_REF: approval(hardware(), "bob")}),
    ),
    "a higher threshold": (
        Reason.APPROVAL_UNDER_THRESHOLD,
        lambda world: setattr(
            world,
            "charter",
            charter(
                version=2,
                domains={
                    **charter().domains,
                    "docs": Domain(reviewers=frozenset({"alice", "bob", "carol"}), threshold=3),
                },
            ),
        ),
    ),
    "other bytes under the same name": (
        Reason.APPROVAL_MISMATCH,
        lambda world: world.add(hardware(description="evil"), approval(hardware(), "bob", "carol")),
    ),
}


@pytest.mark.parametrize("name", REFUSED_TWISTS)
def test_memory_lets_nothing_in(name: str) -> None:
    reason, twist = REFUSED_TWISTS[name]
    world = ready_world()
    before = accepted_at(world)
    twist(world)
    with pytest.raises(AgentFactoryError) as refusal:
        accept(world.publish().bundle(), belief=before.belief, installation=NODE, now=NOW, previous=before)
    assert refusal.value.reason is reason
