import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root, Timestamp

from templates.bundle import Bundle, read_bundle
from templates.canonical import sha256_hex
from templates.charter import Domain, Mode
from templates.names import Version
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations
from tests.trust_forgery import (
    COMPACT,
    HOUR,
    LEASE,
    accepted_at,
    offer,
    refused,
)
from tests.trust_refusals import REFUSALS
from tests.trust_world import (
    AGENT_REF,
    ENVIRONMENT,
    HARDWARE_MODULE,
    HARDWARE_REF,
    IMAGE_MODULE,
    NODE,
    NOW,
    SOURCE,
    World,
    approval,
    believe,
    charter,
    entry,
    hardware,
    image,
    pinned,
    ready_world,
    root,
    signer,
    targets,
    template,
)

# What is accepted


def test_a_generation_in_order_is_accepted_whole() -> None:
    world = ready_world()
    accepted = accepted_at(world)
    assert accepted.generation == 1
    assert accepted.environment == ENVIRONMENT
    assert accepted.mode is Mode.PRODUCTION
    assert {each.ref for each in accepted.templates.values()} == {AGENT_REF, HARDWARE_REF}
    assert accepted.code == {
        sha256_hex(SOURCE): len(SOURCE),
        sha256_hex(IMAGE_MODULE): len(IMAGE_MODULE),
        sha256_hex(HARDWARE_MODULE): len(HARDWARE_MODULE),
    }
    assert accepted.withdrawn == ()
    assert accepted.lease.signed_at == NOW
    assert accepted.lease.expires == NOW + LEASE
    assert set(accepted.expires) == {
        "root",
        "targets",
        "plan",
        "library-docs",
        "library-images",
        "snapshot",
        "timestamp",
    }


def test_the_same_generation_may_be_offered_again() -> None:
    world = ready_world()
    bundle = world.publish().bundle()
    first = believe(bundle, pinned(world))
    assert believe(bundle, first.belief) == first


def test_an_empty_plan_is_a_generation_too() -> None:
    accepted = accepted_at(World())
    assert accepted.templates == {}
    assert accepted.code == {}


def test_a_node_gets_what_the_plan_names_for_it() -> None:
    world = ready_world()
    newer = template(replace(AGENT_REF, version=Version(2, 0, 0)))
    world.add(newer, approval(newer, "alice", "bob"), active=False)
    world.plan = replace(world.plan, entries=(entry(template()), entry(newer, "n1"), entry(hardware(), "n2")))
    bundle = world.publish().bundle()
    other = believe(bundle, pinned(world), installation=replace(NODE, node_id="n2"))
    assert {each.ref for each in believe(bundle, pinned(world)).templates.values()} == {newer.ref}
    assert {each.ref for each in other.templates.values()} == {AGENT_REF, HARDWARE_REF}
    assert sha256_hex(HARDWARE_MODULE) not in believe(bundle, pinned(world)).code


def test_a_development_charter_is_for_nodes_in_development() -> None:
    world = World(roots=[root(mode=Mode.DEVELOPMENT)])
    alone = {
        "docs": Domain(reviewers=frozenset({"dave"}), threshold=1, self_review=True),
        "images": charter().domains["images"],
    }
    world.charter = charter(mode=Mode.DEVELOPMENT, domains=alone)
    world.add(hardware(), approval(hardware(), "dave"))
    bundle = world.publish().bundle()
    lenient = replace(NODE, production=False)
    assert believe(bundle, pinned(world), installation=lenient).templates[HARDWARE_REF.template_name].persons == {
        "dave"
    }
    refused(Reason.DEVELOPMENT_MODE, bundle, pinned(world))


@pytest.mark.parametrize(
    ("of_root", "of_charter"), [(Mode.PRODUCTION, Mode.DEVELOPMENT), (Mode.DEVELOPMENT, Mode.PRODUCTION)]
)
def test_root_and_charter_are_of_one_mode(of_root: Mode, of_charter: Mode) -> None:
    world = World(roots=[root(mode=of_root)], charter=charter(mode=of_charter))
    lenient = replace(NODE, production=False)
    refused(Reason.METADATA_MISMATCH, world.publish().bundle(), pinned(world), installation=lenient)


def test_a_charter_of_another_environment_is_refused_whatever_the_plan_says() -> None:
    world = World(charter=charter(environment="staging"))
    error = refused(Reason.WRONG_ENVIRONMENT, world.publish().bundle(), pinned(world))
    assert error.metadata["role"] == "charter"


# The traitor: every online key, and no reviewer


FORGED_APPROVALS = {
    "none": (None, Reason.APPROVAL_MISSING),
    "by strangers": (("mallory", "eve"), Reason.APPROVAL_STRANGER),
    "by its author": (("alice", "dave"), Reason.APPROVAL_BY_AUTHOR),
}


