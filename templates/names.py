"""Names of templates, their versions, and the patterns that stand for several of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import total_ordering
from typing import Self

from templates.reasons import AgentFactoryError, Reason

WORD_PATTERN = r"[a-z][a-z0-9_-]{1,40}"
VERSION_PATTERN = (
    r"(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})"
    r"(?:-(?:0|[1-9][0-9]{0,8}|[0-9]{0,16}[a-zA-Z-][0-9a-zA-Z-]{0,16})"
    r"(?:\.(?:0|[1-9][0-9]{0,8}|[0-9]{0,16}[a-zA-Z-][0-9a-zA-Z-]{0,16})){0,3})?"
)
IMAGES_DOMAIN = "images"  # reserved: language runtimes, never instantiated as agents themselves
_WORD = re.compile(WORD_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)


class InvalidNameError(AgentFactoryError):
    """A text is not a template name, reference, version or pattern."""

    reason = Reason.INVALID_NAME

    def __init__(self, *, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got[:120]!r}")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """``MAJOR.MINOR.PATCH[-pre]`` of Semantic Versioning 2.0.0 without build metadata; ordered as in its section 11."""

    major: int
    minor: int
    patch: int
    prerelease: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise `InvalidNameError` for anything but a whole version."""
        if not _VERSION.fullmatch(text):
            raise InvalidNameError(expected="a version MAJOR.MINOR.PATCH[-pre]", got=text)
        numbers, _, prerelease = text.partition("-")
        major, minor, patch = (int(part) for part in numbers.split("."))
        return cls(major, minor, patch, prerelease)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.prerelease}" if self.prerelease else "")

    def __lt__(self, other: "Version") -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        identifiers = tuple(
            (False, int(part), "") if part.isdigit() else (True, 0, part) for part in self.prerelease.split(".") if part
        )
        return self.major, self.minor, self.patch, not self.prerelease, identifiers


@dataclass(frozen=True, slots=True, order=True)
class TemplateName:
    """``domain/name``: every version of one template."""

    domain: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise `InvalidNameError` for anything but ``domain/name``."""
        domain, slash, name = text.partition("/")
        if not (slash and _WORD.fullmatch(domain) and _WORD.fullmatch(name)):
            raise InvalidNameError(expected="a template name domain/name", got=text)
        return cls(domain, name)

    def __str__(self) -> str:
        return f"{self.domain}/{self.name}"

    def at(self, version: Version) -> "TemplateRef":
        return TemplateRef(self.domain, self.name, version)


@dataclass(frozen=True, slots=True, order=True)
class TemplateRef:
    """``domain/name@version``: one template document."""

    domain: str
    name: str
    version: Version

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise `InvalidNameError` for anything but ``domain/name@version``."""
        left, _, right = text.partition("@")
        try:
            named, version = TemplateName.parse(left), Version.parse(right)
        except InvalidNameError:
            raise InvalidNameError(expected="a template reference domain/name@version", got=text) from None
        return cls(named.domain, named.name, version)

    def __str__(self) -> str:
        return f"{self.domain}/{self.name}@{self.version}"

    @property
    def template_name(self) -> TemplateName:
        return TemplateName(self.domain, self.name)


@dataclass(frozen=True, slots=True, order=True)
class TemplatePattern:
    """``domain/name``, ``domain/*`` or ``*/*``: which templates may be called, or may call."""

    domain: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise `InvalidNameError` for anything else, ``*/name`` included."""
        domain, slash, name = text.partition("/")
        known = domain == "*" or _WORD.fullmatch(domain)
        if not (slash and known and (name == "*" or (domain != "*" and _WORD.fullmatch(name)))):
            raise InvalidNameError(expected="a pattern domain/name, domain/* or */*", got=text)
        return cls(domain, name)

    def __str__(self) -> str:
        return f"{self.domain}/{self.name}"

    def matches(self, template: TemplateName) -> bool:
        return self.domain in {"*", template.domain} and self.name in {"*", template.name}

    def covers(self, other: "TemplatePattern") -> bool:
        """Whether every template that ``other`` stands for is one that this pattern stands for."""
        return self.domain in {"*", other.domain} and self.name in {"*", other.name}


def is_word(text: str) -> bool:
    """Whether ``text`` follows the grammar of domains and template names."""
    return _WORD.fullmatch(text) is not None


def nearest(name: str, candidates: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Return the candidates that someone who typed ``name`` probably meant, best first; possibly none."""
    return tuple(get_close_matches(name[:120], sorted(set(candidates)), n=count, cutoff=0.6))
