"""Every line of the transition table of an update, and everything that is not in it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.activation.update import (
    Abandon,
    Activate,
    Activated,
    Effect,
    Fact,
    Failed,
    Offered,
    Phase,
    Refusal,
    SendAck,
    SendNack,
    Stage,
    StageCode,
    Staged,
    State,
    Update,
    Verified,
    Verify,
)
from templates.reasons import Reason

REFUSAL = Refusal(generation=5, phase=Phase.STAGE, reason=Reason.DRY_RUN_FAILED, message="no")


def after(*facts: Fact, active: int = 4) -> Update:
    update = Update(active=active)
    for fact in facts:
        update.receive(fact)
    return update


RECEIVED = (Offered(generation=5),)
VERIFIED = (*RECEIVED, Verified(ticket=1))
STAGED = (*VERIFIED, Staged(ticket=1))

TABLE: list[tuple[tuple[Fact, ...], Fact, State, list[Effect]]] = [
    ((), Offered(generation=5), State.RECEIVED, [Verify(generation=5, ticket=1)]),
    ((), Offered(generation=4), State.RECEIVED, [Verify(generation=4, ticket=1)]),
    (
        RECEIVED,
        Offered(generation=6),
        State.RECEIVED,
        [Abandon(ticket=1), Verify(generation=6, ticket=2)],
    ),
    (
        VERIFIED,
        Offered(generation=6),
        State.RECEIVED,
        [Abandon(ticket=1), Verify(generation=6, ticket=2)],
    ),
    (STAGED, Offered(generation=6), State.STAGED, []),
    (
        RECEIVED,
        Verified(ticket=1),
        State.VERIFIED,
        [SendAck(generation=5, stage=Stage.VERIFIED), StageCode(generation=5, ticket=1)],
    ),
    (
        VERIFIED,
        Staged(ticket=1),
        State.STAGED,
        [SendAck(generation=5, stage=Stage.STAGED), Activate(generation=5, ticket=1)],
    ),
    (STAGED, Activated(ticket=1), State.IDLE, [SendAck(generation=5, stage=Stage.ACTIVE)]),
    (
        (*STAGED, Offered(generation=6), Offered(generation=8), Offered(generation=7)),
        Activated(ticket=1),
        State.RECEIVED,
        [SendAck(generation=5, stage=Stage.ACTIVE), Verify(generation=8, ticket=2)],
    ),
    (RECEIVED, Failed(ticket=1, refusal=REFUSAL), State.IDLE, [SendNack(refusal=REFUSAL)]),
    (VERIFIED, Failed(ticket=1, refusal=REFUSAL), State.IDLE, [SendNack(refusal=REFUSAL)]),
    (STAGED, Failed(ticket=1, refusal=REFUSAL), State.IDLE, [SendNack(refusal=REFUSAL)]),
    (
        (*STAGED, Offered(generation=6)),
        Failed(ticket=1, refusal=REFUSAL),
        State.RECEIVED,
        [SendNack(refusal=REFUSAL), Verify(generation=6, ticket=2)],
    ),
]


@pytest.mark.parametrize(("before", "fact", "state", "effects"), TABLE)
def test_the_transition_table(before: tuple[Fact, ...], fact: Fact, state: State, effects: list[Effect]) -> None:
    update = after(*before)
    assert update.receive(fact) == effects
    assert update.state is state


NOTHING: list[tuple[tuple[Fact, ...], Fact]] = [
    *itertools.product(
        [RECEIVED, VERIFIED, STAGED], [Offered(generation=5), Offered(generation=4), Offered(generation=1)]
    ),
    ((), Verified(ticket=0)),
    ((), Failed(ticket=0, refusal=REFUSAL)),
    (RECEIVED, Staged(ticket=1)),
    (RECEIVED, Activated(ticket=1)),
    (VERIFIED, Verified(ticket=1)),
    (VERIFIED, Activated(ticket=1)),
    (STAGED, Staged(ticket=1)),
    ((*RECEIVED, Offered(generation=6)), Verified(ticket=1)),
    ((*RECEIVED, Offered(generation=6)), Failed(ticket=1, refusal=REFUSAL)),
    ((*STAGED, Activated(ticket=1)), Failed(ticket=1, refusal=REFUSAL)),
]


@pytest.mark.parametrize(("before", "fact"), NOTHING)
def test_everything_else_changes_nothing(before: tuple[Fact, ...], fact: Fact) -> None:
    update = after(*before)
    state = update.state
    assert update.receive(fact) == []
    assert update.state is state


def test_an_older_generation_is_refused_at_once_and_for_good() -> None:
    (nack,) = after().receive(Offered(generation=3))
    assert isinstance(nack, SendNack)
    assert nack.refusal.reason is Reason.GENERATION_ROLLBACK
    assert not nack.refusal.retryable


FACTS = st.one_of(
    st.builds(Offered, generation=st.integers(1, 9)),
    st.builds(Verified, ticket=st.integers(0, 6)),
    st.builds(Staged, ticket=st.integers(0, 6)),
    st.builds(Activated, ticket=st.integers(0, 6)),
    st.builds(Failed, ticket=st.integers(0, 6), refusal=st.just(REFUSAL)),
)


@given(st.lists(FACTS, max_size=40))
def test_at_every_step_acknowledgements_are_in_order_and_the_active_generation_never_falls(facts: list[Fact]) -> None:
    update, active, working, last = Update(active=4), 4, 0, None
    for fact in facts:
        for effect in update.receive(fact):
            match effect:
                case Verify(ticket=ticket):
                    assert ticket > working
                    working, last = ticket, None
                case SendAck(stage=stage, generation=generation):
                    assert [None, Stage.VERIFIED, Stage.STAGED, Stage.ACTIVE].index(last) + 1 == [
                        None, Stage.VERIFIED, Stage.STAGED, Stage.ACTIVE,
                    ].index(stage)  # fmt: skip
                    last = stage
                    if stage is Stage.ACTIVE:
                        assert generation >= active
                        active = generation
                case _:
                    pass
        assert update.active == active
        assert (update.state is State.IDLE) == (update.generation == 0)
