"""Replaces secrets in what comes back, in the encodings in which servers echo what they were sent.

This is defence in depth and not a boundary: a server that holds a secret can always hand it on in a form that nobody
expects. The boundary is the charter, which says which server may have it.

=================================  ====================================================================================
plain, percent, JSON, HTML         one pattern per secret, in which every character may stand in any of these forms, so
                                   that mixtures are found too (``%`` twice encoded included)
base64 (standard and URL-safe)     three alignments, without the characters at either end that depend on neighbours
base32, hexadecimal                all alignments of the first; either case, and pairs with one character between them
reversed                           plain only
=================================  ====================================================================================
"""

import base64
import html.entities
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache
from typing import Final

REPLACEMENT: Final = b"[secret]"
STEP_BYTES: Final = 32_768
_FORM_BYTES_MAX: Final = 32
"""Of one character, in the longest of its forms."""

_ENTITIES: Final = {codepoint: name for codepoint, name in html.entities.codepoint2name.items() if codepoint < 0x80}
_JSON_ESCAPED: Final = frozenset('"\\/')


class Scrubber:
    """Scrubs the values of one set of secrets."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {value for value in values if value}
        self._patterns = tuple(pattern for value in sorted(found) for pattern in _patterns(value))
        self._reach = _FORM_BYTES_MAX * max(map(len, found), default=0)

    def scrub(self, data: bytes) -> bytes:
        """Return ``data`` with `REPLACEMENT` wherever a value stands in one of the encodings."""
        steps = self.steps(data)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytes(end.value)

    def steps(self, data: bytes) -> Generator[None, None, bytes]:
        """Do the same as `scrub` in steps of about a millisecond, and return the result at the end."""
        spans: list[tuple[int, int]] = []
        for start in range(0, len(data), STEP_BYTES):
            for pattern in self._patterns:
                spans += _spans(pattern, data, start, min(start + STEP_BYTES, len(data)), self._reach)
            yield
        return _without(data, spans)

    def scrub_text(self, text: str) -> str:
        """Like `scrub`, for text such as the value of a header."""
        return self.scrub(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _spans(pattern: re.Pattern[bytes], data: bytes, start: int, stop: int, reach: int) -> Iterator[tuple[int, int]]:
    """Yield the matches that begin between ``start`` and ``stop``; they end at most ``reach`` behind."""
    while (found := pattern.search(data, start, stop + reach)) and found.start() < stop:
        yield found.span()
        start = found.end()


def _without(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    kept, position = [], 0
    for start, end in sorted(spans):
        if start >= position:
            kept += [data[position:start], REPLACEMENT]
        position = max(position, end)
    return b"".join([*kept, data[position:]])


@lru_cache(maxsize=256)
def _patterns(value: str) -> tuple[re.Pattern[bytes], ...]:
    raw = value.encode()
    base64_forms = {*_aligned(raw, base64.b64encode, 3, 4), *_aligned(raw, base64.urlsafe_b64encode, 3, 4)}
    base32_forms = {each for upper in _aligned(raw, base64.b32encode, 5, 8) for each in (upper, upper.lower())}
    return (
        re.compile(b"".join(_any_form(character) for character in value)),
        re.compile(b"|".join(_escapable(each) for each in sorted(base64_forms))),
        re.compile(b"|".join(re.escape(each) for each in sorted(base32_forms))),
        re.compile(rb"[^0-9A-Za-z]?".join(b"%02x" % byte for byte in raw), re.IGNORECASE),
        re.compile(re.escape(raw[::-1])),
    )


def _escapable(encoded: bytes) -> bytes:
    """Return a pattern of base64, of which JSON and URLs escape two characters."""
    return b"".join(
        _any_form(character) if character in "+/" else re.escape(character).encode() for character in encoded.decode()
    )


def _any_form(character: str) -> bytes:
    """Return a pattern of one character: as it is, percent-encoded, and escaped for JSON or HTML.

    Repetitions are bounded, so that no body costs more than a constant for each of its bytes; each form begins with a
    literal, so that the engine skips what cannot begin one.
    """
    code = ord(character)
    forms = [
        re.escape(character),
        rf"%(?:25){{0,3}}{_hex(code, 2)}",
        rf"\\\\{{0,3}}(?:u00|x){_hex(code, 2)}",
        rf"&(?:amp;){{0,2}}\#(?:0{{0,6}}{code}|[xX]0{{0,6}}{_hex(code, 1)});?",
    ]
    if character in _JSON_ESCAPED:
        forms.append(rf"\\\\{{0,3}}{re.escape(character)}")
    if code in _ENTITIES:
        forms.append(rf"&(?:amp;){{0,2}}{_ENTITIES[code]};")
    if character == " ":
        forms.append(r"\+")
    return ("(?:" + "|".join(forms) + ")").encode()


def _hex(code: int, digits: int) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:0{digits}x}")


def _aligned(raw: bytes, encode: Callable[[bytes], bytes], group: int, width: int) -> Iterator[bytes]:
    """Yield what ``raw`` looks like inside of a longer encoded text, for each place in a group of bytes.

    A group of ``group`` bytes becomes ``width`` characters. Characters that also hold bits of what stands before or
    behind are cut off.
    """
    bits = group * 8 // width
    for before in range(group):
        first = -(-before * 8 // bits)
        last = (before + len(raw)) * 8 // bits
        yield encode(bytes(before) + raw + bytes(group))[first:last]
