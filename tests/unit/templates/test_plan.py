import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.canonical import canonical_bytes
from templates.names import TemplateRef
from templates.plan import Plan, PlanEntry, PlanInvalidError, read_plan
from templates.revocations import Revocations

A1, A2, B1 = (TemplateRef.parse(text) for text in ("docs/aa@1.0.0", "docs/aa@2.0.0", "docs/bb@1.0.0"))
ONE, TWO = "1" * 64, "2" * 64


def entry(ref: TemplateRef, *nodes: str, sha256: str = ONE) -> PlanEntry:
    return PlanEntry(template=ref, sha256=sha256, nodes=frozenset(nodes) if nodes else None)


def plan(*entries: PlanEntry) -> Plan:
    return Plan(environment="prod", entries=entries, revocations=Revocations(modules=frozenset({TWO})))


def test_a_plan_reads_back_as_it_was_written() -> None:
    written = plan(entry(B1), entry(A1), entry(A2, "n2", "n1", sha256=TWO))
    assert read_plan(written.to_bytes()) == written


def test_an_entry_for_a_node_wins_over_one_for_all_whatever_their_order() -> None:
    for entries in ((entry(A1), entry(A2, "n1"), entry(B1)), (entry(A2, "n1"), entry(B1), entry(A1))):
        assert [each.template for each in plan(*entries).for_node("n1")] == [A2, B1]
        assert [each.template for each in plan(*entries).for_node("n2")] == [A1, B1]


def test_an_entry_for_other_nodes_is_not_for_this_one() -> None:
    assert plan(entry(A1, "n1")).for_node("n2") == ()


AMBIGUOUS = {
    "two versions for all nodes": (entry(A1), entry(A2)),
    "two versions for one node": (entry(A1, "n1", "n2"), entry(A2, "n2")),
    "one version with two digests": (entry(A1, "n1"), entry(A1, "n2", sha256=TWO)),
    "one entry twice": (entry(A1), entry(A1)),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_plan_is_refused_by_writer_and_reader(name: str) -> None:
    wrong = plan(*AMBIGUOUS[name])
    with pytest.raises(PlanInvalidError):
        wrong.to_bytes()
    with pytest.raises(PlanInvalidError):
        read_plan(canonical_bytes(wrong.to_json()))


def _entries(**changes: object) -> bytes:
    value = json.loads(plan(entry(A1)).to_bytes())
    value["entries"][0].update(changes)
    return canonical_bytes(value)


UNREADABLE = {
    "nothing": b"",
    "null": b"null",
    "white space": b" " + plan().to_bytes(),
    "a duplicate key": plan().to_bytes().replace(b'{"entries"', b'{"entries":[],"entries"'),
    "no version": _entries(template="docs/aa"),
    "a short digest": _entries(sha256="1"),
    "no nodes": _entries(nodes=[]),
    "another wildcard": _entries(nodes="all"),
    "a node twice": _entries(nodes=["n1", "n1"]),
    "an unknown field": _entries(more=1),
    "another environment": canonical_bytes({**json.loads(plan().to_bytes()), "environment": "PROD"}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bytes_that_are_no_canonical_plan_are_refused(name: str) -> None:
    with pytest.raises(PlanInvalidError, match="expected"):
        read_plan(UNREADABLE[name])


_NODES = st.sampled_from(["n1", "n2", "n3"])
_ENTRIES = st.lists(
    st.builds(
        PlanEntry,
        template=st.sampled_from([A1, A2, B1]),
        sha256=st.sampled_from([ONE, TWO]),
        nodes=st.none() | st.frozensets(_NODES, min_size=1),
    ),
    max_size=6,
)


@given(entries=_ENTRIES, node=_NODES)
def test_a_plan_that_can_be_written_names_at_most_one_version_per_node(entries: list[PlanEntry], node: str) -> None:
    written = replace(plan(), entries=tuple(entries))
    try:
        data = written.to_bytes()
    except PlanInvalidError:
        return
    chosen = read_plan(data).for_node(node)
    assert len({each.template.template_name for each in chosen}) == len(chosen)
    named = [each for each in entries if each.nodes and node in each.nodes]
    assert set(named) <= set(chosen)
