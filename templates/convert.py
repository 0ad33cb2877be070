"""Documents of the earlier system, made into templates; whatever is dropped or assumed is said.

They carried their own ``_signature``, ``_signed_at`` and ``_version``, knew neither grants nor limits, and were written
by many hands: names with capitals and accents, versions of one number, lists where others had objects. The conversion
takes what it understands and never guesses a right: the result has no grants and no code until its author adds them.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from templates.canonical import JsonObject, JsonValue
from templates.document import read_template
from templates.names import VERSION_PATTERN, is_word
from templates.problems import InvalidTemplateError, Problem, join
from templates.reasons import Reason
from templates.strict_json import scan

DEFAULT_DOMAIN = "imported"
_NAME_FIELDS = ("name", "agent_name", "template_name", "id", "type")
_ALIASES = {
    "config": "default_config",
    "configuration": "default_config",
    "defaults": "default_config",
    "extends": "parent",
    "inherits": "parent",
    "base": "parent",
    "skills": "capabilities",
    "summary": "description",
}
_COPIED = ("config_schema", "input_schema", "output_schema", "examples", "labels")
_WORD_LENGTH_MAX, _LINE_LENGTH_MAX, _TEXT_LENGTH_MAX = 41, 200, 4096
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_CREDENTIAL = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)|secret|api_?key|access_?key|private_?key|credential|(?:^|_)token$)"
)
_VERSION_NUMBERS = re.compile(r"[vV]?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One decision of the conversion: the place in the old document, and a sentence."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """``template`` passes `read_template`; it has no code, grants or limits of its own until its author adds them."""

    template: JsonObject
    dropped: tuple[Note, ...]
    assumed: tuple[Note, ...]

    def to_bytes(self) -> bytes:
        """Return the template as an indented document for its author to edit."""
        return (json.dumps(self.template, ensure_ascii=False, indent=2) + "\n").encode()


def convert(data: bytes, *, domain: str | None = None) -> Conversion:
    """Convert one document of the earlier system.

    Args:
        data: its bytes.
        domain: the domain to use when the document names none.

    Raises:
        InvalidTemplateError: not strict JSON, not an object, or nothing in it from which a name could be made.
    """
    read, problems = scan(data)
    if problems or read is None:
        raise InvalidTemplateError(problems)
    conversion = _Converter(read.value, domain)
    return conversion.run()


@dataclass(slots=True)
class _Converter:
    """Takes fields out of the old document one by one; what is left at the end is dropped."""

    source: JsonValue
    domain: str | None
    template: JsonObject = field(default_factory=lambda: {"schema": 1})
    dropped: list[Note] = field(default_factory=list)
    assumed: list[Note] = field(default_factory=list)
    _left: JsonObject = field(default_factory=dict)

    def run(self) -> Conversion:
        self._left = self._unwrapped()
        self._identity()
        self._line("role", _LINE_LENGTH_MAX)
        self._line("description", _TEXT_LENGTH_MAX)
        self._words("capabilities")
        self._words("tools")
        self._configuration()
        for name in _COPIED:
            if name in self._left:
                self.template[name] = self._left.pop(name)
        for name in self._left:
            self._drop(name, _why_dropped(name))
        self._drop_refused()
        self._assume("/code", "no code: the template is abstract until a source or a module is added")
        self._assume("/grants", "no grants: the earlier system knew none, and rights are never guessed")
        self._assume("/limits", "the default limits, or the parent's")
        return Conversion(template=self.template, dropped=tuple(self.dropped), assumed=tuple(self.assumed))

    def _unwrapped(self) -> JsonObject:
        """Return the members, renamed to today's names; a document inside ``template`` counts as the document."""
        if not isinstance(self.source, dict):
            raise _refusal("expected an object, got other JSON", "")
        members = dict(self.source)
        inner = members.get("template")
        if isinstance(inner, dict) and not any(name in members for name in _NAME_FIELDS):
            del members["template"]
            self._assume("/template", "the document is what stands inside")
            members = {**inner, **members}
        for old, new in _ALIASES.items():
            if old in members and new not in members:
                members[new] = members.pop(old)
                self._assume(f"/{old}", f"it means {new}")
        return members

    def _identity(self) -> None:
        source = next((name for name in _NAME_FIELDS if isinstance(self._left.get(name), str)), None)
        name = "" if source is None else _word(str(self._left.pop(source)))
        if source is None or not is_word(name):
            raise _refusal(f"expected a name in one of {', '.join(_NAME_FIELDS)}, got none", "")
        if source != "name" or self._original("name") != name:
            self._assume(f"/{source}", f"the name {name}")
        domain = self._left.pop("domain", None)
        if not isinstance(domain, str) or not is_word(_word(domain)):
            self._assume("/domain", f"the domain {self.domain or DEFAULT_DOMAIN}")
            domain = self.domain or DEFAULT_DOMAIN
        elif _word(domain) != domain:
            self._assume("/domain", f"the domain {_word(domain)}")
        self.template |= {"domain": _word(domain), "name": name, "version": self._version()}
        self._parent(_word(domain))

    def _version(self) -> str:
        stated = next((name for name in ("version", "_version") if name in self._left), "version")
        value = self._left.pop(stated, None)
        text = "" if isinstance(value, (dict, list)) else str(value)
        if re.fullmatch(VERSION_PATTERN, text):
            version = text
        elif numbers := _VERSION_NUMBERS.match(text):
            version = ".".join(str(int(number or "0")) for number in numbers.groups())
        else:
            version = "1.0.0"
        if version != value or stated != "version":
            self._assume(f"/{stated}", f"the version {version}")
        return version

    def _parent(self, domain: str) -> None:
        parent = self._left.pop("parent", None)
        if not parent:
            return
        words = [_word(word) for word in str(parent).partition("@")[0].split("/")]
        words = [domain, *words] if len(words) == 1 else words
        if len(words) == 2 and all(is_word(word) for word in words):
            name = "/".join(words)
            self.template["parent"] = name
            if name != parent:
                self._assume("/parent", f"the parent {name}")
        else:
            self._drop("parent", "not the name of one template")

    def _line(self, name: str, length_max: int) -> None:
        value = self._left.pop(name, None)
        if not isinstance(value, str):
            if value is not None:
                self._drop(name, "not text")
            return
        keep = "\n\t" if name == "description" else ""
        clean = _INVISIBLE.sub(lambda found: "".join(c for c in found.group() if c in keep) or " ", value)
        self.template[name] = clean[:length_max]
        if clean[:length_max] != value:
            self._assume(f"/{name}", f"the text without invisible characters, cut after {length_max} characters")

    def _words(self, name: str) -> None:
        value = self._left.pop(name, None)
        if value is None:
            return
        words = [_INVISIBLE.sub(" ", word).strip()[:_LINE_LENGTH_MAX] for word in _texts(value)]
        unique = [word for word in dict.fromkeys(words) if word]
        self.template[name] = [*unique]
        if unique != value:
            self._assume(f"/{name}", f"the names {', '.join(unique) or '(none)'}; anything else about them is dropped")

    def _configuration(self) -> None:
        value = self._left.pop("default_config", None)
        if isinstance(value, dict):
            self.template["default_config"] = self._without_credentials(value, "/default_config")
        elif value is not None:
            self._drop("default_config", "not an object")

    def _without_credentials(self, config: JsonObject, pointer: str) -> JsonObject:
        kept: JsonObject = {}
        for name, value in config.items():
            place = join(pointer, name)
            if isinstance(value, str) and value and _CREDENTIAL.search(name):
                self.dropped.append(Note(pointer=place, message="looks like a credential: bind it in the charter"))
            else:
                kept[name] = self._without_credentials(value, place) if isinstance(value, dict) else value
        return kept

    def _drop_refused(self) -> None:
        """Read the result as any template is read and drop the optional fields that are refused."""
        for problem in _problems(self.template):
            name = problem.pointer.split("/")[1] if problem.pointer else ""
            if name in {"", "schema", "domain", "name", "version"}:
                raise InvalidTemplateError([problem])
            if self.template.pop(name, None) is not None:
                self._drop(name, f"refused here: {problem.message}")
        if remaining := _problems(self.template):
            raise InvalidTemplateError(remaining)

    def _original(self, name: str) -> JsonValue:
        return self.source.get(name) if isinstance(self.source, dict) else None

    def _assume(self, pointer: str, message: str) -> None:
        self.assumed.append(Note(pointer=pointer, message=message))

    def _drop(self, name: str, message: str) -> None:
        self.dropped.append(Note(pointer=join("", name), message=message))


