"""The Update Framework's part of the client workflow: reading, signatures, versions and expiry of single roles.

Specification 1.0.31, section 5, as steps that `trusted_set` puts in order. Stricter than the specification, all of it
listed in ADR 4: strict JSON before anything is verified, keys that are the hash of themselves and on the allow-list,
lengths and SHA-256 wherever one role names another, consistent snapshots only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from templates.keys import SignatureInvalidError, check_key, verify_signature
from templates.problems import InvalidDocumentError
from templates.strict_json import loads
from templates.trusted_set_errors import (
    MetadataExpiredError,
    MetadataInvalidError,
    MetadataMismatchError,
    MetadataMissingError,
    MetadataSignatureError,
    TargetMismatchError,
)

BYTES_MAX: Mapping[type, int] = {Root: 524_288, Timestamp: 16_384, Snapshot: 2_097_152, Targets: 16_777_216}
DEPTH_MAX = 16
ROOTS_MAX = 1024

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
_ROOT_FILE = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role's name, and the keys and threshold that its delegator gives it."""

    name: str
    keys: Mapping[str, SSlibKey]
    threshold: int

    @property
    def keyids(self) -> frozenset[str]:
        return frozenset(self.keys)


def load(kind: type[T], data: bytes, *, role: str) -> Metadata[T]:
    """Read the metadata of one role, strictly; nothing is verified yet."""
    try:
        value = loads(data, bytes_max=BYTES_MAX[kind], depth_max=DEPTH_MAX)
    except InvalidDocumentError as error:
        raise MetadataInvalidError(f"expected strict JSON, got: {error.message}", role=role) from None
    if not isinstance(value, dict) or value.keys() != {"signed", "signatures"}:
        raise MetadataInvalidError("expected exactly signed and signatures, got another document", role=role)
    try:
        metadata: Metadata[T] = Metadata[T].from_bytes(data)
    except DeserializationError as error:
        raise MetadataInvalidError(
            f"expected {kind.type} metadata, got: {error.__cause__ or error}", role=role
        ) from None
    signed = metadata.signed
    if not isinstance(signed, kind):  # the type parameter above is not looked at when this runs
        raise MetadataInvalidError(f"expected metadata of type {kind.type}, got {signed.type}", role=role)
    if type(signed.version) is not int:
        raise MetadataInvalidError("expected an integer version, got another value", role=role)
    return metadata


def role_of(delegator: Root | Targets, name: str) -> Role:
    """Return the role that ``delegator`` names, its keys held to the rules of `keys`."""
    try:
        delegated = delegator.get_delegated_role(name)
        keys = {keyid: check_key(delegator.get_key(keyid)) for keyid in delegated.keyids}
    except ValueError as error:
        raise MetadataMissingError(f"expected a delegation to {name} with its keys, got: {error}", role=name) from None
    if type(delegated.threshold) is not int or not 1 <= delegated.threshold <= len(keys):
        raise MetadataInvalidError(
            f"expected a threshold that {len(keys)} keys can reach, got {delegated.threshold}", role=name
        )
    return Role(name=name, keys=keys, threshold=delegated.threshold)


def online_keyids(root: Root) -> frozenset[str]:
    """Return the keys of the roles that a control plane signs by itself, as far as root names them."""
    return role_of(root, "snapshot").keyids | role_of(root, "timestamp").keyids


def verify(role: Role, metadata: Metadata[T]) -> T:
    """Return what ``metadata`` says if enough distinct keys of the role signed it (section 5.3.4 and its like)."""
    try:
        message = metadata.signed_bytes
    except SerializationError as error:
        raise MetadataInvalidError(f"expected values that can be signed, got: {error}", role=role.name) from None
    verified = 0
    for keyid, key in role.keys.items():
        signature = metadata.signatures.get(keyid)
        if signature is None:
            continue
        try:
            verify_signature(key, signature, message)
        except SignatureInvalidError:
            continue  # as in the specification: it does not count, others may
        verified += 1
    if verified < role.threshold:
        raise MetadataSignatureError(role=role.name, threshold=role.threshold, verified=verified)
    return metadata.signed


def check_not_expired(signed: Root | Timestamp | Snapshot | Targets, *, role: str, now: datetime) -> None:
    if now >= signed.expires:
        raise MetadataExpiredError(role=role, expires=signed.expires, now=now)


def check_metadata_file(meta: MetaFile, data: bytes, *, role: str) -> None:
    """Check the length and hashes that the role above names; ours always names both."""
    if meta.length is None or meta.hashes is None or "sha256" not in meta.hashes:
        raise MetadataInvalidError("expected length and sha256 of it in the metadata above, got less", role=role)
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise MetadataMismatchError(
            f"expected the file that the metadata above names, got: {error}", role=role
        ) from None


def check_target_file(info: TargetFile, data: bytes, *, role: str) -> None:
    """Check the length and hashes of a target."""
    if "sha256" not in info.hashes:
        raise MetadataInvalidError(f"expected sha256 of {info.path}, got other hashes", role=role)
    try:
        info.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise TargetMismatchError(f"expected {info.path} as listed, got: {error}", role=role) from None


def check_version(signed: Snapshot | Targets, meta: MetaFile, *, role: str) -> None:
    if signed.version != meta.version:
        raise MetadataMismatchError(f"expected version {meta.version}, got {signed.version}", role=role)


def trusted_root(data: bytes) -> Root:
    """Read a root that is trusted already (pinned or stored); it must still carry its own threshold of signatures."""
    return _verified_root(load(Root, data, role="root"), by=None)


def newest_root(trusted: bytes, metadata: Mapping[str, bytes]) -> tuple[bytes, Root]:
    """Walk from the trusted root over every newer one offered (section 5.3), each signed by its predecessor and itself.

    Expiry is a matter of the last one only (5.3.10), and of whoever asks.
    """
    newest, root = trusted, trusted_root(trusted)
    for _ in range(ROOTS_MAX):
        data = metadata.get(f"{root.version + 1}.root.json")
        if data is None:
            break
        offered = load(Root, data, role="root")
        if offered.signed.version != root.version + 1:
            raise MetadataMismatchError(
                f"expected version {root.version + 1}, got {offered.signed.version}", role="root"
            )
        newest, root = data, _verified_root(offered, by=root)
    return newest, root


def is_root_file(name: str) -> bool:
    return _ROOT_FILE.fullmatch(name) is not None


def _verified_root(offered: Metadata[Root], *, by: Root | None) -> Root:
    if by is not None:
        verify(role_of(by, "root"), offered)
    root = verify(role_of(offered.signed, "root"), offered)
    if root.consistent_snapshot is not True:
        raise MetadataInvalidError("expected consistent_snapshot, got a root without it", role="root")
    return root
