"""Cedar text with places: the engine's messages name no line, so the text is cut into statements and tokens here.

Nothing is decided by this reading. Whether a text is valid, and what it means, the engine alone says; this finds the
place that it speaks of: in a syntax error the first token that no valid text continues with, found by asking the engine
about beginnings of the statement (its parser refuses a text at the first such token, and says "unexpected end of
input" of any beginning that could still become valid).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cedarpy

from templates.problems import Position

_TOKEN: Final = re.compile(
    r"(?P<space>\s+|//[^\n]*)"
    r'|"(?:[^"\\]|\\.)*"'
    r"|[A-Za-z_][A-Za-z0-9_]*|[0-9]+"
    r"|::|==|!=|<=|>=|&&|\|\||.",
    re.DOTALL,
)
_UNFINISHED: Final = "unexpected end of input"
_SYNTAX: Final = ("unexpected", "invalid token")
_QUOTED: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """``start`` and ``end`` are offsets into the file, in characters."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One policy of a file, up to its semicolon; ``text`` begins with its first annotation or its effect."""

    file: str
    source: str
    tokens: tuple[Token, ...]

    @property
    def text(self) -> str:
        return self.source[self.tokens[0].start : self.tokens[-1].end]

    @property
    def position(self) -> Position:
        return self.position_of(0)

    def position_of(self, index: int) -> Position:
        """Return the place of a token."""
        before = self.source[: self.tokens[index].start]
        return Position(line=before.count("\n") + 1, column=len(before) - (before.rfind("\n") + 1) + 1)


def statements_of(file: str, source: str) -> tuple[Statement, ...]:
    """Cut a file into its policies; what follows the last semicolon, if anything does, is one too."""
    return tuple(Statement(file=file, source=source, tokens=tokens) for tokens in _cut(source))


def _cut(source: str) -> Iterator[tuple[Token, ...]]:
    tokens: list[Token] = []
    for found in _TOKEN.finditer(source):
        if found["space"] is not None:
            continue
        tokens.append(Token(text=found[0], start=found.start(), end=found.end()))
        if found[0] == ";":
            yield tuple(tokens)
            tokens = []
    if tokens:
        yield tuple(tokens)


def parse_error(text: str) -> str:
    """Return what the engine has against the syntax of ``text``; empty when nothing."""
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        return str(error)
    return ""


def syntax_position(statement: Statement, message: str) -> Position:
    """Return the place that `parse_error` means by ``message`` about this statement."""
    if message == _UNFINISHED:
        return statement.position_of(len(statement.tokens) - 1)
    if not message.startswith(_SYNTAX):
        return quoted_position(statement, message)
    start, count = statement.tokens[0].start, len(statement.tokens)
    low, high = 0, count - 1  # the first token whose addition cannot become valid any more lies between
    while low < high:
        middle = (low + high) // 2
        answer = parse_error(statement.source[start : statement.tokens[middle].end])
        if answer in {"", _UNFINISHED}:
            low = middle + 1
        else:
            high = middle
    named = _QUOTED.findall(message)[:1]
    if low > 0 and named not in ([], [statement.tokens[low].text]) and named == [statement.tokens[low - 1].text]:
        low -= 1  # the parser had recovered, and still called the beginning unfinished
    return statement.position_of(low)


def quoted_position(statement: Statement, message: str) -> Position:
    """Return the place of the last name that ``message`` quotes and the statement holds; else the statement's."""
    texts = [token.text for token in statement.tokens]
    for quoted in reversed(_QUOTED.findall(message)):
        for part in reversed(re.findall(r'"[^"]*"|\w+', quoted)):
            if part in texts:
                return statement.position_of(texts.index(part))
    return statement.position
