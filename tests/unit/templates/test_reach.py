"""Which templates a change reaches through its agents grants, and which reach it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.comparison import Direction
from templates.grants import Grants, KvGrant
from templates.names import TemplateName, TemplatePattern
from templates.reach import CHILD_DEPTH_CEILING, reach, through_agents
from templates.resolved import ResolvedTemplate
from tests.unit.templates.documents import MODULE, resolved

BASE = resolved(code=MODULE)


def _agent(text: str, *, agents: str = "", callers: str = "*/*", kv: int = 0) -> ResolvedTemplate:
    """``docs/a`` or ``docs/a@2.0.0``; patterns are separated by spaces."""
    name, _, version = text.partition("@")
    ref = TemplateName.parse(name).at(replace(BASE.ref.version, major=int(version.partition(".")[0] or 1)))
    return replace(
        BASE,
        ref=ref,
        callers=_patterns(callers),
        grants=Grants(agents=_patterns(agents), kv=KvGrant(namespace="n", bytes_max=kv) if kv else None),
    )


def _patterns(texts: str) -> tuple[TemplatePattern, ...]:
    return tuple(TemplatePattern.parse(each) for each in texts.split())


def _reached(start: ResolvedTemplate, *fleet: ResolvedTemplate) -> dict[str, list[str]]:
    return {str(each.template): [str(between) for between in each.via] for each in reach(start, fleet)}


AA, BB, CC = "docs/aa@1.0.0", "docs/bb@1.0.0", "code/cc@1.0.0"


@pytest.mark.parametrize(
    ("start", "fleet", "expected"),
    [
        pytest.param(_agent("docs/aa"), [_agent("docs/bb")], {}, id="no grant"),
        pytest.param(_agent("docs/aa", agents="docs/bb"), [], {}, id="a callee that is not active"),
        pytest.param(_agent("docs/aa", agents="docs/bb"), [_agent("docs/bb")], {BB: []}, id="named"),
        pytest.param(_agent("docs/aa", agents="docs/bb"), [_agent("docs/bb", callers="")], {}, id="no callers"),
        pytest.param(
            _agent("docs/aa", agents="docs/bb"), [_agent("docs/bb", callers="code/* docs/bb")], {}, id="others call it"
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/*"), [_agent("docs/bb", callers="docs/*"), _agent("code/cc")], {BB: []},
            id="a domain",
        ),
        pytest.param(
            _agent("docs/aa", agents="*/*"), [_agent("docs/bb"), _agent("code/cc", callers="docs/aa")],
            {BB: [], CC: []}, id="everything",
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/bb"), [_agent("docs/bb", agents="code/*"), _agent("code/cc")],
            {BB: [], CC: [BB]}, id="through another",
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/bb"),
            [_agent("docs/bb", agents="code/*"), _agent("code/cc", callers="docs/aa")],
            {BB: []}, id="callers name the first of the chain, which is not who calls",
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/bb"),
            [_agent("docs/bb", agents="docs/bb docs/aa code/cc"), _agent("code/cc", agents="*/*")],
            {BB: [], CC: [BB]}, id="cycles",
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/bb code/cc"),
            [_agent("docs/bb", agents="code/cc"), _agent("code/cc", agents="docs/bb")],
            {BB: [], CC: []}, id="the shortest chain",
        ),
        pytest.param(
            _agent("docs/aa", agents="docs/*"), [_agent("docs/aa", agents="*/*"), _agent("code/cc")], {},
            id="what the fleet holds under its own name does not matter",
        ),
        pytest.param(
            _agent("docs/aa", agents="*/*"), [replace(_agent("docs/bb"), code=None), _agent("images/bb")], {},
            id="neither abstract nor an image",
        ),
        pytest.param(
            replace(_agent("docs/aa", agents="*/*"), code=None), [_agent("docs/bb")], {}, id="an abstract one"
        ),
    ],
)  # fmt: skip
def test_what_is_reached(
    start: ResolvedTemplate, fleet: Sequence[ResolvedTemplate], expected: Mapping[str, list[str]]
) -> None:
    assert _reached(start, *fleet) == expected


def test_a_chain_is_followed_as_deep_as_a_node_can_be_told_to_permit() -> None:
    length = CHILD_DEPTH_CEILING + 2
    chain = [_agent(f"docs/n{i}", agents=f"docs/n{i + 1}") for i in range(length + 1)]
    found = reach(chain[0], chain)
    assert [each.depth for each in found] == list(range(1, CHILD_DEPTH_CEILING + 1))
    assert [each.depth for each in reach(chain[0], chain, depth_max=2)] == [1, 2]
    assert reach(chain[0], chain, depth_max=0) == ()
    above = through_agents(chain[-1], chain[-1], [chain]).callers
    assert len(above) == CHILD_DEPTH_CEILING


def test_a_fleet_where_everything_reaches_everything_takes_no_time() -> None:
    """Looking at every pair takes half a minute; a reviewer waits for this."""
    fleet = [_agent(f"docs/n{i}", agents="*/*") for i in range(2_000)]
    started = perf_counter()
    found = through_agents(fleet[0], None, [fleet])
    assert (len(found.reached), len(found.callers)) == (1_999, 1_999)
    assert perf_counter() - started < 10


def _changes(
    change: ResolvedTemplate, active: ResolvedTemplate | None, *fleets: Sequence[ResolvedTemplate]
) -> list[tuple[str, str]]:
    return [(str(each.direction), each.subject) for each in through_agents(change, active, fleets).entries]


REACH_BB, REACH_CC = "/through_agents/docs~1bb", "/through_agents/code~1cc"
FLEET = (_agent("docs/bb", agents="code/cc"), _agent("code/cc", kv=5))


def test_what_is_reached_anew_widens_with_each_of_its_grants() -> None:
    change, active = _agent("docs/aa@2.0.0", agents="docs/*"), _agent("docs/aa")
    widened = [
        ("widened", REACH_CC),
        ("widened", f"{REACH_CC}/grants/kv"),
        ("widened", REACH_BB),
        ("widened", f"{REACH_BB}/grants/agents/code~1cc"),
    ]
    assert _changes(change, active, FLEET) == widened
    assert _changes(change, None, FLEET) == widened
    assert _changes(active, change, FLEET) == [("narrowed", subject) for _, subject in widened]
    assert _changes(change, change, FLEET) == []
    entry = through_agents(change, active, [FLEET]).entries[0]
    assert (entry.old, entry.new) == ("", f"{CC} via {BB}")


def test_a_shorter_chain_widens_since_a_node_may_have_cut_the_longer_one() -> None:
    longer, shorter = _agent("docs/aa", agents="docs/bb"), _agent("docs/aa@2.0.0", agents="docs/bb code/cc")
    assert _changes(shorter, longer, FLEET) == [("widened", REACH_CC)]
    assert _changes(longer, shorter, FLEET) == [("narrowed", REACH_CC)]
    entry = through_agents(shorter, longer, [FLEET]).entries[0]
    assert (entry.old, entry.new) == (f"{CC} via {BB}", f"{CC} directly")


def test_what_only_some_nodes_run_counts() -> None:
    """Taken together, the nodes would hide that the change reaches more on some of them."""
    change, active = _agent("docs/aa@2.0.0", agents="docs/bb docs/dd"), _agent("docs/aa", agents="docs/bb")
    reaches_already = (_agent("docs/bb", agents="code/cc"), _agent("code/cc"))
    gains = (_agent("docs/bb@2.0.0"), _agent("docs/dd", agents="code/cc"), _agent("code/cc"))
    assert _changes(change, active, reaches_already) == []
    assert ("widened", REACH_CC) in _changes(change, active, reaches_already, gains)
    found = through_agents(change, active, [reaches_already, gains])
    assert [str(each.template) for each in found.reached] == [BB, "docs/bb@2.0.0", "docs/dd@1.0.0", CC]


def test_callers_above_are_named_with_their_chains_and_whether_they_are_new() -> None:
    fleet = (
        _agent("docs/bb", agents="code/cc"),
        _agent("docs/top", agents="docs/bb"),
        _agent("code/other", agents="code/cc"),
        _agent("docs/stranger", agents="docs/stranger"),
        _agent("docs/granted", agents="code/cc"),
    )
    active = _agent("code/cc", callers="docs/bb")
    change = _agent("code/cc@2.0.0", callers="docs/bb code/*")
    found = {
        str(each.template): ([str(between) for between in each.via], each.is_new)
        for each in through_agents(change, active, [fleet]).callers
    }
    assert found == {
        "code/other@1.0.0": ([], True),
        BB: ([], False),
        "docs/top@1.0.0": ([BB], False),
    }
    first = through_agents(change, None, [fleet]).callers
    assert all(each.is_new for each in first)
    assert len(first) == len(found)


def test_what_is_between_stands_in_the_order_of_the_calls() -> None:
    fleet = [_agent(f"docs/n{i}", agents=f"docs/n{i + 1}") for i in range(4)]
    (nearest, *_, farthest) = through_agents(fleet[3], fleet[3], [fleet]).callers
    assert (str(nearest.template), nearest.via) == ("docs/n2@1.0.0", ())
    assert [str(each) for each in farthest.via] == ["docs/n1@1.0.0", "docs/n2@1.0.0"]
    assert [str(each) for each in reach(fleet[0], fleet)[-1].via] == ["docs/n1@1.0.0", "docs/n2@1.0.0"]


NAMES = ("docs/aa", "docs/bb", "code/aa", "code/bb", "code/cc")
patterns = st.lists(st.sampled_from([*NAMES, "docs/*", "code/*", "*/*"]), max_size=2, unique=True).map(" ".join)
templates = st.fixed_dictionaries({name: st.tuples(patterns, patterns) for name in NAMES}).map(
    lambda rights: {name: _agent(name, agents=agents, callers=callers) for name, (agents, callers) in rights.items()}
)


def _may_invoke(caller: ResolvedTemplate, callee: ResolvedTemplate) -> bool:
    return caller.grants.permits_agent(callee.ref.template_name) and callee.permits_caller(caller.ref.template_name)


@given(templates)
def test_reach_is_the_closure_of_one_invocation_after_another(among: dict[str, ResolvedTemplate]) -> None:
    """The model: Warshall's algorithm over the rule by which a broker decides one call."""
    edges = {(a, b) for a in NAMES for b in NAMES if _may_invoke(among[a], among[b])}
    for middle in NAMES:
        edges |= {(a, b) for a in NAMES for b in NAMES if (a, middle) in edges and (middle, b) in edges}
    for name in NAMES:
        found = {str(each.template.template_name): each for each in reach(among[name], among.values())}
        assert found.keys() == {b for a, b in edges if a == name} - {name}
        for each in found.values():
            chain = [among[name], *(among[str(between.template_name)] for between in (*each.via, each.template))]
            assert all(_may_invoke(one, next_) for one, next_ in pairwise(chain))


