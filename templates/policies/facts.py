"""What a policy is asked about: one version as it was derived, one person, the circumstances; and how Cedar sees them.

The version's facts come from its resolved bytes, its derived capabilities and the comparison with the active version,
so a reviewer's machine and the control plane, which hold the same bytes, ask the same question.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from templates.canonical import JsonObject, JsonValue
from templates.capabilities import Capabilities
from templates.comparison import Direction, Entry
from templates.grants import Grants, HttpGrant
from templates.limits import DEFAULT_LIMITS
from templates.names import TemplateName, TemplateRef, Version
from templates.problems import join
from templates.reach import ThroughAgents
from templates.resolved import PinnedModule, PinnedSource, ResolvedTemplate

_PORTS: Final = {"https": 443, "http": 80}


class Action(StrEnum):
    """What is asked for. Revoking is not among them: to take away is never a policy's to prevent (ADR 21)."""

    SUBMIT = "submit"
    APPROVE = "approve"
    ACTIVATE = "activate"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A person; ``reviews`` are the domains that the charter lets this person review."""

    name: str
    reviews: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, reviews: Iterable[str]) -> "Principal":
        """Return a person with the roles that the charter gives: whoever is certified may write, reviewers review."""
        domains = frozenset(reviews)
        return cls(name=name, reviews=domains, roles=frozenset({"author", "reviewer"} if domains else {"author"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One origin or model of a version, asked about on its own: ``context`` is added to the circumstances."""

    place: str
    context: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A version. ``attributes`` are those of `Version` in the schema, without ``author`` and ``version``."""

    ref: TemplateRef
    author: str
    attributes: JsonObject
    labels: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """When and where. ``now`` is aware."""

    now: datetime
    environment: str
    mode: str
    approvers: frozenset[str] = frozenset()
    threshold: int = 0
    break_glass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May ``principal`` do this with that version, now?"""

    action: Action
    principal: Principal
    subject: Subject
    circumstances: Circumstances

    def entities(self) -> list[JsonObject]:
        """Return the entities as Cedar's JSON."""
        ref, author = self.subject.ref, self.subject.author
        attributes: dict[str, Any] = {
            **self.subject.attributes,
            "author": _uid("Person", author),
            "version": str(ref.version),
            "prerelease": bool(ref.version.prerelease),
        }
        persons = {name: Principal(name=name) for name in (author, *sorted(self.circumstances.approvers))}
        persons[self.principal.name] = self.principal
        template = _uid("Template", str(ref.template_name))
        return [
            *(_person(each) for each in persons.values()),
            {"uid": template, "attrs": {}, "parents": [_uid("Domain", ref.domain)]},
            {
                "uid": _uid("Version", str(ref)),
                "attrs": attributes,
                "parents": [template],
                "tags": dict(self.subject.labels),
            },
        ]

    def requests(self) -> Iterator[tuple[str, JsonObject]]:
        """Yield each request with the place that it is about: the version first, then each of its items."""
        base = self._context()
        for place, added in (("", {}), *((item.place, item.context) for item in self.subject.items)):
            yield (
                place,
                {
                    "principal": _uid("Person", self.principal.name),
                    "action": _uid("Action", str(self.action)),
                    "resource": _uid("Version", str(self.subject.ref)),
                    "context": {**base, **added},
                },
            )

    def to_json(self) -> JsonObject:
        """Return the question as a case file holds it, so that what happened can become a test."""
        around = self.circumstances
        return {
            "action": str(self.action),
            "principal": {
                "name": self.principal.name,
                "reviews": [*sorted(self.principal.reviews)],
                "roles": [*sorted(self.principal.roles)],
            },
            "template": str(self.subject.ref),
            "author": self.subject.author,
            "version": self.subject.attributes,
            "labels": dict(self.subject.labels),
            "items": [{"place": item.place, **item.context} for item in self.subject.items],
            "context": {
                "now": around.now.astimezone(UTC).isoformat(timespec="seconds"),
                "environment": around.environment,
                "mode": around.mode,
                "approvers": [*sorted(around.approvers)],
                "threshold": around.threshold,
                "break_glass": around.break_glass,
            },
        }

    def _context(self) -> dict[str, JsonValue]:
        around = self.circumstances
        now = around.now.astimezone(UTC)
        moment = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"
        return {
            "now": {"__extn": {"fn": "datetime", "arg": moment}},
            "date": now.date().isoformat(),
            "weekday": now.isoweekday(),
            "hour": now.hour,
            "environment": around.environment,
            "mode": around.mode,
            "break_glass": around.break_glass,
            "approvers": [{"__entity": _uid("Person", name)} for name in sorted(around.approvers)],
            "threshold": around.threshold,
        }


