"""Building and signing the TUF repository: offline by `agentctl init`, online by the control plane, and by tests as an attacker.

Nothing here judges what it signs: whoever holds the online keys can build any generation. That a node does not believe it is the
work of `trusted_set` and `acceptance`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from securesystemslib.signer import Key, Signer

from templates.bundle import Bundle
from templates.charter import Charter, Mode
from templates.names import TemplateRef
from templates.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """The keys of one role, and how many of them must sign."""

    keys: tuple[Key, ...]
    threshold: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSpec:
    """What one version of root says."""

    environment: str
    mode: Mode
    version: int
    expires: datetime
    root: RoleKeys
    targets: RoleKeys
    snapshot: RoleKeys
    timestamp: RoleKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSigners:
    """What a control plane holds. ``library`` signs the role of every domain."""

    snapshot: Signer
    timestamp: Signer
    plan: Signer
    library: Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """How long each role is signed for, in seconds; a role is signed anew when less than half is left."""

    lease_s: int
    snapshot_s: int = 7 * 86_400
    plan_s: int = 90 * 86_400
    library_s: int = 90 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTrust:
    """What was signed offline and is public: every version of root from 1, targets metadata, charter.json."""

    roots: tuple[bytes, ...]
    targets: bytes
    charter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Everything that exists in one domain: resolved bytes, envelope bytes, and code by digest → length."""

    templates: Mapping[TemplateRef, bytes] = field(default_factory=dict)
    approvals: Mapping[TemplateRef, bytes] = field(default_factory=dict)
    code: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One signed state of everything. Persist ``metadata`` before showing it to anyone: the next build starts from it."""

    number: int
    metadata: Mapping[str, bytes]
    """File name → bytes: every root, ``timestamp.json``, the current snapshot, targets, plan and libraries."""
    targets: Mapping[str, bytes]
    """Target path → bytes of every small target of every library, plan and charter."""

    def bundle(self) -> Bundle:
        """Return what nodes need of it: all metadata, and the documents of the templates in the plan and of their images."""
        raise NotImplementedError

    def http_layout(self) -> Mapping[str, bytes]:
        """Return URL path → bytes of an ordinary TUF repository (``metadata/…``, ``targets/…`` with hashes), code excluded."""
        raise NotImplementedError


def build_root(spec: RootSpec, signers: Sequence[Signer]) -> bytes:
    """Build and sign ``<version>.root.json``. A new version needs signers of the previous root too, to their threshold."""
    raise NotImplementedError


def build_targets(
    charter: Charter, *, plan: RoleKeys, library: RoleKeys, expires: datetime, signers: Sequence[Signer]
) -> bytes:
    """Build and sign ``<charter.version>.targets.json``: lists charter.json, delegates ``plan`` and a library per domain."""
    raise NotImplementedError


def add_signature(metadata: bytes, signer: Signer) -> bytes:
    """Return offline metadata with one more signature, for N of M who never meet."""
    raise NotImplementedError


def publish(
    *,
    trust: OfflineTrust,
    libraries: Mapping[str, Library],
    plan: Plan,
    signers: OnlineSigners,
    validity: Validity,
    now: datetime,
    previous: Mapping[str, bytes] | None,
) -> Generation:
    """Build the next generation; roles whose content did not change keep their version and bytes.

    Args:
        trust: from `agentctl init` or a newer charter; its charter decides which domains exist.
        libraries: per domain, complete; a domain that is absent gets an empty library.
        plan: the whole plan.
        signers: online keys.
        validity: how long to sign for.
        now: aware, UTC.
        previous: ``metadata`` of the generation before, None for the first.
    """
    raise NotImplementedError


def renew_lease(metadata: Mapping[str, bytes], *, signer: Signer, validity: Validity, now: datetime) -> bytes:
    """Return a newer ``timestamp.json`` for the same generation."""
    raise NotImplementedError
