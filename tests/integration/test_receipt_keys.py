"""Who is believed about a receipt: certificates of real authorities, and everything that a forger may change."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.identity import Identity
from service.local_ca import LocalCa
from service.receipt_keys import Envelope, ReceiptSigner, ReceiptUntrustedError, verify_envelope
from service.tls import TlsFiles, TlsFilesError
from templates.canonical import canonical_bytes
from templates.receipt import ReceiptInvalidError
from tests.unit.templates.test_receipt import FACTS, SALT, statement_bytes

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = LocalCa.create(directory / "ca", trust_domain="factory.test", now=NOW - timedelta(days=1))
        self.authorities = x509.load_pem_x509_certificates(self.ca.certificate)

    def files(self, identity: Identity) -> TlsFiles:
        return self.ca.issue(identity, now=NOW).write(self.directory / identity.name)

    def signer(self, identity: Identity | None = None, *, now: datetime = NOW) -> ReceiptSigner:
        return ReceiptSigner.create(self.files(identity or Identity.node("factory.test", "n1")), now=now)

    def envelope(self, signer: ReceiptSigner | None = None, *, at: datetime = NOW, **changes: Any) -> Envelope:
        signer = signer or self.signer()
        statement = statement_bytes(**{**FACTS, "started_us": int(at.timestamp() * 1e6), **changes})
        return Envelope(statement=statement, signature=signer.sign(statement), voucher=signer.voucher, salt=SALT)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_receipt_is_believed_years_later_and_as_a_file(world: World) -> None:
    envelope = Envelope.parse(world.envelope().to_bytes())
    receipt = verify_envelope(envelope, world.authorities)
    assert (receipt.node, receipt.invocation) == ("spiffe://factory.test/node/n1", FACTS["invocation"])
    assert envelope.salt == SALT
    assert Envelope.parse(replace(envelope, salt=b"").to_bytes()).salt == b""


def test_a_receipt_of_another_installation_is_not_believed(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    with pytest.raises(ReceiptUntrustedError, match=r"of a trusted authority \(1 given\).* issued by 'CN="):
        verify_envelope(other.envelope(), world.authorities)
    with pytest.raises(ReceiptUntrustedError, match="none"):
        verify_envelope(world.envelope(), [])


@pytest.mark.parametrize(
    "identity",
    [
        Identity.service("factory.test", "acme", "n1"),
        Identity.person("factory.test", "n1"),
        Identity.control_plane("factory.test", "n1"),
    ],
)
def test_only_nodes_attest(world: World, identity: Identity) -> None:
    with pytest.raises(ReceiptUntrustedError, match="of a node"):
        verify_envelope(world.envelope(world.signer(identity), node=identity.uri), world.authorities)


def test_a_node_attests_for_itself_alone(world: World) -> None:
    envelope = world.envelope(node="spiffe://factory.test/node/n2")
    with pytest.raises(ReceiptUntrustedError, match="receipt of"):
        verify_envelope(envelope, world.authorities)


def test_any_changed_bit_is_noticed(world: World) -> None:
    envelope = world.envelope()
    voucher = envelope.voucher
    forged = [
        replace(envelope, statement=envelope.statement.replace(b'"generation":3', b'"generation":4')),
        replace(envelope, signature=envelope.signature[:-1] + bytes([envelope.signature[-1] ^ 1])),
        replace(envelope, signature=b""),
        replace(envelope, voucher=replace(voucher, signature=voucher.signature[:-1])),
        replace(envelope, voucher=replace(voucher, statement=voucher.statement.replace(b"n1", b"n2"))),
    ]
    for each in forged:
        with pytest.raises((ReceiptUntrustedError, ReceiptInvalidError)):
            verify_envelope(each, world.authorities)


def test_a_key_that_the_certificate_did_not_vouch_for_signs_nothing(world: World) -> None:
    honest, forger = world.signer(), ed25519.Ed25519PrivateKey.generate()
    envelope = world.envelope(honest)
    public = forger.public_key().public_bytes_raw()
    word = honest.voucher.statement
    own = word.replace(word[word.index(b'"ed25519":"') + 11 :][:64], public.hex().encode())
    assert own != word
    swapped = replace(envelope, voucher=replace(honest.voucher, statement=own))
    with pytest.raises(ReceiptUntrustedError, match="vouch"):
        verify_envelope(swapped, world.authorities)


def test_another_nodes_certificate_does_not_vouch(world: World) -> None:
    first, second = world.signer(), world.signer(Identity.node("factory.test", "n2"))
    envelope = world.envelope(first)
    mixed = replace(envelope, voucher=replace(first.voucher, certificates=second.voucher.certificates))
    with pytest.raises(ReceiptUntrustedError):
        verify_envelope(mixed, world.authorities)


def test_a_statement_is_no_voucher_and_a_voucher_no_receipt(world: World) -> None:
    signer = world.signer()
    crossed = Envelope(
        statement=signer.voucher.statement, signature=signer.sign(signer.voucher.statement), voucher=signer.voucher
    )
    with pytest.raises(ReceiptInvalidError):
        verify_envelope(crossed, world.authorities)
    with pytest.raises(ReceiptInvalidError, match="payload type"):
        Envelope.parse(crossed.to_bytes().replace(b"receipt.v1", b"receipt.v2"))


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"template": "dev/a@1.0.0", "signed": false}'])
def test_what_nobody_signed_is_called_unsigned(data: bytes) -> None:
    with pytest.raises(ReceiptInvalidError, match="expected a signed receipt"):
        Envelope.parse(data)


@pytest.mark.parametrize("at", [NOW - timedelta(minutes=6), NOW + timedelta(days=91)])
def test_a_start_outside_the_life_of_key_and_certificate_is_not_believed(world: World, at: datetime) -> None:
    with pytest.raises(ReceiptUntrustedError, match="expected a start"):
        verify_envelope(world.envelope(at=at), world.authorities)


@pytest.mark.parametrize("since", [NOW - timedelta(days=2), NOW + timedelta(days=100)])
def test_a_key_from_outside_the_life_of_the_certificate_is_not_believed(world: World, since: datetime) -> None:
    with pytest.raises(ReceiptUntrustedError, match="authority"):
        verify_envelope(world.envelope(world.signer(now=since), at=since), world.authorities)


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "p384"])
def test_a_certificate_of_any_usual_kind_vouches(world: World, kind: str) -> None:
    key: Any
    match kind:
        case "rsa":
            key = rsa.generate_private_key(65537, 2048)
        case "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case _:
            key = ec.generate_private_key(ec.SECP384R1())
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("ca", ca_key.public_key(), "ca", ca_key, is_ca=True)
    leaf = _certificate("n1", key.public_key(), "ca", ca_key, uri="spiffe://factory.test/node/n1")
    files = TlsFiles(
        certificate=world.directory / "c", key=world.directory / "k", authorities=world.directory / "unused"
    )
    files.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    envelope = world.envelope(ReceiptSigner.create(files, now=NOW))
    assert verify_envelope(envelope, [ca]).node == "spiffe://factory.test/node/n1"


def test_files_that_are_no_certificate_and_key_make_no_signer(world: World) -> None:
    files = world.files(Identity.node("factory.test", "n1"))
    files.key.write_bytes(b"nothing")
    with pytest.raises(TlsFilesError):
        ReceiptSigner.create(files, now=NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"payloadType":"x","payloadType":"x"}',
        b"\xff" * 10,
        b"[" * 1_000,
        b" " * 200_000,
        b'{"payloadType":"application/vnd.agentfactory.receipt.v1+json","payload":"!","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"application/vnd.agentfactory.receipt.v1+json","payload":"","signatures":[]}',
        b'{"payloadType":"application/vnd.agentfactory.receipt.v1+json","payload":"","signatures":{}}',
    ],
)
def test_a_file_that_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(ReceiptInvalidError):
        Envelope.parse(data)


def test_a_voucher_that_is_not_canonical_is_refused(world: World) -> None:
    envelope = world.envelope()
    word = canonical_bytes({"schema": 1}) + hashlib.sha256(b"").digest()
    with pytest.raises(ReceiptInvalidError):
        verify_envelope(replace(envelope, voucher=replace(envelope.voucher, statement=word)), world.authorities)


def _certificate(
    name: str, public: Any, issuer: str, signer: Any, *, is_ca: bool = False, uri: str = ""
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if uri:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    if is_ca:
        usage = {
            name: name in {"key_cert_sign", "crl_sign"}
            for name in (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            )
        }
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    return builder.sign(signer, SHA256())
