import base64
import gzip
import html
import json
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.scrub import REPLACEMENT, STEP_BYTES, Scrubber

SECRET = 'sk-live/51H"x&<y>\\+=Z9~'
PLAIN = "canary-0123456789abcdef"

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "reversed": lambda value: value[::-1],
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64, one before": lambda value: base64.b64encode(b"x" + value.encode() + b"y").decode(),
    "base64, two before": lambda value: base64.b64encode(b"a:" + value.encode() + b"yz").decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(b"??>" + value.encode()).decode(),
    "base64url without padding": lambda value: base64.urlsafe_b64encode(b"?" + value.encode()).decode().rstrip("="),
    "base64 in JSON": lambda value: json.dumps(base64.b64encode(value.encode()).decode()).replace("/", "\\/"),
    "base64 in a URL": lambda value: urllib.parse.quote(base64.b64encode(value.encode()).decode(), safe=""),
    "base32": lambda value: base64.b32encode(b"abc" + value.encode()).decode(),
    "base32 in lower case": lambda value: base64.b32encode(value.encode()).decode().lower(),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "hex with colons": lambda value: value.encode().hex(":"),
    "percent, where needed": lambda value: urllib.parse.quote(value, safe=""),
    "percent, plus for space": urllib.parse.quote_plus,
    "percent, twice": lambda value: urllib.parse.quote(urllib.parse.quote(value, safe=""), safe=""),
    "percent, all": lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
    "JSON": lambda value: json.dumps(value)[1:-1],
    "JSON in JSON": lambda value: json.dumps(json.dumps(value)),
    "JSON, all": lambda value: "".join(f"\\u{ord(each):04X}" for each in value),
    "JSON with escaped slashes": lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
    "a Python or JavaScript literal": lambda value: "".join(f"\\x{ord(each):02x}" for each in value),
    "HTML": html.escape,
    "HTML, twice": lambda value: html.escape(html.escape(value)),
    "HTML, decimal": lambda value: "".join(f"&#{ord(each)};" for each in value),
    "HTML, hex": lambda value: "".join(f"&#x{ord(each):04X};" for each in value),
    "a mixture": lambda value: "".join(
        (each, f"%{ord(each):02X}", f"&#{ord(each)};", f"\\u{ord(each):04x}")[index % 4]
        for index, each in enumerate(value)
    ),
}
secrets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=64)


@pytest.mark.parametrize("value", [SECRET, PLAIN, "two words and more"])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_replaced_in_every_encoding(form: str, value: str) -> None:
    encoded = FORMS[form](value)
    scrubbed = Scrubber([value]).scrub(f'{{"before": "{encoded}", "after": 1}}'.encode())
    assert REPLACEMENT in scrubbed
    assert scrubbed.startswith(b'{"before": "')
    assert scrubbed.endswith(b'", "after": 1}')
    assert len(scrubbed) <= len(b'{"before": "", "after": 1}') + len(REPLACEMENT) + 16


@given(secrets, st.sampled_from(sorted(FORMS)), st.binary(max_size=50), st.binary(max_size=50))
def test_no_secret_survives_in_any_encoding(value: str, form: str, before: bytes, after: bytes) -> None:
    encoded = FORMS[form](value).encode()
    scrubbed = Scrubber([value]).scrub(before + b" " + encoded + b" " + after)
    assert encoded not in scrubbed
    assert REPLACEMENT in scrubbed


@given(secrets, st.integers(0, 2), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_found_wherever_it_stands_in_a_longer_text(value: str, pad: int, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert REPLACEMENT in Scrubber([value]).scrub(encode(b"p" * pad + before + value.encode() + after))


@given(st.binary(max_size=300))
def test_what_holds_no_secret_stays_as_it_is(data: bytes) -> None:
    assert Scrubber([PLAIN]).scrub(data) == data
    assert Scrubber([]).scrub(data) == data


@pytest.mark.parametrize("offset", [*range(-30, 3), 0])
def test_a_secret_across_two_steps_is_found(offset: int) -> None:
    data = b"." * (STEP_BYTES + offset) + PLAIN.encode() + b"." * STEP_BYTES
    scrubber = Scrubber([PLAIN])
    assert scrubber.scrub(data) == b"." * (STEP_BYTES + offset) + REPLACEMENT + b"." * STEP_BYTES
    assert len(list(scrubber.steps(data))) == -(-len(data) // STEP_BYTES)


def test_every_value_of_several_is_replaced_where_they_overlap() -> None:
    assert Scrubber(["abcdefgh", "efghijkl"]).scrub(b"-abcdefghijkl-abcdefgh-") == b"-[secret]-[secret]-"


def test_every_occurrence_is_replaced() -> None:
    assert Scrubber([PLAIN]).scrub(PLAIN.encode() * 3) == REPLACEMENT * 3


def test_the_text_of_a_header_is_scrubbed_and_otherwise_kept() -> None:
    assert Scrubber([PLAIN]).scrub_text(f"é Bearer {PLAIN}") == "é Bearer [secret]"


def test_what_is_compressed_must_be_decompressed_first() -> None:
    """The egress client does so before anything is scrubbed; this is why."""
    compressed = gzip.compress(PLAIN.encode() * 4)
    assert Scrubber([PLAIN]).scrub(compressed) == compressed


@pytest.mark.parametrize(
    "unit", [b"\\", b"%25", b"%", b"&amp;", b"&#0", b"s", b"canary-0123456789abcde", b"63", b"Y2Fu"]
)
def test_no_body_takes_long_to_scrub(unit: bytes) -> None:
    """Deterministic in place of timed: a step looks at one window, whatever stands in it."""
    scrubber = Scrubber([PLAIN])
    data = unit * (STEP_BYTES * 4 // len(unit))
    assert len(list(scrubber.steps(data))) == -(-len(data) // STEP_BYTES)
