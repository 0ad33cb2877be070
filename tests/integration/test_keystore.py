"""Keys and authorities on a real file system: modes, whole writes, wrong passphrases, OpenSSL's opinion."""

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from securesystemslib.exceptions import UnverifiedSignatureError

from service.identity import Identity, identity_of_certificate
from service.keystore import (
    KeyFileError,
    KeyKind,
    PassphraseError,
    create_key,
    passphrase_from,
    public_pem,
    read_key,
    read_public_key,
    write_public_key,
)
from service.local_ca import LocalCa, LocalCaError
from service.pkcs8 import encrypt_pkcs8
from service.secret_files import SECRET_BYTES_MAX, ExposedFileError, read_secret, replace_secret, write_secret
from templates.reasons import AgentFactoryError

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PASS = b"correct horse"


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [(KeyKind.RSA, "rsassa-pss-sha256"), (KeyKind.ED25519, "ed25519"), (KeyKind.ML_DSA_65, "ml-dsa-65/1")],
)
def test_a_key_is_written_read_and_signs(tmp_path: Path, kind: KeyKind, scheme: str) -> None:
    path = tmp_path / "key.pem"
    created = create_key(path, kind=kind, passphrase=PASS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert created.public_key.scheme == scheme
    opened = read_key(path, passphrase=PASS)
    assert opened.public_key == created.public_key
    signature = opened.sign(b"message")
    created.public_key.verify_signature(signature, b"message")
    with pytest.raises(UnverifiedSignatureError):
        created.public_key.verify_signature(signature, b"another")
    write_public_key(tmp_path / "key.pub", created.public_key)
    assert read_public_key(tmp_path / "key.pub") == created.public_key
    assert b"PRIVATE" not in public_pem(created.public_key)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["key.pem", "key.pub"], "no temporary file is left"


def test_rsa_keys_have_3072_bits_and_openssl_can_open_them(tmp_path: Path) -> None:
    create_key(tmp_path / "key.pem", passphrase=PASS)
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    command = [openssl, "pkey", "-in", str(tmp_path / "key.pem"), "-passin", "pass:" + PASS.decode(), "-noout", "-text"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "3072 bit" in text


def test_a_wrong_passphrase_and_a_damaged_file_look_alike(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    create_key(path, kind=KeyKind.ED25519, passphrase=PASS)
    with pytest.raises(PassphraseError):
        read_key(path, passphrase=b"wrong")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(AgentFactoryError):
        read_key(path, passphrase=PASS)


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    create_key(path, kind=KeyKind.ED25519, passphrase=PASS)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="existing"):
        create_key(path, kind=KeyKind.ED25519, passphrase=PASS)
    assert path.read_bytes() == before


def test_a_key_without_passphrase_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError):
        create_key(tmp_path / "key.pem", passphrase=b"")
    with pytest.raises(KeyFileError, match="No such file"):
        create_key(tmp_path / "absent" / "key.pem", kind=KeyKind.ED25519, passphrase=PASS)


def plain_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def sealed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return encrypt_pkcs8(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), passphrase=PASS)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "PEM"),
        (b"hello", "PEM"),
        (plain_pem(ed25519.Ed25519PrivateKey.generate()), "encrypted private key"),
        (sealed(ec.generate_private_key(ec.SECP256R1())), "kind rsa, ed25519, ml-dsa-65"),
        (sealed(rsa.generate_private_key(65537, 1024)), "2048 bits"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    write_secret(tmp_path / "key.pem", content)
    with pytest.raises(KeyFileError, match=problem):
        read_key(tmp_path / "key.pem", passphrase=PASS)


def test_a_key_that_the_library_encrypted_is_read_too(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASS))
    write_secret(tmp_path / "key.pem", pem)
    assert read_key(tmp_path / "key.pem", passphrase=PASS).public_key.keytype == "ed25519"


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_other_public_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(KeyFileError):
        read_public_key(tmp_path / "key.pub")


def test_a_public_key_of_another_kind_or_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        read_public_key(tmp_path / "absent.pub")
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "key.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="kind"):
        read_public_key(tmp_path / "key.pub")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o660, 0o777])
def test_a_secret_that_others_can_reach_is_not_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    create_key(path, kind=KeyKind.ED25519, passphrase=PASS)
    path.chmod(mode)
    with pytest.raises(ExposedFileError, match=f"{mode:04o}"):
        read_key(path, passphrase=PASS)


def test_a_fifo_or_directory_is_no_secret_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ExposedFileError, match="regular"):
        read_secret(tmp_path / "fifo")
    with pytest.raises((ExposedFileError, OSError)):
        read_secret(tmp_path)


