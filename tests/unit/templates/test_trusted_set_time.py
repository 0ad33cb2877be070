from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from templates.bundle import Bundle
from templates.document import LeaseExpiry
from templates.reasons import AgentFactoryError, Reason
from templates.repository import Validity
from templates.repository import renew_lease as sign_lease
from templates.trusted_set import (
    Freshness,
    accept_from_disk,
    freshness,
    in_force,
    renew_lease,
    withdrawn_since,
)
from tests.trust_forgery import HOUR, LEASE, TOO_LONG, accepted_at, forged, offer, refused
from tests.trust_world import (
    AGENT_REF,
    HARDWARE_REF,
    NODE,
    NOW,
    VALIDITY,
    World,
    approval,
    believe,
    hardware,
    pinned,
    ready_world,
    root,
    signer,
)

# Freezing, clocks and leases


def test_a_frozen_generation_is_refused_when_its_lease_has_run_out() -> None:
    bundle, belief = offer()
    believe(bundle, belief, now=NOW + LEASE - timedelta(seconds=1))
    refused(Reason.METADATA_EXPIRED, bundle, belief, now=NOW + LEASE)


def test_a_clock_that_was_put_back_is_noticed() -> None:
    world = ready_world()
    believed = accepted_at(world)
    bundle = world.publish(now=NOW - 2 * HOUR).bundle()
    refused(Reason.CLOCK_BEHIND, bundle, believed.belief, now=NOW - 2 * HOUR)


def test_a_clock_slightly_behind_is_tolerated() -> None:
    bundle, belief = offer()
    believed = believe(bundle, belief, now=NOW - timedelta(seconds=60))
    assert believe(bundle, believed.belief, now=NOW - timedelta(seconds=60)).generation == 1


def test_the_longest_lease_that_the_charter_allows_is_accepted() -> None:
    bundle, belief = offer(validity=Validity(lease_s=3600))
    assert believe(bundle, belief).lease.expires == NOW + HOUR


def _renewed(world: World, at: datetime, **how: Any) -> bytes:
    arguments: dict[str, Any] = {"signer": signer("timestamp"), "validity": VALIDITY, **how}
    assert world.metadata is not None
    return sign_lease(world.metadata, now=at, **arguments)


def test_a_renewed_lease_is_believed_and_remembered() -> None:
    world = ready_world()
    first = accepted_at(world)
    later = NOW + LEASE + HOUR
    renewed = renew_lease(first, _renewed(world, later), installation=NODE, now=later)
    assert renewed.lease.expires == later + LEASE
    assert freshness(renewed, now=later) is Freshness.FRESH
    assert renewed.belief.mark is not None
    assert renewed.belief.mark.roles["timestamp"].version == 2
    assert renewed.belief.mark.signed_at == later
    bundle = Bundle.of(metadata=world.metadata or {}, targets={})
    refused(Reason.METADATA_ROLLBACK, bundle, renewed.belief, now=later)


def _of_another_generation(world: World) -> bytes:
    world.plan = replace(world.plan, entries=())
    return world.publish().metadata["timestamp.json"]


def _of_another_state(world: World) -> bytes:
    def change(signed: Any) -> None:
        signed.snapshot_meta.hashes = {"sha256": "0" * 64}

    bundle = Bundle.of(metadata=world.metadata or {}, targets={})
    return forged(bundle, "timestamp", change).metadata["timestamp.json"]


LEASES: dict[str, tuple[Reason, Callable[[World], bytes]]] = {
    "signed by a stranger": (
        Reason.METADATA_UNDER_THRESHOLD,
        lambda world: _renewed(world, NOW, signer=signer("mallory")),
    ),
    "too long": (Reason.LEASE_TOO_LONG, lambda world: _renewed(world, NOW, validity=TOO_LONG)),
    "run out": (Reason.METADATA_EXPIRED, lambda world: _renewed(world, NOW - LEASE)),
    "from the future": (Reason.CLOCK_BEHIND, lambda world: _renewed(world, NOW + HOUR)),
    "not JSON": (Reason.METADATA_INVALID, lambda _: b"{"),
    "of another state of this generation": (Reason.METADATA_MISMATCH, _of_another_state),
    "of another generation": (Reason.METADATA_MISMATCH, _of_another_generation),
}


@pytest.mark.parametrize("name", LEASES)
def test_a_lease_that_is_not_in_order_is_refused(name: str) -> None:
    reason, build = LEASES[name]
    world = ready_world()
    believed = accepted_at(world)
    with pytest.raises(AgentFactoryError, match="expected") as refusal:
        renew_lease(believed, build(world), installation=NODE, now=NOW)
    assert refusal.value.reason is reason


def test_the_same_lease_may_be_offered_again() -> None:
    world = ready_world()
    believed = accepted_at(world)
    assert world.metadata is not None
    assert renew_lease(believed, world.metadata["timestamp.json"], installation=NODE, now=NOW) == believed


def test_a_lease_does_not_prolong_a_root_that_has_run_out() -> None:
    world = World(roots=[root(expires=NOW + HOUR)])
    believed = accepted_at(world)
    with pytest.raises(AgentFactoryError, match="root") as refusal:
        renew_lease(believed, _renewed(world, NOW + HOUR), installation=NODE, now=NOW + HOUR)
    assert refusal.value.reason is Reason.METADATA_EXPIRED


