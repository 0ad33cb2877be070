"""The bytes of a receipt: the hand-written form is RFC 8785, reading is strict, commitments bind."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.canonical import JsonObject, canonical_bytes
from templates.receipt import (
    SALT_BYTES,
    ReceiptInvalidError,
    ReceiptMismatchError,
    begin_statement,
    commitment,
    end_statement,
    new_salt,
    read_receipt,
    read_receipt_key,
    require_committed,
    signed_bytes,
    stencil,
)

USAGE = dict.fromkeys(
    sorted(
        (
            "fuel",
            "wall_us",
            "guest_us",
            "host_calls",
            "wasi_calls",
            "input_bytes",
            "output_bytes",
            "log_bytes",
            "sent_bytes",
            "received_bytes",
            "tokens",
            "child_invocations",
        )
    ),
    7,
)
SALT = bytes(range(SALT_BYTES))
FACTS: dict[str, Any] = {
    "invocation": "0a" * 16,
    "parent": "0b" * 16,
    "node": "spiffe://factory.test/node/n1",
    "agent": "doc-1",
    "generation": 3,
    "caller": "spiffe://factory.test/tenant/acme/service/web",
    "template": "docs/echo@1.0.0",
    "template_sha256": "1" * 64,
    "code_sha256": "2" * 64,
    "image_sha256": "3" * 64,
    "config_sha256": "4" * 64,
    "started_us": 1_795_000_000_123_456,
    "outcome": "OK",
    "input_hmac_sha256": commitment(SALT, b"in"),
    "output_hmac_sha256": commitment(SALT, b"out"),
    "usage": USAGE,
}


def statement_bytes(**facts: Any) -> bytes:
    """Return the statement of ``facts``, as a node makes it."""
    end = {name: facts.pop(name) for name in ("outcome", "output_hmac_sha256", "usage")}
    own = {name: facts.pop(name) for name in ("invocation", "parent", "started_us", "input_hmac_sha256")}
    return end_statement(begin_statement(stencil(**facts), **own), **end)


hexadecimal = st.text("0123456789abcdef", min_size=1, max_size=64)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
amounts = st.integers(0, 2**53 - 1)


@given(
    st.fixed_dictionaries(
        {
            **{name: texts for name, value in FACTS.items() if isinstance(value, str)},
            "invocation": hexadecimal,
            "parent": st.just("") | hexadecimal,
            "input_hmac_sha256": hexadecimal,
            "outcome": st.sampled_from(["OK", "FUEL", "HOST_CALLS"]),
            "output_hmac_sha256": st.sampled_from(["", "5" * 64]),
            "generation": amounts,
            "started_us": st.integers(0, 4_000_000_000_000_000),
            "usage": st.fixed_dictionaries(dict.fromkeys(USAGE, amounts)).map(
                lambda usage: dict(sorted(usage.items()))
            ),
        }
    )
)
def test_the_statement_is_the_canonical_form_of_what_it_says(facts: dict[str, Any]) -> None:
    made = statement_bytes(**facts)
    assert made == canonical_bytes(json.loads(made))


def test_receipts_from_before_an_amount_existed_are_read_as_those_that_have_it() -> None:
    later = {**USAGE, "cost_microusd": 12, "file_read_bytes": 3, "file_written_bytes": 0}
    for usage in (USAGE, dict(sorted(later.items()))):
        assert read_receipt(statement_bytes(**{**FACTS, "usage": usage})).usage == usage


def test_a_statement_is_read_as_it_was_meant() -> None:
    receipt = read_receipt(statement_bytes(**FACTS))
    for name in FACTS.keys() - {"started_us"}:
        assert getattr(receipt, name) == FACTS[name]
    assert receipt.started.timestamp() == pytest.approx(FACTS["started_us"] / 1e6)


@pytest.mark.parametrize("name", ["parent", "agent", "image_sha256", "output_hmac_sha256"])
def test_what_is_absent_is_left_out(name: str) -> None:
    data = statement_bytes(**{**FACTS, name: ""})
    assert name not in json.loads(data)
    assert getattr(read_receipt(data), name) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("usage"),
        lambda value: value.update(schema=2),
        lambda value: value.update(more=1),
        lambda value: value.update(started="2026-11-31T00:00:00.000000Z"),
        lambda value: value.update(outcome="ok\n"),
        lambda value: value["usage"].update(fuel=-1),
        lambda value: value["usage"].update(fuel=1.5),
        lambda value: value.update(template_sha256="g" * 64),
    ],
)
def test_anything_else_is_refused(change: Any) -> None:
    value = json.loads(statement_bytes(**FACTS))
    change(value)
    with pytest.raises(ReceiptInvalidError):
        read_receipt(canonical_bytes(value))


def test_other_spellings_of_the_same_are_refused() -> None:
    data = statement_bytes(**FACTS)
    for spelled in (data + b"\n", json.dumps(json.loads(data)).encode(), data.replace(b'"schema":1', b'"schema":1.0')):
        with pytest.raises(ReceiptInvalidError):
            read_receipt(spelled)


@pytest.mark.parametrize("since", ["2026-13-01T00:00:00Z", "yesterday"])
def test_a_word_for_a_key_has_a_real_time(since: str) -> None:
    word: JsonObject = {"schema": 1, "node": "n", "certificate_sha256": "0" * 64, "ed25519": "0" * 64, "since": since}
    with pytest.raises(ReceiptInvalidError):
        read_receipt_key(canonical_bytes(word))


def test_input_and_output_are_bound_and_neither_stands_for_the_other() -> None:
    receipt = read_receipt(statement_bytes(**FACTS))
    require_committed(receipt, salt=SALT, input_=b"in", output=b"out")
    require_committed(receipt, salt=SALT, input_=None, output=None)
    for input_, output in ((b"inn", None), (b"out", None), (None, b"in"), (None, b"")):
        with pytest.raises(ReceiptMismatchError):
            require_committed(receipt, salt=SALT, input_=input_, output=output)
    with pytest.raises(ReceiptMismatchError):
        require_committed(receipt, salt=new_salt(), input_=b"in", output=None)


def test_a_receipt_without_output_matches_no_output() -> None:
    receipt = read_receipt(statement_bytes(**{**FACTS, "output_hmac_sha256": "", "outcome": "FUEL"}))
    with pytest.raises(ReceiptMismatchError, match="FUEL"):
        require_committed(receipt, salt=SALT, input_=None, output=b"")


@pytest.mark.parametrize("salt", [b"", SALT[:-1], SALT + b"\0"])
def test_a_salt_of_another_length_is_refused(salt: bytes) -> None:
    with pytest.raises(ReceiptInvalidError):
        require_committed(read_receipt(statement_bytes(**FACTS)), salt=salt, input_=b"in", output=None)


def test_the_signed_bytes_are_those_of_the_dsse_specification() -> None:
    # The example in the protocol document of DSSE 1.0.
    assert signed_bytes("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
