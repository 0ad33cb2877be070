"""The template document as its author wrote it: read, typed, and checked as far as it goes without other documents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from templates.canonical import JsonObject, JsonValue
from templates.fit import SCHEMA_FIELDS, fit_problems
from templates.grants import Grants
from templates.names import IMAGES_DOMAIN, TemplateName, TemplatePattern, TemplateRef, Version
from templates.problems import InvalidTemplateError, Position, Problem, located
from templates.reasons import Reason
from templates.shape import TEMPLATE_SHAPE
from templates.strict_json import scan, shown

_PORT_MAX = 65_535
_DEFAULT_PORTS = {"https": "443", "http": "80"}
FRAMING_HEADERS = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect",
    "proxy-authorization", "proxy-authenticate", "proxy-connection", "http2-settings", "accept-encoding", "via",
})  # fmt: skip
"""Headers that belong to the connection and whoever holds it: neither an agent nor an injection sets them."""


class LeaseExpiry(StrEnum):
    """What a node does with agents of a template once its lease has expired; the charter's staleness cap bounds all."""

    CONTINUE = "continue"
    NO_NEW_AGENTS = "no_new_agents"
    DRAIN = "drain"
    STOP = "stop"


class Abi(StrEnum):
    """How the host and a module talk; see design section 8."""

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
    """``output`` means something only if ``has_output``: null is a possible output."""

    input: JsonValue
    output: JsonValue = None
    has_output: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Example":
        return cls(input=value["input"], output=value.get("output"), has_output="output" in value)

    def to_json(self) -> JsonObject:
        return {"input": self.input, "output": self.output} if self.has_output else {"input": self.input}


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

    def problem(self, code: Reason, message: str, pointer: str) -> Problem:
        """Return a problem at the place in the text that ``pointer``, or its nearest present ancestor, has."""
        return located(Problem(code=code, message=message, pointer=pointer), self.positions)


def read_template(data: bytes) -> Template:
    """Read a template document and check everything about it that needs neither its parent nor its code.

    Raises:
        InvalidTemplateError: with every problem of the document: of the text, of the shape, and of the meaning of
            those members whose shape is right.
    """
    read, problems = scan(data)
    if read is None:
        raise InvalidTemplateError(problems)
    unreadable = {each.pointer for each in problems}
    shape = [each for each in TEMPLATE_SHAPE.problems(read.value) if each.pointer not in unreadable]
    members = read.value if isinstance(read.value, dict) else {}
    broken = {each.pointer.split("/")[1] for each in (*problems, *shape) if each.pointer}
    sound = {name: member for name, member in members.items() if name not in broken}
    complete = "parent" not in members and not broken & {"default_config", *SCHEMA_FIELDS}
    found = [*shape, *_meaning_problems(sound), *fit_problems(sound, complete=complete)]
    if problems or found:
        raise InvalidTemplateError([*problems, *(located(each, read.positions) for each in found)])
    return _from_json(members, read.positions)


def _meaning_problems(members: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a schema cannot say about members whose shape is right."""
    name = f"{members.get('domain')}/{members.get('name')}"
    if members.get("parent") == name:
        message = f"expected another template as parent, got {name} itself"
        yield Problem(code=Reason.INHERITANCE_CYCLE, message=message, pointer="/parent")
    code, is_image = members.get("code"), members.get("domain") == IMAGES_DOMAIN
    if "parent" in members and members["parent"].startswith(f"{IMAGES_DOMAIN}/") != is_image:
        message = f"expected a parent in the domain {IMAGES_DOMAIN} for images, and for them alone"
        yield Problem(code=Reason.INVALID_VALUE, message=message, pointer="/parent")
    if is_image and code is not None and code.get("abi") != Abi.COMPONENT:
        message = "expected a component module, because this is an image, got other code"
        yield Problem(code=Reason.INVALID_VALUE, message=message, pointer="/code")
    grants = members.get("grants", {})
    for kind, key in (("http", "binding"), ("llm", "binding"), ("files", "mount")):
        seen: set[str] = set()
        for index, grant in enumerate(grants.get(kind, ())):
            if grant[key] in seen:
                message = f"expected each {key} once, got {shown(grant[key])} again"
                yield Problem(code=Reason.INVALID_VALUE, message=message, pointer=f"/grants/{kind}/{index}/{key}")
            seen.add(grant[key])
    for index, http in enumerate(grants.get("http", ())):
        yield from _http_problems(http, f"/grants/http/{index}")


def _http_problems(grant: Mapping[str, Any], pointer: str) -> Iterator[Problem]:
    scheme, _, authority = grant["origin"].partition("://")
    port = authority.partition(":")[2]
    if port == _DEFAULT_PORTS[scheme] or (port and int(port) > _PORT_MAX):
        message = f"expected a port up to {_PORT_MAX}, and none for {_DEFAULT_PORTS[scheme]}, got {port}"
        yield Problem(code=Reason.INVALID_VALUE, message=message, pointer=f"{pointer}/origin")
    injected = grant.get("inject", {}).get("header", "").lower()
    for index, header in enumerate(grant.get("headers", ())):
        if header in FRAMING_HEADERS or header == injected:
            message = f"expected a header that an agent may set, got {header}, which it may not"
            yield Problem(code=Reason.INVALID_VALUE, message=message, pointer=f"{pointer}/headers/{index}")
    if injected in FRAMING_HEADERS:
        message = f"expected a header that carries a credential, got {injected}, which belongs to the connection"
        yield Problem(code=Reason.INVALID_VALUE, message=message, pointer=f"{pointer}/inject/header")


def _from_json(members: Mapping[str, Any], positions: Mapping[str, Position]) -> Template:
    """Build the value; whatever could fail here has been refused before."""
    parent, code, examples = members.get("parent"), members.get("code"), members.get("examples")
    expiry = members.get("on_lease_expiry")
    return Template(
        ref=TemplateRef(members["domain"], members["name"], Version.parse(members["version"])),
        role=members.get("role"),
        description=members.get("description"),
        labels=members.get("labels", {}),
        parent=None if parent is None else TemplateName.parse(parent),
        capabilities=tuple(members.get("capabilities", ())),
        tools=tuple(members.get("tools", ())),
        default_config=members.get("default_config", {}),
        config_schema=members.get("config_schema"),
        input_schema=members.get("input_schema"),
        output_schema=members.get("output_schema"),
        examples=None if examples is None else tuple(Example.from_json(each) for each in examples),
        code=None if code is None else _code_from_json(code),
        grants=Grants.from_json(members.get("grants", {})),
        limits=members.get("limits", {}),
        callers=tuple(TemplatePattern.parse(each) for each in members.get("callers", ())),
        on_lease_expiry=None if expiry is None else LeaseExpiry(expiry),
        positions=positions,
    )


def _code_from_json(code: Mapping[str, str]) -> Code:
    if "module" in code:
        return ModuleCode(module=code["module"], abi=Abi(code["abi"]))
    return SourceCode(source=code["source"], image=code["image"])
