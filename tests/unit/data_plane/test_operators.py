"""Who may drain a node: whoever the authority certified may not stop a fleet by that alone."""

from dataclasses import replace

import pytest

from data_plane.authorisation import require_operator
from service.identity import Identity
from service.status import PermissionDeniedError
from templates.revocations import Revocations
from tests.trust_world import believe, charter, pinned, ready_world

ALICE, MALLORY = Identity.person("test.internal", "alice"), Identity.person("test.internal", "mallory")


def test_a_person_of_the_charter_may() -> None:
    world = ready_world()
    require_operator(ALICE, believe(world.publish().bundle(), pinned(world)))


def test_a_person_whom_the_charter_does_not_name_may_not() -> None:
    world = ready_world()
    with pytest.raises(PermissionDeniedError, match="charter"):
        require_operator(MALLORY, believe(world.publish().bundle(), pinned(world)))


def test_a_revoked_person_may_not_unless_the_charter_lifted_it() -> None:
    world = ready_world()
    world.plan = replace(world.plan, revocations=Revocations(reviewers=frozenset({"dave"})))
    accepted = believe(world.publish().bundle(), pinned(world))
    dave = Identity.person("test.internal", "dave")
    with pytest.raises(PermissionDeniedError, match="standing"):
        require_operator(dave, accepted)
    lifted = charter(lifted=Revocations(reviewers=frozenset({"dave"})))
    require_operator(dave, replace(accepted, charter=lifted))


def test_before_there_is_a_charter_any_person_may() -> None:
    require_operator(MALLORY, None)
