import json
from dataclasses import replace
from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from templates.charter import Domain
from templates.plan import Plan
from templates.repository import Generation, add_signature, build_root, build_targets, renew_lease
from templates.resolved import read_resolved
from templates.revocations import Revocations
from templates.trusted_set import Accepted
from tests.trust_world import (
    AGENT_REF,
    DAY,
    ENVIRONMENT,
    HARDWARE_REF,
    IMAGE_REF,
    NOW,
    VALIDITY,
    World,
    approval,
    believe,
    charter,
    entry,
    image,
    online,
    pinned,
    ready_world,
    role_keys,
    root,
    root_spec,
    signer,
    targets,
    template,
)

HOUR = timedelta(hours=1)
ROLES = ("targets", "plan", "library-docs", "library-images", "snapshot", "timestamp")


def versions(generation: Generation) -> dict[str, int]:
    """Return the version of every online role."""
    return {
        name: json.loads(data)["signed"]["version"]
        for file, data in generation.metadata.items()
        if (name := file.removesuffix(".json").split(".")[-1]) in ROLES
    }


def taken(world: World, before: Accepted | None = None, *, at: timedelta = timedelta()) -> Accepted:
    """Publish and let a node accept it."""
    bundle = world.publish(now=NOW + at).bundle()
    return believe(bundle, before.belief if before else pinned(world), now=NOW + at)


def test_the_first_generation_is_number_one_everywhere() -> None:
    assert versions(ready_world().publish()) == dict.fromkeys(ROLES, 1)


def test_nothing_new_only_renews_the_lease() -> None:
    world = ready_world()
    first = world.publish()
    second = world.publish(now=NOW + HOUR)
    assert versions(second) == {**versions(first), "timestamp": 2}
    same = {name: data for name, data in second.metadata.items() if name != "timestamp.json"}
    assert same.items() <= first.metadata.items()


def test_only_roles_with_new_content_are_signed_anew() -> None:
    world = ready_world()
    first = world.publish()
    world.add(template(description="new"), approval(template(description="new"), "alice", "bob"), active=False)
    second = world.publish(now=NOW + HOUR)
    changed = {"library-docs": 2, "snapshot": 2, "timestamp": 2}
    assert versions(second) == {**versions(first), **changed}


def test_a_new_plan_changes_the_plan_alone() -> None:
    world = ready_world()
    first = world.publish()
    world.plan = replace(world.plan, revocations=Revocations(nodes=frozenset({"n9"})))
    assert versions(world.publish()) == {**versions(first), "plan": 2, "snapshot": 2, "timestamp": 2}


@pytest.mark.parametrize(
    ("elapsed", "renewed"),
    [
        (VALIDITY.snapshot_s, {"snapshot"}),
        (VALIDITY.plan_s, {"plan", "library-docs", "library-images", "snapshot"}),
    ],
)
def test_roles_are_signed_anew_when_less_than_half_their_life_is_left(elapsed: int, renewed: set[str]) -> None:
    world = ready_world()
    first = versions(world.publish())
    second = versions(world.publish(now=NOW + timedelta(seconds=elapsed / 2 + 1)))
    assert {name for name in ROLES if second[name] != first[name]} == renewed | {"timestamp"}


def test_roles_are_signed_anew_when_their_key_was_replaced() -> None:
    world = ready_world()
    first = taken(world)
    world.charter = replace(world.charter, version=2)
    world.targets = targets(world.charter, plan=role_keys("plan-2"))
    world.signers = online(plan=signer("plan-2"))
    second = taken(world, first, at=HOUR)
    assert second.generation == 2
    assert second.belief.mark is not None
    assert second.belief.mark.roles["plan"].version == 2


def test_a_renewed_snapshot_key_signs_the_snapshot_anew() -> None:
    world = ready_world()
    first = taken(world)
    world.roots.append(root(version=2, snapshot=role_keys("snapshot-2")))
    world.signers = online(snapshot=signer("snapshot-2"))
    assert taken(world, first, at=HOUR).root_version == 2


def test_the_lease_of_a_generation_can_be_renewed() -> None:
    generation = ready_world().publish()
    renewed = json.loads(
        renew_lease(generation.metadata, signer=signer("timestamp"), validity=VALIDITY, now=NOW + HOUR)
    )["signed"]
    before = json.loads(generation.metadata["timestamp.json"])["signed"]
    assert renewed["meta"] == before["meta"]
    assert renewed["version"] == 2
    assert renewed["signed_at"] == "2030-01-01T13:00:00Z"
    assert renewed["expires"] == "2030-01-01T13:10:00Z"


