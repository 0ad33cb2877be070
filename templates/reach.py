"""What a template can do through others: which active templates it may invoke, theirs in turn, and what those may do.

An agent may invoke another when its ``agents`` grant names the other and the other's ``callers`` name it; a chain ends
where the node's ``child_depth_max`` says. Which depth a node was given is not known here, so chains are followed as
far as any node may be told to: more is shown than some nodes permit, never less.

For a change this is asked twice, with the active version in its place and with the change, downwards (what it gains
through others) and upwards (who gains through it). What counts as widened: a template that is reached anew, or by a
shorter chain, whatever it may do, and each of its grants. While the ``agents`` grants themselves are not widened,
nothing below is: there is no edge that was not there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from templates.comparison import Direction, Entry, grant_entries
from templates.grants import NO_GRANTS, Grants
from templates.names import TemplateName, TemplatePattern, TemplateRef
from templates.problems import join
from templates.resolved import ResolvedTemplate

CHILD_DEPTH_CEILING: Final = 16
"""Longest chain below the first agent that a node can be set to permit."""

SUBJECT: Final = "/through_agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A template that can be invoked, by a shortest chain; ``via``: those between, in the order of the calls."""

    template: TemplateRef
    via: tuple[TemplateRef, ...]
    grants: Grants

    @property
    def depth(self) -> int:
        """How many invocations deep it runs; a node permits it when its ``child_depth_max`` is no less."""
        return len(self.via) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An active template that can invoke the change; ``via``: those between, in the order of the calls.

    ``is_new``: it does not reach the version that is active now.
    """

    template: TemplateRef
    via: tuple[TemplateRef, ...]
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughAgents:
    """What a change means beyond its own grants; ``entries`` are differences only, nothing that is the same."""

    reached: tuple[Reached, ...] = ()
    entries: tuple[Entry, ...] = ()
    callers: tuple[Caller, ...] = ()

    @property
    def widens(self) -> bool:
        return any(entry.direction is Direction.WIDENED for entry in self.entries)


def through_agents(
    change: ResolvedTemplate, active: ResolvedTemplate | None, fleets: Iterable[Sequence[ResolvedTemplate]]
) -> ThroughAgents:
    """Judge a change among what is active.

    Args:
        change: the proposed version.
        active: the version it is compared with; None: everything is new.
        fleets: what is active together, once for each set of nodes that run the same; of each name one version. What
            they hold under the change's own name does not matter.
    """
    reached: dict[TemplateRef, Reached] = {}
    callers: dict[TemplateRef, Caller] = {}
    entries: dict[Entry, None] = {}
    for fleet in fleets:
        found = _in_fleet(change, active, fleet)
        for each in found.reached:
            known = reached.get(each.template)
            reached[each.template] = each if known is None else min(known, each, key=_depth)
        for caller in found.callers:
            known_caller = callers.get(caller.template, caller)
            nearest = min(known_caller, caller, key=_depth)
            callers[caller.template] = replace(nearest, is_new=known_caller.is_new or caller.is_new)
        entries.update(dict.fromkeys(found.entries))
    return ThroughAgents(
        reached=tuple(sorted(reached.values(), key=_order)),
        entries=tuple(sorted(entries, key=lambda entry: (entry.subject, entry.old, entry.new))),
        callers=tuple(sorted(callers.values(), key=_order)),
    )


def reach(
    start: ResolvedTemplate, fleet: Iterable[ResolvedTemplate], *, depth_max: int = CHILD_DEPTH_CEILING
) -> tuple[Reached, ...]:
    """Return what ``start`` can invoke among ``fleet``, the nearest first; never itself, whose rights are its own."""
    graph = _Graph(start, fleet)
    chains = _chains(graph, start.ref.template_name, graph.callees, depth_max=depth_max)
    found = (
        Reached(
            template=graph.templates[name].ref,
            via=tuple(graph.templates[each].ref for each in chain),
            grants=graph.templates[name].grants,
        )
        for name, chain in chains.items()
    )
    return tuple(sorted(found, key=_order))


def _in_fleet(
    change: ResolvedTemplate, active: ResolvedTemplate | None, fleet: Sequence[ResolvedTemplate]
) -> ThroughAgents:
    before = {each.template.template_name: each for each in reach(active, fleet)} if active else {}
    after = {each.template.template_name: each for each in reach(change, fleet)}
    old_callers = set(_callers(active, fleet)) if active else set()
    return ThroughAgents(
        reached=tuple(after.values()),
        entries=tuple(_entries(before, after)),
        callers=tuple(
            Caller(template=ref, via=via, is_new=ref not in old_callers) for ref, via in _callers(change, fleet).items()
        ),
    )


def _callers(
    target: ResolvedTemplate, fleet: Iterable[ResolvedTemplate]
) -> Mapping[TemplateRef, tuple[TemplateRef, ...]]:
    graph = _Graph(target, fleet)
    chains = _chains(graph, target.ref.template_name, graph.callers, depth_max=CHILD_DEPTH_CEILING)
    return {
        graph.templates[name].ref: tuple(graph.templates[each].ref for each in reversed(chain))
        for name, chain in chains.items()
    }


def _entries(before: Mapping[TemplateName, Reached], after: Mapping[TemplateName, Reached]) -> Iterator[Entry]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        subject = join(SUBJECT, str(name))
        was, now = _chain_text(old), _chain_text(new)
        if old is None or (new is not None and new.depth < old.depth):
            yield Entry(direction=Direction.WIDENED, subject=subject, old=was, new=now)
        elif new is None or new.depth > old.depth:
            yield Entry(direction=Direction.NARROWED, subject=subject, old=was, new=now)
        rights = grant_entries(old.grants if old else NO_GRANTS, new.grants if new else NO_GRANTS)
        for entry in rights:
            if entry.direction is not Direction.SAME:
                yield replace(entry, subject=f"{subject}{entry.subject}")


def _chain_text(reached: Reached | None) -> str:
    if reached is None:
        return ""
    via = ", ".join(str(each) for each in reached.via)
    return f"{reached.template} via {via}" if via else f"{reached.template} directly"


def _depth(reached: Reached | Caller) -> tuple[int, tuple[TemplateRef, ...]]:
    return len(reached.via), reached.via


def _order(reached: Reached | Caller) -> tuple[int, TemplateRef]:
    return len(reached.via), reached.template


_ByDomain: TypeAlias = Mapping[str, set[TemplateName]]


class _Graph:
    """Who may invoke whom, with ``placed`` in the place of whatever ``fleet`` holds under its name.

    A template without code is nobody's callee and calls nobody; neither does an image.
    """

    def __init__(self, placed: ResolvedTemplate, fleet: Iterable[ResolvedTemplate]) -> None:
        others = {each.ref.template_name: each for each in fleet}
        everyone = {**others, placed.ref.template_name: placed}
        self.templates = {name: each for name, each in everyone.items() if not (each.is_abstract or each.is_image)}

    def by_domain(self) -> dict[str, set[TemplateName]]:
        found: dict[str, set[TemplateName]] = {}
        for name in self.templates:
            found.setdefault(name.domain, set()).add(name)
        return found

    def callees(self, name: TemplateName, among: _ByDomain) -> Iterator[TemplateName]:
        for each in _matching(self.templates[name].grants.agents, among):
            if self.templates[each].permits_caller(name):
                yield each

    def callers(self, name: TemplateName, among: _ByDomain) -> Iterator[TemplateName]:
        for each in _matching(self.templates[name].callers, among):
            if self.templates[each].grants.permits_agent(name):
                yield each


def _matching(patterns: Iterable[TemplatePattern], among: _ByDomain) -> set[TemplateName]:
    found: set[TemplateName] = set()
    for pattern in patterns:
        for domain in among if pattern.domain == "*" else (pattern.domain,):
            names = among.get(domain, set())
            found |= names if pattern.name == "*" else {TemplateName(domain, pattern.name)} & names
    return found


def _chains(
    graph: _Graph,
    start: TemplateName,
    following: Callable[[TemplateName, _ByDomain], Iterable[TemplateName]],
    *,
    depth_max: int,
) -> dict[TemplateName, tuple[TemplateName, ...]]:
    """Return everything within ``depth_max`` steps of ``start`` with what lies between, breadth first.

    What was found is not looked at again: cycles end, and a fleet where everything reaches everything takes one look.
    """
    found: dict[TemplateName, tuple[TemplateName, ...]] = {}
    left = graph.by_domain()
    rank = [start] if start in graph.templates else []
    left.get(start.domain, set()).discard(start)
    for _ in range(depth_max):
        further: list[TemplateName] = []
        for name in rank:
            chain = () if name == start else (*found[name], name)
            for each in sorted(following(name, left)):
                found[each] = chain
                left[each.domain].discard(each)
                further.append(each)
        rank = further
    return found
