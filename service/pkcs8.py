"""Encrypted PKCS#8 with scrypt (RFC 5958, RFC 8018 PBES2, RFC 7914).

`cryptography` writes PBES2 with 2,048 rounds of PBKDF2 (``BestAvailableEncryption`` of 50.0.2, measured: half a
millisecond), which a graphics card guesses through; it reads scrypt. So the envelope is made here, of its primitives,
and read by the library and by OpenSSL, whose default memory bound (32 MiB) is why N is 2^14 and the work is in p.
"""

import base64
import secrets
import textwrap
from typing import Final

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SCRYPT_N: Final = 2**14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 5

_OID_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_OID_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")
_OID_AES_256_CBC: Final = bytes.fromhex("60864801650304012a")


def encrypt_pkcs8(private_key: bytes, *, passphrase: bytes) -> bytes:
    """Return ``private_key`` (PKCS#8, DER, plain) as "ENCRYPTED PRIVATE KEY" in PEM, under AES-256-CBC and scrypt."""
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(16)
    key = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(private_key) + padder.finalize()) + encryptor.finalize()

    kdf = _sequence(
        _oid(_OID_SCRYPT),
        _sequence(_octets(salt), _integer(SCRYPT_N), _integer(SCRYPT_R), _integer(SCRYPT_P), _integer(32)),
    )
    cipher = _sequence(_oid(_OID_AES_256_CBC), _octets(iv))
    envelope = _sequence(_sequence(_oid(_OID_PBES2), _sequence(kdf, cipher)), _octets(sealed))
    return _pem("ENCRYPTED PRIVATE KEY", envelope)


def _pem(label: str, der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode("ascii")


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(size))) + size + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _tagged(0x04, content)


def _oid(content: bytes) -> bytes:
    return _tagged(0x06, content)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1))
