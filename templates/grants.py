"""What a template is permitted to reach, as values: one grant covers another when it permits at least as much.

On the covering side ``*`` stands for any name: it is used by the ceilings of a charter; template documents cannot say it,
except in ``agents``.
"""

from dataclasses import dataclass
from typing import Self

from templates.canonical import JsonObject
from templates.names import TemplateName, TemplatePattern


@dataclass(frozen=True, slots=True, kw_only=True)
class KvGrant:
    namespace: str
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpInjection:
    """The broker sets ``header`` to the secret that the charter binds to this name; the guest never sees it."""

    header: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGrant:
    binding: str
    origin: str
    methods: tuple[str, ...]
    path_prefixes: tuple[str, ...]
    inject: HttpInjection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmGrant:
    binding: str
    models: tuple[str, ...]
    tokens_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGrant:
    mount: str
    export: str
    mode: str


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
    def from_json(cls, value: JsonObject) -> Self:
        """Build grants from the ``grants`` object of a document that has passed the schema."""
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        """Return the canonical object: only what is granted, lists in their sorted order."""
        raise NotImplementedError

    def interfaces(self) -> frozenset[str]:
        """Names of the host interfaces that these grants open: a subset of ``kv``, ``http``, ``llm``, ``agents``, ``files``."""
        raise NotImplementedError

    def covers(self, other: "Grants") -> bool:
        """Whether everything that ``other`` permits is permitted by these grants too."""
        return not self.excess(other)

    def excess(self, other: "Grants") -> tuple[Excess, ...]:
        """Return every place of ``other`` that permits more than these grants do."""
        raise NotImplementedError

    def narrowed_by(self, other: "Grants") -> "Grants":
        """Return grants that both cover: what is permitted by these and by ``other``."""
        raise NotImplementedError

    def permits_agent(self, template: TemplateName) -> bool:
        return any(pattern.matches(template) for pattern in self.agents)


NO_GRANTS = Grants()
