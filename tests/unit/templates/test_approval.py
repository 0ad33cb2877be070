import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner, Key, SecretsHandler, Signature, Signer

from templates.approval import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    SIGNATURES_MAX,
    STATEMENT_TYPE,
    ApprovalInvalidError,
    ApprovalMergeError,
    Envelope,
    Signed,
    StrangerApprovalError,
    merge,
    read_envelope,
    sign,
    verify_own,
    verify_signatures,
)
from templates.canonical import canonical_bytes
from templates.keys import KeyRefusedError, SignatureInvalidError
from templates.reasons import AgentFactoryError
from tests.trust_world import AGENT_REF, NOW, approval, charter, signer, statement, template

PAYLOAD = statement(template()).to_payload()


def test_everyone_builds_the_same_payload() -> None:
    again = statement(template()).to_payload()
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5))) + timedelta(days=100, microseconds=7)
    assert again == PAYLOAD == statement(template(), expires=elsewhere).to_payload()


def test_the_payload_is_an_in_toto_statement_about_one_digest() -> None:
    value = json.loads(PAYLOAD)
    assert value["_type"] == "https://in-toto.io/Statement/v1" == STATEMENT_TYPE
    assert value["predicateType"] == PREDICATE_TYPE
    assert value["subject"] == [{"name": str(AGENT_REF), "digest": {"sha256": template().digest}}]
    assert value["predicate"]["author"] == "dave"
    assert value["predicate"]["expires"] == "2030-04-11T12:00:00Z"


def test_a_payload_reads_back_as_the_statement_it_was() -> None:
    assert Envelope(payload=PAYLOAD, signatures={}).statement() == statement(template())


def test_a_naive_expiry_is_not_signed() -> None:
    with pytest.raises(ValueError, match="aware"):
        statement(template(), expires=datetime(2030, 1, 1)).to_payload()  # noqa: DTZ001  (the point)


def test_signatures_of_several_reviewers_gather_in_one_envelope() -> None:
    both = merge(sign(PAYLOAD, signer("alice")), sign(PAYLOAD, signer("bob")))
    assert read_envelope(both.to_bytes()) == both
    signed, strangers = verify_signatures(both, charter())
    assert {each.person for each in signed} == {"alice", "bob"}
    assert strangers == ()


def test_merging_keeps_one_signature_per_key() -> None:
    first = sign(PAYLOAD, signer("bob"))
    assert merge(first, sign(PAYLOAD, signer("bob"))) == first


def test_another_implementation_of_dsse_verifies_what_we_sign() -> None:
    envelope = dsse.Envelope.from_dict(json.loads(approval(template(), "alice", "bob")))
    assert envelope.payload_type == PAYLOAD_TYPE
    envelope.verify([signer("alice").public_key, signer("bob").public_key], threshold=2)


def test_signatures_over_different_payloads_are_not_merged() -> None:
    other = statement(template(description="other")).to_payload()
    with pytest.raises(ApprovalMergeError):
        merge(sign(PAYLOAD, signer("alice")), sign(other, signer("bob")))


def test_a_key_that_may_not_sign_is_refused_at_once() -> None:
    with pytest.raises(KeyRefusedError):
        sign(PAYLOAD, CryptoSigner.generate_ecdsa())


class LyingSigner(Signer):
    """Answers with a signature over something else, as a broken token might."""

    SCHEME = "lying"

    @property
    def public_key(self) -> Key:
        return signer("alice").public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "LyingSigner":
        return cls()

    def sign(self, payload: bytes) -> Signature:
        return signer("alice").sign(payload + b"!")


def test_a_signer_that_signs_something_else_is_noticed_at_once() -> None:
    with pytest.raises(SignatureInvalidError):
        sign(PAYLOAD, LyingSigner())


def test_as_many_signatures_as_allowed_are_read() -> None:
    many = _envelope(signatures=[{**SIGNATURE, "keyid": str(n)} for n in range(SIGNATURES_MAX)])
    assert len(read_envelope(many).signatures) == SIGNATURES_MAX


def test_a_reviewers_own_signature_is_checked_when_handed_in() -> None:
    keyid = signer("alice").public_key.keyid
    assert verify_own(sign(PAYLOAD, signer("alice")), charter()) == (Signed(person="alice", keyid=keyid),)


def test_a_stranger_cannot_hand_in_a_signature() -> None:
    both = merge(sign(PAYLOAD, signer("alice")), sign(PAYLOAD, signer("mallory")))
    with pytest.raises(StrangerApprovalError):
        verify_own(both, charter())
    assert verify_signatures(both, charter())[1] == (signer("mallory").public_key.keyid,)


def test_an_envelope_without_signatures_cannot_be_handed_in() -> None:
    with pytest.raises(ApprovalInvalidError):
        verify_own(Envelope(payload=PAYLOAD, signatures={}), charter())


