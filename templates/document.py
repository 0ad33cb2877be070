"""The template document as its author wrote it: read, checked in every respect that needs no other document, and typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from templates.canonical import JsonObject, JsonValue
from templates.grants import Grants
from templates.names import TemplateName, TemplatePattern, TemplateRef
from templates.problems import Position, Problem


class LeaseExpiry(StrEnum):
    """What a node does with agents of a template once its lease has expired; the charter's staleness cap bounds all."""

    CONTINUE = "continue"
    NO_NEW_AGENTS = "no_new_agents"
    DRAIN = "drain"
    STOP = "stop"


class Abi(StrEnum):
    COMPONENT = "component"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCode:
    """A file beside the document, run by an image: ``image`` is a name in the domain ``images``."""

    source: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCode:
    """A ``.wasm`` file beside the document."""

    module: str
    abi: Abi


Code: TypeAlias = SourceCode | ModuleCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    input: JsonValue
    output: JsonValue = None
    has_output: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One document of design section 4. ``None`` means absent: the parent's, else the default, applies."""

    ref: TemplateRef
    role: str | None = None
    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    parent: TemplateName | None = None
    capabilities: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    default_config: JsonObject = field(default_factory=dict)
    config_schema: JsonObject | None = None
    input_schema: JsonObject | None = None
    output_schema: JsonObject | None = None
    examples: tuple[Example, ...] | None = None
    code: Code | None = None
    grants: Grants = field(default_factory=Grants)
    limits: Mapping[str, int] = field(default_factory=dict)
    callers: tuple[TemplatePattern, ...] = ()
    on_lease_expiry: LeaseExpiry | None = None
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False, repr=False)

    def problem(self, code: str, message: str, pointer: str) -> Problem:
        """Return a problem at the place in the text that ``pointer``, or its nearest present ancestor, has."""
        raise NotImplementedError


def read_template(data: bytes) -> Template:
    """Read a template document and check everything about it that needs neither its parent nor its code.

    Raises:
        InvalidTemplateError: with every problem of the document.
    """
    raise NotImplementedError
