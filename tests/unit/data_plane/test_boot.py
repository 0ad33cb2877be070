"""Which stored generation a node begins with: a table over what its store may give it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from data_plane.activation.boot import Boot, choose
from data_plane.sealed_files import StoreFailedError
from templates.bundle import Bundle
from templates.reasons import AgentFactoryError
from templates.trusted_set import Belief
from tests.trust_world import NODE, NOW, believe, pinned, ready_world


class Stored:
    """Two generations of one world, and the beliefs after each."""

    def __init__(self) -> None:
        world = ready_world()
        self.pinned = pinned(world)
        self.first = world.publish().bundle()
        self.after_first = believe(self.first, self.pinned).belief
        self.second = world.publish(now=NOW + timedelta(days=46)).bundle()
        self.later = NOW + timedelta(days=46)
        self.after_second = believe(self.second, self.after_first, now=self.later).belief

    def boot(self, belief: Belief | AgentFactoryError | None, *bundles: tuple[int, Bundle | None]) -> Boot:
        def loader(bundle: Bundle | None) -> Bundle:
            if bundle is None:
                raise StoreFailedError("damaged")
            return bundle

        return choose(
            pinned_root=self.pinned.root,
            belief=belief,
            stored=[(number, lambda bundle=bundle: loader(bundle)) for number, bundle in bundles],  # type: ignore[misc]
            installation=NODE,
            now=self.later,
        )


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored()


def number_of(stored: Stored, bundle: Bundle) -> int:
    belief = stored.after_first if bundle is stored.first else stored.after_second
    assert belief.mark is not None
    return belief.mark.generation


def test_a_fresh_store_waits_and_trusts_the_pinned_root_alone(stored: Stored) -> None:
    boot = stored.boot(None)
    assert (boot.accepted, boot.damage, boot.generation_min) == (None, "", 0)
    assert boot.belief == Belief(root=stored.pinned.root)


def test_the_newest_generation_is_verified_and_served(stored: Stored) -> None:
    one, two = number_of(stored, stored.first), number_of(stored, stored.second)
    boot = stored.boot(stored.after_second, (two, stored.second), (one, stored.first))
    assert boot.accepted is not None
    assert boot.accepted.generation == two
    assert boot.damage == ""


def test_a_generation_above_the_mark_was_promoted_before_a_crash_and_counts(stored: Stored) -> None:
    one, two = number_of(stored, stored.first), number_of(stored, stored.second)
    boot = stored.boot(stored.after_first, (two, stored.second), (one, stored.first))
    assert boot.accepted is not None
    assert boot.accepted.generation == two
    assert boot.belief == stored.after_second


def test_damage_above_the_mark_falls_back_to_what_was_acknowledged(stored: Stored) -> None:
    one, two = number_of(stored, stored.first), number_of(stored, stored.second)
    boot = stored.boot(stored.after_first, (two, None), (one, stored.first))
    assert boot.accepted is not None
    assert boot.accepted.generation == one


def test_damage_at_the_mark_never_falls_back_below_it(stored: Stored) -> None:
    one, two = number_of(stored, stored.first), number_of(stored, stored.second)
    boot = stored.boot(stored.after_second, (two, None), (one, stored.first))
    assert boot.accepted is None
    assert "below the high-water mark" in boot.damage
    assert boot.belief == stored.after_second


def test_a_generation_that_was_accepted_and_is_gone_is_damage(stored: Stored) -> None:
    assert "is not there" in stored.boot(stored.after_second).damage


def test_a_lost_mark_serves_nothing_and_takes_nothing_older_than_was_held(stored: Stored) -> None:
    one, two = number_of(stored, stored.first), number_of(stored, stored.second)
    boot = stored.boot(StoreFailedError("belief: flipped"), (two, stored.second), (one, stored.first))
    assert boot.accepted is None
    assert "flipped" in boot.damage
    assert boot.generation_min == two
    assert boot.belief.mark is None


def test_a_stored_generation_is_verified_again(stored: Stored) -> None:
    two = number_of(stored, stored.second)
    name, data = next((name, data) for name, data in stored.second.files.items() if "snapshot" in name)
    flipped = replace(stored.second, files={**stored.second.files, name: data.replace(b"1", b"2", 1)})
    boot = stored.boot(stored.after_second, (two, flipped))
    assert boot.accepted is None
    assert f"generation {two}" in boot.damage