@pytest.mark.parametrize("name", FORGED_APPROVALS)
def test_a_control_plane_with_every_online_key_cannot_activate_an_unapproved_template(name: str) -> None:
    by, reason = FORGED_APPROVALS[name]
    world = ready_world()
    believed = accepted_at(world)
    evil = hardware(replace(HARDWARE_REF, version=Version(1, 0, 1)))
    world.add(evil, approval(evil, *by) if by else None)
    error = refused(reason, world.publish(now=NOW + HOUR).bundle(), believed.belief, now=NOW + HOUR)
    assert error.metadata["template"] == str(evil.ref)


def test_a_control_plane_with_every_online_key_cannot_pass_an_approval_on_to_another_digest() -> None:
    world = ready_world()
    believed = accepted_at(world)
    world.add(hardware(description="evil"), approval(hardware(), "bob", "carol"))
    bundle = world.publish(now=NOW + HOUR).bundle()
    refused(Reason.APPROVAL_MISMATCH, bundle, believed.belief, now=NOW + HOUR)


def test_a_control_plane_with_every_online_key_cannot_change_the_charter() -> None:
    world = ready_world()
    believed = accepted_at(world)
    world.charter = charter(version=2, domains={"docs": Domain(reviewers=frozenset({"bob"}), threshold=1)})
    for keys in (("snapshot",), ("timestamp", "plan", "library")):
        world.targets = targets(world.charter, *keys)
        bundle = world.publish(now=NOW + HOUR).bundle()
        refused(Reason.METADATA_UNDER_THRESHOLD, bundle, believed.belief, now=NOW + HOUR)


# The table: one bundle that is wrong in one way, one reason


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_its_reason_and_says_what_was_expected(name: str) -> None:
    reason, build = REFUSALS[name]
    bundle, belief = build()
    error = refused(reason, bundle, belief)
    assert "got" in error.message


def test_a_node_of_another_environment_refuses_everything() -> None:
    bundle, belief = offer()
    refused(Reason.WRONG_ENVIRONMENT, bundle, belief, installation=replace(NODE, environment="staging"))


def test_metadata_keys_are_held_to_the_allow_list_and_their_own_hash() -> None:
    value = json.loads(root(version=2))
    keys = value["signed"]["keys"]
    keyid = next(iter(keys))
    keys[keyid] = {**keys[keyid], "x": "y"}
    unsigned: Metadata[Root] = Metadata.from_dict(value)
    unsigned.sign(signer("root-a"))
    unsigned.sign(signer("root-b"), append=True)
    bundle, belief = offer(roots=[root(), unsigned.to_bytes(COMPACT)])
    refused(Reason.KEY_REFUSED, bundle, belief)


def test_one_key_under_two_identifiers_does_not_reach_a_threshold() -> None:
    value = json.loads(root(version=2))
    key = signer("timestamp").public_key
    value["signed"]["keys"]["0" * 64] = key.to_dict()
    value["signed"]["roles"]["timestamp"] = {"keyids": [key.keyid, "0" * 64], "threshold": 2}
    twice: Metadata[Root] = Metadata.from_dict(value)
    twice.sign(signer("root-a"))
    twice.sign(signer("root-b"), append=True)
    bundle, belief = offer(roots=[root(), twice.to_bytes(COMPACT)])
    refused(Reason.KEY_ID_MISMATCH, bundle, belief)


# Any damage anywhere


WORLD = ready_world()
WHOLE = WORLD.publish().bundle().to_bytes()
BELIEVED = believe(read_bundle(WHOLE), pinned(WORLD))


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_bundle_is_refused_or_changes_nothing(at: int, bit: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= 1 << bit
    try:
        accepted = believe(read_bundle(bytes(damaged)), pinned(WORLD))
    except AgentFactoryError:
        return
    assert accepted == BELIEVED


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(read_bundle(WHOLE).files)), min_size=1, max_size=3))
def test_a_bundle_with_something_missing_is_refused(missing: set[str]) -> None:
    files = {path: data for path, data in read_bundle(WHOLE).files.items() if path not in missing}
    if missing == {"metadata/1.root.json"}:
        assert believe(Bundle(files=files), pinned(WORLD)) == BELIEVED
        return
    with pytest.raises(AgentFactoryError):
        believe(Bundle(files=files), pinned(WORLD))


def test_a_failed_update_leaves_the_earlier_belief_as_it_was() -> None:
    world = ready_world()
    believed = accepted_at(world).belief
    before = believed.to_bytes()
    world.add(hardware(description="evil"), None)
    world.plan = replace(world.plan, revocations=Revocations(nodes=frozenset({"n1"})))
    with pytest.raises(AgentFactoryError):
        accepted_at(world, NOW + HOUR, believed)
    assert believed.to_bytes() == before


def test_the_timestamp_says_when_it_was_signed_and_other_clients_do_not_mind() -> None:
    signed = Metadata[Timestamp].from_bytes(read_bundle(WHOLE).metadata["timestamp.json"]).signed
    assert signed.unrecognized_fields == {"signed_at": "2030-01-01T12:00:00Z"}


def test_an_unused_image_is_not_needed() -> None:
    world = ready_world()
    world.plan = replace(world.plan, entries=(entry(hardware()),))
    assert image().ref not in {each.ref for each in accepted_at(world).templates.values()}