def test_an_endless_secret_is_not_read(tmp_path: Path) -> None:
    write_secret(tmp_path / "long", b"x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(ExposedFileError, match="at most"):
        read_secret(tmp_path / "long")


def test_replacing_keeps_the_mode(tmp_path: Path) -> None:
    replace_secret(tmp_path / "s", b"one")
    replace_secret(tmp_path / "s", b"two")
    assert read_secret(tmp_path / "s") == b"two"


def test_a_passphrase_comes_from_a_value_or_a_file(tmp_path: Path) -> None:
    write_secret(tmp_path / "p", b"from file\n")
    assert passphrase_from(value="from value", file=None) == b"from value"
    assert passphrase_from(value=None, file=tmp_path / "p") == b"from file"


def test_no_passphrase_two_or_an_empty_one_are_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "p", b"x")
    write_secret(tmp_path / "empty", b"\n")
    write_secret(tmp_path / "open", b"x")
    (tmp_path / "open").chmod(0o644)
    for value, file in (
        (None, None),
        ("x", tmp_path / "p"),
        ("", None),
        (None, tmp_path / "empty"),
        (None, tmp_path / "absent"),
    ):
        with pytest.raises(PassphraseError):
            passphrase_from(value=value, file=file)
    with pytest.raises(ExposedFileError):
        passphrase_from(value=None, file=tmp_path / "open")


# ---------------------------------------------------------------- the local authority


def test_an_authority_signs_leaves_only(tmp_path: Path) -> None:
    authority = LocalCa.create(tmp_path / "ca", trust_domain="factory.local", now=NOW)
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


def test_an_issued_certificate_says_who_and_for_what(tmp_path: Path) -> None:
    authority = LocalCa.create(tmp_path / "ca", trust_domain="factory.local", now=NOW)
    again = LocalCa.load(tmp_path / "ca")
    assert (again.trust_domain, again.certificate) == ("factory.local", authority.certificate)
    node = Identity.node("factory.local", "n1")
    issued = again.issue(node, now=NOW, valid=timedelta(days=1), dns_names=["localhost"], addresses=[ip_address("::1")])
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert identity_of_certificate(certificate) == node
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("::1")]
    assert certificate.not_valid_after_utc == NOW + timedelta(days=1)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    files = issued.write(tmp_path / "n1")
    assert files.key.stat().st_mode & 0o777 == 0o600
    load_pem_private_key(files.key.read_bytes(), None)


def purposes(authority: LocalCa, identity: Identity) -> set[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(authority.issue(identity, now=NOW).certificate)
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_only_nodes_and_control_planes_may_serve(tmp_path: Path) -> None:
    authority = LocalCa.create(tmp_path / "ca", trust_domain="factory.local", now=NOW)
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    assert purposes(authority, Identity.node("factory.local", "n")) == {client, server}
    assert purposes(authority, Identity.control_plane("factory.local", "c")) == {client, server}
    assert purposes(authority, Identity.person("factory.local", "p")) == {client}
    assert purposes(authority, Identity.service("factory.local", "t", "s")) == {client}
    for identity in (Identity.person("factory.local", "p"), Identity.service("factory.local", "t", "s")):
        with pytest.raises(LocalCaError, match="server names"):
            authority.issue(identity, now=NOW, dns_names=["localhost"])


def test_an_authority_refuses_what_it_should_not_sign(tmp_path: Path) -> None:
    authority = LocalCa.create(tmp_path / "ca", trust_domain="factory.local", now=NOW)
    with pytest.raises(LocalCaError, match=r"identity of factory\.local"):
        authority.issue(Identity.node("other.local", "n"), now=NOW)
    with pytest.raises(LocalCaError, match="end after"):
        authority.issue(Identity.node("factory.local", "n"), now=NOW, valid=timedelta(0))
    last = authority.issue(Identity.node("factory.local", "n"), now=NOW, valid=timedelta(days=99_999))
    ends = x509.load_pem_x509_certificate(last.certificate).not_valid_after_utc
    assert ends == x509.load_pem_x509_certificate(authority.certificate).not_valid_after_utc


def test_an_authority_is_never_overwritten_and_a_damaged_one_not_loaded(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    with pytest.raises(LocalCaError):
        LocalCa.load(directory)
    LocalCa.create(directory, trust_domain="factory.local", now=NOW)
    with pytest.raises(LocalCaError, match="existing"):
        LocalCa.create(directory, trust_domain="factory.local", now=NOW)
    with pytest.raises(AgentFactoryError):
        LocalCa.create(tmp_path / "other", trust_domain="Not A Domain", now=NOW)
    (directory / "ca.key").chmod(0o644)
    with pytest.raises(ExposedFileError):
        LocalCa.load(directory)
    replace_secret(directory / "ca.key", plain_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(LocalCaError, match="do not match"):
        LocalCa.load(directory)
    replace_secret(directory / "ca.key", plain_pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(LocalCaError, match="ECDSA"):
        LocalCa.load(directory)
    replace_secret(directory / "ca.key", b"hello")
    with pytest.raises(LocalCaError):
        LocalCa.load(directory)
