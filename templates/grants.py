"""What a template is permitted to reach, as values: one grant covers another when it permits at least as much.

On the covering side ``*`` stands for any name. The ceilings of a charter use it; template documents cannot say it,
except in ``agents``. Lists are sets: their order means nothing, and `Grants.to_json` sorts them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from templates.canonical import JsonObject, JsonValue
from templates.names import TemplateName, TemplatePattern

ANY = "*"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class KvGrant:
    """Key-value state; the namespace lies inside (tenant, domain, template), so namespaces of two templates differ."""

    namespace: str
    bytes_max: int

    def excess(self, other: "KvGrant") -> Iterable["Excess"]:
        yield from _name_excess("/kv/namespace", self.namespace, other.namespace)
        yield from _amount_excess("/kv/bytes_max", self.bytes_max, other.bytes_max)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HttpInjection:
    """The broker sets ``header`` to the secret that the charter binds to this name; the guest never sees it."""

    header: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGrant:
    """Requests to one origin. A path prefix covers itself and the paths below it: ``/works`` covers ``/works/1``.

    ``headers``: lower-case names that the guest may set, beside those that every guest may.
    """

    binding: str
    origin: str
    methods: tuple[str, ...]
    path_prefixes: tuple[str, ...]
    headers: tuple[str, ...] = ()
    inject: HttpInjection | None = None

    def excess(self, other: "HttpGrant", pointer: str) -> Iterable["Excess"]:
        yield from _name_excess(f"{pointer}/binding", self.binding, other.binding)
        yield from _name_excess(f"{pointer}/origin", self.origin, other.origin)
        for index, method in enumerate(other.methods):
            yield from _member_excess(f"{pointer}/methods/{index}", self.methods, method, _covers_name)
        for index, prefix in enumerate(other.path_prefixes):
            yield from _member_excess(f"{pointer}/path_prefixes/{index}", self.path_prefixes, prefix, path_is_under)
        for index, header in enumerate(other.headers):
            yield from _member_excess(f"{pointer}/headers/{index}", self.headers, header, _covers_name)
        if other.inject is not None:
            ours = self.inject or HttpInjection(header="none", secret="")
            yield from _name_excess(f"{pointer}/inject/header", ours.header, other.inject.header)
            yield from _name_excess(f"{pointer}/inject/secret", ours.secret, other.inject.secret)

    def narrowed_by(self, other: "HttpGrant") -> "HttpGrant | None":
        binding, origin = _meet_name(self.binding, other.binding), _meet_name(self.origin, other.origin)
        methods = _meet(self.methods, other.methods, _covers_name)
        prefixes = _meet(self.path_prefixes, other.path_prefixes, path_is_under)
        if binding is None or origin is None or not methods or not prefixes:
            return None
        inject = _meet_injection(self.inject, other.inject)
        return HttpGrant(
            binding=binding,
            origin=origin,
            methods=methods,
            path_prefixes=prefixes,
            headers=_meet(self.headers, other.headers, _covers_name),
            inject=inject,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmGrant:
    """Calls to language models; ``tokens_max`` bounds one invocation."""

    binding: str
    models: tuple[str, ...]
    tokens_max: int

    def excess(self, other: "LlmGrant", pointer: str) -> Iterable["Excess"]:
        yield from _name_excess(f"{pointer}/binding", self.binding, other.binding)
        for index, model in enumerate(other.models):
            yield from _member_excess(f"{pointer}/models/{index}", self.models, model, _covers_name)
        yield from _amount_excess(f"{pointer}/tokens_max", self.tokens_max, other.tokens_max)

    def narrowed_by(self, other: "LlmGrant") -> "LlmGrant | None":
        binding = _meet_name(self.binding, other.binding)
        models = _meet(self.models, other.models, _covers_name)
        if binding is None or not models:
            return None
        return LlmGrant(binding=binding, models=models, tokens_max=min(self.tokens_max, other.tokens_max))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FileGrant:
    """A directory that the node exports by name, seen by the guest at ``mount``; ``mode`` is ``ro`` or ``rw``."""

    mount: str
    export: str
    mode: str

    def excess(self, other: "FileGrant", pointer: str) -> Iterable["Excess"]:
        yield from _name_excess(f"{pointer}/mount", self.mount, other.mount)
        yield from _name_excess(f"{pointer}/export", self.export, other.export)
        if self.mode == "ro" and other.mode != "ro":
            yield Excess(pointer=f"{pointer}/mode", message=f"expected ro, got {other.mode}")

    def narrowed_by(self, other: "FileGrant") -> "FileGrant | None":
        mount, export = _meet_name(self.mount, other.mount), _meet_name(self.export, other.export)
        if mount is None or export is None:
            return None
        return FileGrant(mount=mount, export=export, mode=min(self.mode, other.mode))


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A place in grants that permits more than it may, and the sentence that says so."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Everything that one template may reach; the default is nothing."""

    kv: KvGrant | None = None
    http: tuple[HttpGrant, ...] = ()
    llm: tuple[LlmGrant, ...] = ()
    agents: tuple[TemplatePattern, ...] = ()
    files: tuple[FileGrant, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Build grants from a ``grants`` object that has passed the schema; the order of its lists is kept."""
        kv = value.get("kv")
        return cls(
            kv=None if kv is None else KvGrant(**kv),
            http=tuple(_http_from_json(each) for each in value.get("http", ())),
            llm=tuple(LlmGrant(**{**each, "models": tuple(each["models"])}) for each in value.get("llm", ())),
            agents=tuple(TemplatePattern.parse(each) for each in value.get("agents", ())),
            files=tuple(FileGrant(**each) for each in value.get("files", ())),
        )

    def to_json(self) -> JsonObject:
        """Return only what is granted, lists sorted: equal rights give equal bytes."""
        ordered = self.ordered()
        members: dict[str, JsonValue] = {
            "http": [_http_to_json(each) for each in ordered.http],
            "llm": [
                {"binding": each.binding, "models": list(each.models), "tokens_max": each.tokens_max}
                for each in ordered.llm
            ],
            "agents": [str(each) for each in ordered.agents],
            "files": [{"mount": each.mount, "export": each.export, "mode": each.mode} for each in ordered.files],
        }
        if ordered.kv is not None:
            members["kv"] = {"namespace": ordered.kv.namespace, "bytes_max": ordered.kv.bytes_max}
        return {name: member for name, member in members.items() if member}

    def ordered(self) -> "Grants":
        """Return the same rights with every list sorted and without repetitions."""
        return Grants(
            kv=self.kv,
            http=tuple(sorted({_http_ordered(each) for each in self.http}, key=repr)),
            llm=tuple(sorted({_llm_ordered(each) for each in self.llm}, key=repr)),
            agents=tuple(sorted(set(self.agents))),
            files=tuple(sorted(set(self.files))),
        )

    def interfaces(self) -> frozenset[str]:
        """Host interfaces that these grants open: a subset of ``kv``, ``http``, ``llm``, ``agents``, ``files``."""
        return frozenset(self.to_json())

    def covers(self, other: "Grants") -> bool:
        """Whether everything that ``other`` permits is permitted by these grants too."""
        return not self.excess(other)

    def excess(self, other: "Grants") -> tuple[Excess, ...]:
        """Return every place of ``other`` that permits more than these grants do, as JSON pointers into ``other``."""
        found: list[Excess] = []
        if other.kv is not None:
            found += [_ungranted("/kv")] if self.kv is None else self.kv.excess(other.kv)
        for index, http in enumerate(other.http):
            found += _least_excess(f"/http/{index}", http, self.http, HttpGrant.excess)
        for index, llm in enumerate(other.llm):
            found += _least_excess(f"/llm/{index}", llm, self.llm, LlmGrant.excess)
        for index, pattern in enumerate(other.agents):
            if not any(ours.covers(pattern) for ours in self.agents):
                found.append(_ungranted(f"/agents/{index}"))
        for index, file in enumerate(other.files):
            found += _least_excess(f"/files/{index}", file, self.files, FileGrant.excess)
        return tuple(found)

    def narrowed_by(self, other: "Grants") -> "Grants":
        """Return what is permitted by these grants and by ``other``: both cover the result."""
        kv = None
        if self.kv and other.kv and (namespace := _meet_name(self.kv.namespace, other.kv.namespace)):
            kv = KvGrant(namespace=namespace, bytes_max=min(self.kv.bytes_max, other.kv.bytes_max))
        return Grants(
            kv=kv,
            http=_present(mine.narrowed_by(theirs) for mine in self.http for theirs in other.http),
            llm=_present(mine.narrowed_by(theirs) for mine in self.llm for theirs in other.llm),
            agents=_meet(self.agents, other.agents, TemplatePattern.covers),
            files=_present(mine.narrowed_by(theirs) for mine in self.files for theirs in other.files),
        ).ordered()

    def permits_agent(self, template: TemplateName) -> bool:
        """Whether an agent with these grants may invoke ``template`` (whose ``callers`` must agree)."""
        return any(pattern.matches(template) for pattern in self.agents)


NO_GRANTS = Grants()


def path_is_under(prefix: str, path: str) -> bool:
    """Whether ``prefix`` covers ``path``: whole segments count, ``/works`` does not cover ``/workshop``."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _covers_name(ours: str, theirs: str) -> bool:
    return ours in {ANY, theirs}


def _meet_name(left: str, right: str) -> str | None:
    if left in {ANY, right}:
        return right
    return left if right == ANY else None


def _meet(left: Iterable[T], right: Iterable[T], covers: Callable[[T, T], bool]) -> tuple[T, ...]:
    """Return the narrower of every two that overlap, for things of which any two are nested or disjoint."""
    narrower = (b if covers(a, b) else a for a in left for b in right if covers(a, b) or covers(b, a))
    return tuple(dict.fromkeys(narrower))


def _meet_injection(left: HttpInjection | None, right: HttpInjection | None) -> HttpInjection | None:
    if left is None or right is None:
        return None
    header, secret = _meet_name(left.header, right.header), _meet_name(left.secret, right.secret)
    return None if header is None or secret is None else HttpInjection(header=header, secret=secret)


def _present(values: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(value for value in values if value is not None)


def _ungranted(pointer: str) -> Excess:
    return Excess(pointer=pointer, message="expected a grant that is covered, got one that is not")


def _name_excess(pointer: str, ours: str, theirs: str) -> Iterable[Excess]:
    if not _covers_name(ours, theirs):
        yield Excess(pointer=pointer, message=f"expected {ours}, got {theirs}")


def _amount_excess(pointer: str, ours: int, theirs: int) -> Iterable[Excess]:
    if theirs > ours:
        yield Excess(pointer=pointer, message=f"expected at most {ours}, got {theirs}")


def _member_excess(
    pointer: str, ours: Iterable[str], theirs: str, covers: Callable[[str, str], bool]
) -> Iterable[Excess]:
    if not any(covers(each, theirs) for each in ours):
        yield Excess(pointer=pointer, message=f"expected one of {', '.join(sorted(ours))}, got {theirs}")


def _least_excess(
    pointer: str, theirs: T, ours: Iterable[T], excess: Callable[[T, T, str], Iterable[Excess]]
) -> list[Excess]:
    """Compare with each of ours and report against the nearest: none when one of them covers ``theirs`` alone."""
    return min((list(excess(each, theirs, pointer)) for each in ours), key=len, default=[_ungranted(pointer)])


def _http_from_json(value: Mapping[str, Any]) -> HttpGrant:
    inject = value.get("inject")
    return HttpGrant(
        binding=value["binding"],
        origin=value["origin"],
        methods=tuple(value["methods"]),
        path_prefixes=tuple(value["path_prefixes"]),
        headers=tuple(value.get("headers", ())),
        inject=None if inject is None else HttpInjection(**inject),
    )


def _http_to_json(grant: HttpGrant) -> JsonObject:
    members: JsonObject = {
        "binding": grant.binding,
        "origin": grant.origin,
        "methods": list(grant.methods),
        "path_prefixes": list(grant.path_prefixes),
    }
    if grant.headers:
        members["headers"] = list(grant.headers)
    if grant.inject is not None:
        members["inject"] = {"header": grant.inject.header, "secret": grant.inject.secret}
    return members


def _http_ordered(grant: HttpGrant) -> HttpGrant:
    return replace(
        grant,
        methods=tuple(sorted(set(grant.methods))),
        path_prefixes=tuple(sorted(set(grant.path_prefixes))),
        headers=tuple(sorted(set(grant.headers))),
    )


def _llm_ordered(grant: LlmGrant) -> LlmGrant:
    return replace(grant, models=tuple(sorted(set(grant.models))))