def subject_of(
    resolved: ResolvedTemplate,
    capabilities: Capabilities,
    *,
    differences: Sequence[Entry],
    through: ThroughAgents,
    is_new: bool,
    above_ceiling: bool,
) -> Subject:
    """Return a version's facts.

    Args:
        resolved: the version.
        capabilities: derived from it and its module.
        differences: `templates.comparison.difference` with the active version.
        through: what it means beyond its own grants.
        is_new: no version of this template is active.
        above_ceiling: it exceeds the domain's ceiling in the charter.
    """
    grants = capabilities.grants
    widened = [each.subject for each in (*differences, *through.entries) if each.direction is Direction.WIDENED]
    attributes: dict[str, Any] = {
        **_EMPTY,
        **_grant_facts(grants),
        "abi": capabilities.abi,
        "methods": _set(method for each in grants.http for method in each.methods),
        "agents": _set(map(str, grants.agents)),
        "exports": _set(each.export for each in grants.files),
        "writable_exports": _set(each.export for each in grants.files if each.mode == "rw"),
        "interfaces": _set(capabilities.interfaces),
        "imports": _set(capabilities.imports),
        "callers": _set(map(str, capabilities.callers)),
        "on_lease_expiry": str(capabilities.on_lease_expiry),
        "limits": capabilities.limits.amounts(),
        "examples": len(resolved.examples),
        "above_ceiling": above_ceiling,
        "is_new": is_new,
        "widens": bool(widened),
        "widened": _set(widened),
        "through": _through_facts(through),
        "hosts": _set(_address(each.origin)["host"] for each in grants.http),
    }
    match resolved.code:
        case PinnedSource(source=source, image=image):
            attributes |= {"code_bytes": source.length, "image": image.template.name}
        case PinnedModule(module=module):
            attributes["code_bytes"] = module.length
        case None:
            pass
    return Subject(
        ref=resolved.ref,
        author=resolved.author,
        attributes=attributes,
        labels=resolved.labels,
        items=tuple(_items(grants)),
    )


def invented_subject(
    ref: TemplateRef,
    *,
    author: str,
    attributes: JsonObject,
    labels: Mapping[str, str],
    items: Sequence[Item] | None = None,
) -> Subject:
    """Return a version as a case describes it: what it does not say is empty, new, and within its limits.

    Without ``items``, each origin and model of ``attributes`` is one, as if its grant permitted nothing beside it.
    """
    known: dict[str, Any] = {**_EMPTY, **attributes}
    for name in ("limits", "through"):
        known[name] = {**_EMPTY[name], **known[name]}
    if "hosts" not in attributes:
        known["hosts"] = _set(_address(each)["host"] for each in known["origins"])
    if items is None:
        items = list(_invented_items(known["origins"], known["models"]))
    return Subject(ref=ref, author=author, attributes=known, labels=labels, items=tuple(items))


def _invented_items(origins: Iterable[str], models: Iterable[str]) -> Iterator[Item]:
    for index, url in enumerate(origins):
        alone: JsonObject = {"methods": [], "path_prefixes": [], "secret": "", "header": ""}
        yield Item(place=f"/grants/http/{index}", context={"origin": {**_address(url), **alone}})
    for index, model in enumerate(models):
        yield Item(place=f"/grants/llm/{index}", context={"model": model})


_NOTHING_THROUGH: Final[JsonObject] = {"templates": [], "grants": [], "origins": [], "secrets": [], "models": []}
_EMPTY: Final[dict[str, Any]] = {
    "abi": "component",
    "image": "",
    **{name: [] for name in ("grants", "origins", "hosts", "methods", "secrets", "models", "agents", "exports")},
    **{name: [] for name in ("writable_exports", "interfaces", "imports", "callers", "widened")},
    "on_lease_expiry": "no_new_agents",
    "limits": DEFAULT_LIMITS.amounts(),
    "examples": 0,
    "code_bytes": 0,
    "above_ceiling": False,
    "is_new": True,
    "widens": False,
    "through": _NOTHING_THROUGH,
}


def version_ref(text: str) -> TemplateRef:
    """Read ``domain/name@version``, or ``domain/name`` for a case in which the version does not matter."""
    return TemplateRef.parse(text) if "@" in text else TemplateName.parse(text).at(Version(1, 0, 0))


def _grant_facts(grants: Grants) -> dict[str, Any]:
    kinds = {
        "kv": grants.kv,
        "http": grants.http,
        "llm": grants.llm,
        "agents": grants.agents,
        "files": grants.files,
    }
    return {
        "grants": _set(kind for kind, granted in kinds.items() if granted),
        "origins": _set(each.origin for each in grants.http),
        "secrets": _set(each.inject.secret for each in grants.http if each.inject),
        "models": _set(model for each in grants.llm for model in each.models),
    }


def _through_facts(through: ThroughAgents) -> JsonObject:
    facts: dict[str, set[str]] = {name: set() for name in _NOTHING_THROUGH}
    for reached in through.reached:
        facts["templates"].add(str(reached.template.template_name))
        for name, members in _grant_facts(reached.grants).items():
            facts[name].update(members)
    return {name: [*sorted(members)] for name, members in facts.items()}


def _items(grants: Grants) -> Iterator[Item]:
    for http in grants.http:
        yield Item(place=join("/grants/http", http.binding), context={"origin": _origin(http)})
    for llm in grants.llm:
        for model in llm.models:
            yield Item(place=join("/grants/llm", llm.binding), context={"model": model})


def _origin(grant: HttpGrant) -> JsonObject:
    return {
        **_address(grant.origin),
        "methods": _set(grant.methods),
        "path_prefixes": _set(grant.path_prefixes),
        "secret": grant.inject.secret if grant.inject else "",
        "header": grant.inject.header.lower() if grant.inject else "",
    }


def _address(origin: str) -> JsonObject:
    """Split an origin whose grammar `templates.document` has checked; a case's own may be anything."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return {"url": origin, "scheme": "", "host": "", "port": 0}
    return {
        "url": origin,
        "scheme": parts.scheme,
        "host": parts.hostname or "",
        "port": port or _PORTS.get(parts.scheme, 0),
    }


def _set(members: Iterable[Any]) -> list[Any]:
    return sorted(set(members))


def _uid(kind: str, name: str) -> JsonObject:
    return {"type": kind, "id": name}


def _person(person: Principal) -> JsonObject:
    return {
        "uid": _uid("Person", person.name),
        "attrs": {"roles": _set(person.roles)},
        "parents": [_uid("Reviewers", domain) for domain in sorted(person.reviews)],
    }