def _why_dropped(name: str) -> str:
    if name in {"_signature", "_signed_at"}:
        return "a signature of the earlier system, which nobody here trusts: reviewers approve the template anew"
    if name in {"grants", "limits", "callers", "code"}:
        return "rights and code are stated by hand, after reading what the earlier document meant"
    return "no such field in templates"


def _problems(template: JsonObject) -> tuple[Problem, ...]:
    try:
        read_template(json.dumps(template).encode())
    except InvalidTemplateError as error:
        return error.problems
    return ()


def _texts(value: JsonValue) -> Iterator[str]:
    """Yield the names in a list of names, of objects with a name, in an object's keys or in text with commas."""
    match value:
        case str():
            yield from value.split(",")
        case dict():
            yield from (name for name, enabled in value.items() if enabled is not False)
        case list():
            for each in value:
                if isinstance(each, dict):
                    yield from (name for name in (each.get("name"), each.get("id")) if isinstance(name, str))
                elif isinstance(each, str):
                    yield each


def _word(text: str) -> str:
    """Make a word of the grammar from a name that people chose: ``Génie Logiciel`` → ``genie_logiciel``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()
    return re.sub(r"[^a-z0-9_-]+", "_", parts).strip("_-")[:_WORD_LENGTH_MAX]


def _refusal(message: str, pointer: str) -> InvalidTemplateError:
    return InvalidTemplateError([Problem(code=Reason.INVALID_VALUE, message=message, pointer=pointer)])
