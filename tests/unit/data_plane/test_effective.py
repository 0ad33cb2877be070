"""Effective limits are found by one look-up, and are what the pure rule says; amounts are shared with those above."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.admission import effective
from data_plane.admission.effective import EffectiveLimits
from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal
from sandbox.limits import SandboxLimits
from templates.limits import DEFAULT_LIMITS, LIMIT_CEILINGS, LIMIT_NAMES, least


def test_the_sandbox_has_the_documents_defaults_and_every_ceiling_can_be_carried_out() -> None:
    made = SandboxLimits()
    assert {name: getattr(made, name) for name in LIMIT_NAMES} == DEFAULT_LIMITS.amounts()
    SandboxLimits(**LIMIT_CEILINGS.amounts())


def test_each_layer_narrows_and_none_widens() -> None:
    limits = EffectiveLimits(node={"fuel": 900, "tokens": 50}, tenants={"acme": {"fuel": 800, "wall_ms": 10**9}})
    assert limits.of("t", DEFAULT_LIMITS, tenant="rival").fuel == 900
    assert limits.of("t", DEFAULT_LIMITS, tenant="acme").fuel == 800
    assert limits.of("t", DEFAULT_LIMITS, tenant="acme").wall_ms == DEFAULT_LIMITS.wall_ms
    assert limits.of("t", DEFAULT_LIMITS, tenant="acme", agent=(("fuel", 700),)).fuel == 700
    narrowest = limits.of("t", DEFAULT_LIMITS, tenant="acme", agent=(("fuel", 700),), caller={"fuel": 600})
    assert (narrowest.fuel, narrowest.tokens) == (600, 50)
    assert limits.of("t", DEFAULT_LIMITS, tenant="acme", agent=(("fuel", 700),), caller={"fuel": 999}).fuel == 700


@given(*(st.dictionaries(st.sampled_from(LIMIT_NAMES), st.integers(65_536, 10**9), max_size=4) for _ in range(4)))
def test_the_look_up_says_what_the_rule_says(
    node: dict[str, int], tenant: dict[str, int], agent: dict[str, int], caller: dict[str, int]
) -> None:
    limits = EffectiveLimits(node=node, tenants={"acme": tenant})
    for _ in range(2):
        found = limits.of("t", DEFAULT_LIMITS, tenant="acme", agent=tuple(agent.items()), caller=caller)
        expected = least(DEFAULT_LIMITS, node, tenant, agent, caller)
        assert {name: getattr(found, name) for name in LIMIT_NAMES} == expected.amounts()


def test_templates_tenants_and_agents_are_kept_apart() -> None:
    limits = EffectiveLimits(tenants={"acme": {"fuel": 5}})
    other = least(DEFAULT_LIMITS, {"fuel": 77})
    assert limits.of("one", DEFAULT_LIMITS, tenant="acme").fuel == 5
    assert limits.of("one", DEFAULT_LIMITS, tenant="rival").fuel == DEFAULT_LIMITS.fuel
    assert limits.of("other", other, tenant="rival").fuel == 77
    assert limits.of("one", DEFAULT_LIMITS, tenant="rival", agent=(("fuel", 3),)).fuel == 3


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effective, "KNOWN_MAX", 3)
    limits = EffectiveLimits()
    for number in range(10):
        assert limits.of(str(number), DEFAULT_LIMITS, tenant="acme") == SandboxLimits()
        assert len(limits._known) <= 3


@pytest.mark.parametrize("wrong", [{"feul": 5}, {"memory_bytes": 100}, {"fuel": 0}])
def test_ceilings_that_nothing_could_run_under_stop_the_node(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        EffectiveLimits(node=wrong)
    with pytest.raises(ValueError, match="expected"):
        EffectiveLimits(tenants={"acme": wrong})


def test_an_amount_is_taken_whole_or_not_at_all() -> None:
    amounts = Amounts(SandboxLimits(tokens=10))
    amounts.take(Amount.TOKENS, 6)
    with pytest.raises(HostRefusal) as refused:
        amounts.take(Amount.TOKENS, 5)
    assert refused.value.kind is ErrorKind.BUDGET
    assert amounts.left(Amount.TOKENS) == 4
    amounts.give_back(Amount.TOKENS, 2)
    amounts.take(Amount.TOKENS, 6)
    assert amounts.used == [0, 0, 10, 0]
    assert amounts.left(Amount.SENT_BYTES) == SandboxLimits().sent_bytes


def test_a_child_draws_from_everybody_above_at_once() -> None:
    root = Amounts(SandboxLimits(sent_bytes=100))
    child = Amounts(SandboxLimits(sent_bytes=1_000), root)
    grandchild = Amounts(SandboxLimits(sent_bytes=30), child)
    grandchild.take(Amount.SENT_BYTES, 30)
    assert (grandchild.left(Amount.SENT_BYTES), child.left(Amount.SENT_BYTES)) == (0, 70)
    root.take(Amount.SENT_BYTES, 60)
    with pytest.raises(HostRefusal, match="at most 10 more"):
        child.take(Amount.SENT_BYTES, 11)
    assert (root.used[0], child.used[0], grandchild.used[0]) == (60, 0, 30)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=40))
def test_together_they_never_use_more_than_the_root_has(steps: list[tuple[int, int]]) -> None:
    line = [Amounts(SandboxLimits(tokens=100))]
    line += [Amounts(SandboxLimits(tokens=70), line[0])]
    line += [Amounts(SandboxLimits(tokens=50), line[1])]
    for who, count in steps:
        try:
            line[who].take(Amount.TOKENS, count)
        except HostRefusal:
            assert count > line[who].left(Amount.TOKENS)
    used = [each.used[2] for each in line]
    assert sum(used) <= 100
    assert used[1] + used[2] <= 70
    assert used[2] <= 50


def test_what_was_used_already_counts_though_nothing_was_left() -> None:
    amounts = Amounts(SandboxLimits(received_bytes=10))
    amounts.note(Amount.RECEIVED_BYTES, 15)
    assert amounts.left(Amount.RECEIVED_BYTES) == 0
    assert amounts.used == [0, 15, 0, 0]
    with pytest.raises(HostRefusal):
        amounts.take(Amount.RECEIVED_BYTES, 1)
