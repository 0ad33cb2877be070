"""The receipt of an invocation: what a node attests, in which bytes, and how input and output are committed to.

The node makes these statements and whoever holds one reads them years later, elsewhere: both go by this file. The
statement is RFC 8785 JSON; what is signed is its DSSE pre-authentication encoding, so that no signature of one kind can
stand for another. Input and output are not in it, only HMAC-SHA-256 of each under a random salt that travels beside the
statement and is kept nowhere: whoever has salt and text can check, and whoever has the statement alone cannot guess.
"""

import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from templates.reasons import AgentFactoryError, Reason
from templates.signed_document import SignedDocument, read_time

RECEIPT_TYPE: Final = "application/vnd.agentfactory.receipt.v1+json"
KEY_TYPE: Final = "application/vnd.agentfactory.receipt-key.v1+json"
STATEMENT_BYTES_MAX: Final = 16_384
SALT_BYTES: Final = 32
OK: Final = "OK"

_STENCILS_MAX: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class ReceiptInvalidError(AgentFactoryError):
    """Bytes are not a receipt, or not the word of a node for its key."""

    reason = Reason.RECEIPT_INVALID


class ReceiptMismatchError(AgentFactoryError):
    """The receipt is genuine, and speaks of another input or output."""

    reason = Reason.RECEIPT_MISMATCH


_RECEIPT: Final = SignedDocument("receipt", bytes_max=STATEMENT_BYTES_MAX, error=ReceiptInvalidError)
_KEY: Final = SignedDocument("receipt_key", bytes_max=STATEMENT_BYTES_MAX, error=ReceiptInvalidError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A statement that was read. Absent texts are empty; ``usage`` has every amount by its name."""

    invocation: str
    parent: str
    node: str
    agent: str
    generation: int
    caller: str
    template: str
    template_sha256: str
    code_sha256: str
    image_sha256: str
    config_sha256: str
    started: datetime
    outcome: str
    input_hmac_sha256: str
    output_hmac_sha256: str
    usage: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """A node's word for its receipt key; ``node`` is the URI in its certificate."""

    node: str
    certificate_sha256: str
    ed25519: bytes
    since: datetime


@dataclass(frozen=True, slots=True)
class Stencil:
    """What statements about one template for one caller have in common, in three pieces of text."""

    head: str
    middle: str
    tail: str


@dataclass(slots=True)
class Draft:
    """What can be said of an invocation while it runs: the text before its end, and the text between end and usage."""

    before: str
    between: str


@lru_cache(maxsize=_STENCILS_MAX)
def stencil(
    *,
    node: str,
    agent: str,
    generation: int,
    caller: str,
    template: str,
    template_sha256: str,
    code_sha256: str,
    image_sha256: str,
    config_sha256: str,
) -> Stencil:
    """Return the stencil, remembered: RFC 8785 text, written by hand because each answer waits for it.

    Keys are in their canonical order as they stand here, and every value is a text or a whole number below 2^53, for
    which Python's encoder and RFC 8785 agree; a test compares the two.
    """
    head: dict[str, object] = {"agent": agent} if agent else {}
    head |= {"caller": caller, "code_sha256": code_sha256, "config_sha256": config_sha256, "generation": generation}
    if image_sha256:
        head["image_sha256"] = image_sha256
    tail = _encode({"template": template, "template_sha256": template_sha256})
    return Stencil(_encode(head)[:-1], _encode({"node": node})[1:-1], tail[1:-1])


def begin_statement(common: Stencil, *, invocation: str, parent: str, started_us: int, input_hmac_sha256: str) -> Draft:
    """Prepare a statement. Ids and digests are hexadecimal, as nodes make them; ``parent`` may be empty."""
    origin = f'"parent":"{parent}",' if parent else ""
    return Draft(
        f'{common.head},"input_hmac_sha256":"{input_hmac_sha256}","invocation":"{invocation}",{common.middle}',
        f'{origin}"schema":1,"started":"{_time(started_us)}",{common.tail}',
    )


def end_statement(draft: Draft, *, outcome: str, output_hmac_sha256: str, usage: Mapping[str, int]) -> bytes:
    """Return the statement; ``usage`` in canonical order, ``output_hmac_sha256`` empty where there is no output."""
    output = f',"output_hmac_sha256":"{output_hmac_sha256}"' if output_hmac_sha256 else ""
    return f'{draft.before},"outcome":"{outcome}"{output},{draft.between},"usage":{_encode(usage)}}}'.encode()


def read_receipt(data: bytes) -> Receipt:
    """Read a statement; raise `ReceiptInvalidError` unless it is canonical and has the published shape."""
    value: dict[str, Any] = _RECEIPT.read(data)
    value.pop("schema")
    try:
        value["started"] = datetime.strptime(value["started"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise ReceiptInvalidError(f"expected a time in 'started', got: {error}") from None
    absent = dict.fromkeys(("parent", "agent", "image_sha256", "output_hmac_sha256"), "")
    return Receipt(**{**absent, **value})


def read_receipt_key(data: bytes) -> ReceiptKey:
    """Read a node's word for its key; raise `ReceiptInvalidError`."""
    value: dict[str, Any] = _KEY.read(data)
    try:
        since = read_time(value["since"])
    except ValueError as error:
        raise ReceiptInvalidError(f"expected a time in 'since', got: {error}") from None
    return ReceiptKey(
        node=value["node"],
        certificate_sha256=value["certificate_sha256"],
        ed25519=bytes.fromhex(value["ed25519"]),
        since=since,
    )


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding of DSSE 1.0.2."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def new_salt() -> bytes:
    return os.urandom(SALT_BYTES)


def commitment(salt: bytes, content: bytes) -> str:
    """Return the keyed digest of an input or an output, in hexadecimal."""
    return hmac.digest(salt, content, "sha256").hex()


def require_committed(receipt: Receipt, *, salt: bytes, input_: bytes | None, output: bytes | None) -> None:
    """Check that the receipt speaks of this input and this output; None is not checked.

    Raises:
        ReceiptMismatchError: it does not, or the salt is another receipt's.
        ReceiptInvalidError: a salt of another length: HMAC pads keys, and two lengths could mean the same.
    """
    if len(salt) != SALT_BYTES:
        raise ReceiptInvalidError(f"expected a salt of {SALT_BYTES} bytes, got {len(salt)}")
    for what, content, stated in (
        ("input", input_, receipt.input_hmac_sha256),
        ("output", output, receipt.output_hmac_sha256),
    ):
        if content is not None and not hmac.compare_digest(commitment(salt, content), stated):
            got = "another one" if stated else f"a receipt without an {what}, its outcome is {receipt.outcome}"
            raise ReceiptMismatchError(f"expected the {what} that invocation {receipt.invocation} had, got {got}")


def _time(us: int) -> str:
    seconds, rest = divmod(us, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """The calendar is asked once a second, not once an invocation."""
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