def test_a_signature_under_anothers_key_id_is_refused() -> None:
    stolen = sign(PAYLOAD, signer("mallory")).signatures[signer("mallory").public_key.keyid].signature
    keyid = signer("alice").public_key.keyid
    forged = Envelope(payload=PAYLOAD, signatures={keyid: Signature(keyid, stolen)})
    with pytest.raises(SignatureInvalidError):
        verify_signatures(forged, charter())


def test_a_signature_over_the_payload_without_its_type_is_refused() -> None:
    keyid = signer("alice").public_key.keyid
    bare = Envelope(payload=PAYLOAD, signatures={keyid: signer("alice").sign(PAYLOAD)})
    with pytest.raises(SignatureInvalidError):
        verify_signatures(bare, charter())


def _envelope(**changes: object) -> bytes:
    value = {**json.loads(approval(template(), "alice")), **changes}
    return json.dumps({name: member for name, member in value.items() if member is not ...}).encode()


SIGNATURE = json.loads(approval(template(), "alice"))["signatures"][0]
UNREADABLE = {
    "nothing": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "a duplicate key": _envelope().replace(b'"payloadType"', b'"payloadType": "x", "payloadType"'),
    "another payload type": _envelope(payloadType="application/json"),
    "no payload type": _envelope(payloadType=...),
    "an unknown field": _envelope(more=1),
    "no signature": _envelope(signatures=[]),
    "too many signatures": _envelope(signatures=[{**SIGNATURE, "keyid": str(n)} for n in range(SIGNATURES_MAX + 1)]),
    "two signatures by one key": _envelope(signatures=[SIGNATURE, SIGNATURE]),
    "a signature without key id": _envelope(signatures=[{"sig": SIGNATURE["sig"]}]),
    "a signature with more": _envelope(signatures=[{**SIGNATURE, "cert": "x"}]),
    "a signature that is a text": _envelope(signatures=["x"]),
    "a signature in another alphabet": _envelope(signatures=[{**SIGNATURE, "sig": "__--"}]),
    "a signature that is not ASCII": _envelope(signatures=[{**SIGNATURE, "sig": "éé=="}]),
    "a payload with stray bits": _envelope(payload="QR=="),
    "a payload without padding": _envelope(payload="QQ"),
    "a payload with white space": _envelope(payload="QQ ==\n"),
    "a payload that is a number": _envelope(payload=1),
    "more than the cap": b" " * 1_048_577,
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bytes_that_are_no_envelope_are_refused(name: str) -> None:
    with pytest.raises(ApprovalInvalidError, match="expected"):
        read_envelope(UNREADABLE[name])


def _payload(**changes: object) -> bytes:
    return canonical_bytes({**json.loads(PAYLOAD), **changes})  # type: ignore[dict-item]


def _predicate(**changes: object) -> bytes:
    return _payload(predicate={**json.loads(PAYLOAD)["predicate"], **changes})


SUBJECT = json.loads(PAYLOAD)["subject"][0]
NO_STATEMENTS = {
    "not JSON": b"x",
    "not canonical": json.dumps(json.loads(PAYLOAD)).encode(),
    "another statement type": _payload(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate type": _payload(predicateType="https://slsa.dev/provenance/v1"),
    "two subjects": _payload(subject=[SUBJECT, SUBJECT]),
    "no subject": _payload(subject=[]),
    "a second digest": _payload(subject=[{**SUBJECT, "digest": {**SUBJECT["digest"], "md5": "0"}}]),
    "a subject that is no reference": _payload(subject=[{**SUBJECT, "name": "docs"}]),
    "an unknown field": _predicate(more=1),
    "a date that does not exist": _predicate(expires="2030-02-30T00:00:00Z"),
    "a date in another zone": _predicate(expires="2030-02-28T00:00:00+01:00"),
    "a leap second": _predicate(expires="2030-12-31T23:59:60Z"),
    "no capabilities": _predicate(capabilities={}),
    "an environment outside the grammar": _predicate(environment="PROD"),
}


@pytest.mark.parametrize("name", NO_STATEMENTS)
def test_a_signed_payload_that_is_not_our_statement_is_refused(name: str) -> None:
    with pytest.raises(ApprovalInvalidError, match="expected"):
        Envelope(payload=NO_STATEMENTS[name], signatures={}).statement()


WHOLE = approval(template(), "alice", "bob", "carol")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_an_approval_is_refused_or_loses_a_signature(at: int, bit: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= 1 << bit
    try:
        envelope = read_envelope(bytes(damaged))
        signed, strangers = verify_signatures(envelope, charter())
    except AgentFactoryError:
        return
    assert envelope.payload == PAYLOAD
    assert len(signed) + len(strangers) == 3
    assert len(strangers) == 1


def test_an_envelope_that_is_spelled_differently_means_the_same() -> None:
    loose = json.dumps(json.loads(WHOLE), indent=1).encode()
    assert read_envelope(loose).to_bytes() == WHOLE


def test_the_payload_travels_as_the_bytes_that_were_signed() -> None:
    assert base64.b64decode(json.loads(WHOLE)["payload"]) == PAYLOAD
    assert replace(read_envelope(WHOLE), signatures={}).statement().expires.tzinfo is UTC