def test_an_older_lease_does_not_replace_a_newer_one() -> None:
    world = ready_world()
    old = world.publish().metadata["timestamp.json"]
    newer = renew_lease(accepted_at(world), _renewed(world, NOW), installation=NODE, now=NOW)
    with pytest.raises(AgentFactoryError) as refusal:
        renew_lease(newer, old, installation=NODE, now=NOW)
    assert refusal.value.reason is Reason.METADATA_ROLLBACK


def test_a_lease_does_not_prolong_what_has_run_out_above_it() -> None:
    world = ready_world()
    believed = accepted_at(world)
    later = NOW + timedelta(seconds=VALIDITY.snapshot_s)
    with pytest.raises(AgentFactoryError, match="snapshot") as refusal:
        renew_lease(believed, _renewed(world, later), installation=NODE, now=later)
    assert refusal.value.reason is Reason.METADATA_EXPIRED


def test_nothing_is_renewed_before_a_generation_was_believed() -> None:
    world = ready_world()
    believed = accepted_at(world)
    nothing = replace(believed, belief=replace(believed.belief, mark=None))
    with pytest.raises(AgentFactoryError) as refusal:
        renew_lease(nothing, _renewed(world, NOW), installation=NODE, now=NOW)
    assert refusal.value.reason is Reason.METADATA_MISSING


def test_time_turns_a_generation_from_fresh_to_expired_to_stale() -> None:
    accepted = accepted_at(ready_world())
    stale = NOW + timedelta(seconds=accepted.charter.staleness_s_max)
    second = timedelta(seconds=1)
    assert freshness(accepted, now=NOW + LEASE - second) is Freshness.FRESH
    assert freshness(accepted, now=NOW + LEASE) is Freshness.EXPIRED
    assert freshness(accepted, now=stale - second) is Freshness.EXPIRED
    assert freshness(accepted, now=stale) is Freshness.STALE


@pytest.mark.parametrize("choice", LeaseExpiry)
def test_what_a_template_wants_counts_only_between_fresh_and_stale(choice: LeaseExpiry) -> None:
    assert in_force(choice, Freshness.FRESH) is LeaseExpiry.CONTINUE
    assert in_force(choice, Freshness.EXPIRED) is choice
    assert in_force(choice, Freshness.STALE) is LeaseExpiry.STOP


def test_an_approval_that_runs_out_while_a_node_serves_is_noticed() -> None:
    world = ready_world()
    world.approvals[HARDWARE_REF] = approval(hardware(), "alice", "bob", expires=NOW + HOUR)
    accepted = accepted_at(world)
    assert withdrawn_since(accepted, now=NOW) == ()
    (gone,) = withdrawn_since(accepted, now=NOW + HOUR)
    assert (gone.template, gone.reason) == (HARDWARE_REF, Reason.APPROVAL_EXPIRED)


# Boot from disk


def test_a_node_boots_from_disk_when_lease_and_snapshot_have_run_out() -> None:
    world = ready_world()
    bundle = world.publish().bundle()
    belief = believe(bundle, pinned(world)).belief
    later = NOW + timedelta(seconds=VALIDITY.snapshot_s + 1)
    booted = accept_from_disk(bundle, belief=belief, installation=NODE, now=later)
    assert len(booted.templates) == 2
    assert freshness(booted, now=later) is Freshness.STALE


@pytest.mark.parametrize(
    ("role", "after"),
    [("plan", VALIDITY.plan_s), ("targets", 400 * 86_400), ("root", 1000 * 86_400)],
)
def test_no_other_role_may_have_run_out_at_boot(role: str, after: int) -> None:
    world = ready_world()
    world.validity = replace(VALIDITY, plan_s=500 * 86_400 if role != "plan" else after, library_s=500 * 86_400)
    bundle = world.publish().bundle()
    belief = believe(bundle, pinned(world)).belief
    with pytest.raises(AgentFactoryError, match=role) as refusal:
        accept_from_disk(bundle, belief=belief, installation=NODE, now=NOW + timedelta(seconds=after))
    assert refusal.value.reason is Reason.METADATA_EXPIRED


def test_a_restored_older_store_is_refused_at_boot() -> None:
    world = ready_world()
    old = world.publish().bundle()
    world.plan = replace(world.plan, entries=())
    newer = accepted_at(world, NOW + HOUR)
    with pytest.raises(AgentFactoryError) as refusal:
        accept_from_disk(old, belief=newer.belief, installation=NODE, now=NOW + HOUR)
    assert refusal.value.reason is Reason.METADATA_ROLLBACK


def test_an_approval_that_has_run_out_keeps_its_template_from_booting_and_no_other() -> None:
    world = ready_world()
    world.approvals[HARDWARE_REF] = approval(hardware(), "alice", "bob", expires=NOW + HOUR)
    bundle = world.publish().bundle()
    belief = believe(bundle, pinned(world)).belief
    booted = accept_from_disk(bundle, belief=belief, installation=NODE, now=NOW + HOUR)
    assert {each.ref for each in booted.templates.values()} == {AGENT_REF}
    assert [each.reason for each in booted.withdrawn] == [Reason.APPROVAL_EXPIRED]