def test_the_bundle_holds_what_the_plan_names_and_the_images_of_it() -> None:
    world = ready_world()
    world.plan = Plan(environment=ENVIRONMENT, entries=(entry(template()),))
    generation = world.publish()
    documents = {path for path in generation.bundle().targets if path.count("/") == 2}
    assert documents == {
        "docs/templates/summariser@1.0.0.json",
        "docs/approvals/summariser@1.0.0.dsse.json",
        "images/templates/cpython@0.1.0.json",
        "images/approvals/cpython@0.1.0.dsse.json",
    }
    assert read_resolved(generation.targets[f"docs/templates/hardware@{HARDWARE_REF.version}.json"]).ref == HARDWARE_REF


def test_a_bundle_is_the_same_bytes_every_time() -> None:
    generation = ready_world().publish()
    assert generation.bundle().to_bytes() == generation.bundle().to_bytes()


def test_an_unsigned_or_unapproved_template_can_be_published_by_whoever_holds_the_online_keys() -> None:
    world = World()
    world.add(template(), None)
    assert "docs/templates/summariser@1.0.0.json" in world.publish().bundle().targets


def test_signers_who_never_meet_reach_the_threshold_of_root_one_after_the_other() -> None:
    alone = root("root-a")
    world = ready_world()
    world.roots = [add_signature(alone, signer("root-b"))]
    assert Metadata[Root].from_bytes(world.roots[0]).signatures.keys() == {
        signer(name).public_key.keyid for name in ("root-a", "root-b")
    }
    assert taken(world).root_version == 1


def test_several_offline_signers_can_be_asked_of_the_charter() -> None:
    world = ready_world()
    world.roots = [root(targets=role_keys("targets", "targets-2", threshold=2))]
    first = targets(world.charter)
    world.targets = add_signature(first, signer("targets-2"))
    assert taken(world).charter.version == 1


def test_a_new_charter_with_a_new_domain_delegates_to_an_empty_library() -> None:
    world = ready_world()
    first = taken(world)
    more = {**world.charter.domains, "fresh": Domain(reviewers=frozenset({"alice"}), threshold=1)}
    world.charter = replace(world.charter, version=2, domains=more)
    second = taken(world, first, at=HOUR)
    assert "fresh" in second.charter.domains
    assert second.belief.mark is not None
    assert second.belief.mark.roles["library-fresh"].version == 1


def test_a_domain_that_the_charter_drops_stays_in_the_snapshot_and_is_delegated_to_no_more() -> None:
    world = ready_world()
    more = {**world.charter.domains, "gone": Domain(reviewers=frozenset({"alice"}), threshold=1)}
    world.charter = replace(world.charter, domains=more)
    first = taken(world)
    world.charter = replace(charter(), version=2)
    second = taken(world, first, at=HOUR)
    assert second.belief.mark is not None
    assert second.belief.mark.roles["library-gone"].version == 1
    third = taken(world, second, at=2 * HOUR)
    assert third.generation == second.generation


def test_the_root_says_environment_and_mode() -> None:
    signed = Metadata[Root].from_bytes(build_root(root_spec(), [signer("root-a")])).signed
    assert signed.unrecognized_fields == {"environment": "prod", "mode": "production"}
    assert signed.consistent_snapshot


def test_targets_carry_the_version_of_their_charter() -> None:
    data = build_targets(
        charter(version=7),
        plan=role_keys("plan"),
        library=role_keys("library"),
        expires=NOW + DAY,
        signers=[signer("targets")],
    )
    signed = Metadata[Targets].from_bytes(data).signed
    assert signed.version == 7
    assert list(signed.targets) == ["charter.json"]


def test_an_http_layout_has_names_with_hashes() -> None:
    layout = ready_world().publish().http_layout()
    assert "metadata/1.root.json" in layout
    assert "metadata/timestamp.json" in layout
    assert sum(path.startswith("targets/docs/templates/") for path in layout) == 2
    assert all(path.rpartition("/")[2].partition(".")[0].isalnum() for path in layout)


def test_an_image_in_the_plan_is_no_agent() -> None:
    world = ready_world()
    world.plan = replace(world.plan, entries=(*world.plan.entries, entry(image())))
    accepted = taken(world)
    assert {each.ref for each in accepted.templates.values()} == {AGENT_REF, HARDWARE_REF}
    assert IMAGE_REF in {each.template for each in accepted.plan.entries}