@given(templates)
def test_whom_a_template_reaches_and_who_reaches_it_agree(among: dict[str, ResolvedTemplate]) -> None:
    down = {
        (name, str(each.template.template_name), each.depth)
        for name in NAMES
        for each in reach(among[name], among.values())
    }
    up = {
        (str(each.template.template_name), name, len(each.via) + 1)
        for name in NAMES
        for each in through_agents(among[name], None, [tuple(among.values())]).callers
    }
    assert down == up


@given(templates, patterns)
def test_nothing_is_gained_through_agents_without_a_wider_agents_grant(
    among: dict[str, ResolvedTemplate], agents: str
) -> None:
    active = among["docs/aa"]
    change = replace(active, grants=Grants(agents=_patterns(agents)))
    found = through_agents(change, active, [tuple(among.values())])
    assert not (found.widens and active.grants.covers(change.grants))
    assert found.widens == any(each.direction is Direction.WIDENED for each in found.entries)


@given(templates, patterns)
def test_no_template_that_is_reached_anew_goes_unsaid(among: dict[str, ResolvedTemplate], agents: str) -> None:
    active = among["docs/aa"]
    change = replace(active, grants=Grants(agents=_patterns(agents)))
    before = {each.template for each in reach(active, among.values())}
    after = {each.template for each in reach(change, among.values())}
    assert through_agents(change, active, [tuple(among.values())]).widens or after <= before
