"""The offline-signed documents that an operator laid out for this process: roots, targets, charter."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from templates.charter import read_charter
from templates.reasons import AgentFactoryError, Reason
from templates.repository import OfflineTrust

_DOCUMENT_BYTES_MAX = 4 << 20
_ETAG_CHARACTERS = 32
_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


class TrustUnreadableError(AgentFactoryError):
    """The trust documents are not there, or cannot be read."""

    reason = Reason.TRUST_UNREADABLE


def read_trust_directory(directory: Path) -> OfflineTrust:
    """Read ``root.json`` (or the chain ``1.root.json``, ``2.root.json`` …), ``targets.json`` and ``charter.json``.

    Raises:
        TrustUnreadableError: naming the file that is missing or too long, and the command that makes it.
    """
    chain = {int(found[1]): each for each in _entries(directory) if (found := _ROOT.fullmatch(each.name))}
    if chain and sorted(chain) != list(range(1, len(chain) + 1)):
        raise TrustUnreadableError(
            f"expected a chain from 1.root.json in {directory}, got versions {', '.join(map(str, sorted(chain)))}"
        )
    roots = [chain[version] for version in sorted(chain)] or [directory / "root.json"]
    return OfflineTrust(
        roots=tuple(_read(path) for path in roots),
        targets=_read(directory / "targets.json"),
        charter=_read(directory / "charter.json"),
    )


def trust_files(trust: OfflineTrust) -> dict[str, bytes]:
    """Return the offline documents as files, for the store."""
    roots = {f"{version}.root.json": root for version, root in enumerate(trust.roots, start=1)}
    return {**roots, "targets.json": trust.targets, "charter.json": trust.charter}


def trust_of(files: Mapping[str, bytes]) -> OfflineTrust:
    """Return what `trust_files` was given."""
    count = sum(1 for name in files if name.endswith(".root.json"))
    return OfflineTrust(
        roots=tuple(files[f"{version}.root.json"] for version in range(1, count + 1)),
        targets=files["targets.json"],
        charter=files["charter.json"],
    )


def trust_etag(trust: OfflineTrust) -> str:
    """Return what an etag of these documents is: opaque to callers."""
    content = b"\0".join(hashlib.sha256(data).digest() for data in trust_files(trust).values())
    return hashlib.sha256(content).hexdigest()[:_ETAG_CHARACTERS]


def newer_trust(known: OfflineTrust, laid_out: OfflineTrust) -> OfflineTrust | None:
    """Return ``laid_out`` if it is newer than what is known, else None.

    Raises:
        TrustUnreadableError: it begins with another root: this state belongs to another installation.
    """
    if known.roots[0] != laid_out.roots[0]:
        raise TrustUnreadableError(
            "expected the root that this state directory was made under, got another one: "
            "give the new installation a state directory of its own"
        )
    newer_charter = read_charter(laid_out.charter).version > read_charter(known.charter).version
    if not newer_charter and len(laid_out.roots) <= len(known.roots):
        return None
    roots = max(known.roots, laid_out.roots, key=len)
    documents = laid_out if newer_charter else known
    return OfflineTrust(roots=roots, targets=documents.targets, charter=documents.charter)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise TrustUnreadableError(
            f"expected trust documents in {directory}, got: {error.strerror}; `agentctl init` makes them"
        ) from None


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrustUnreadableError(
            f"expected a trust document at {path}, got: {error.strerror}; `agentctl init` makes it"
        ) from None
    if len(data) > _DOCUMENT_BYTES_MAX:
        raise TrustUnreadableError(f"expected at most {_DOCUMENT_BYTES_MAX} bytes at {path}, got {len(data)}")
    return data
