"""Building and signing the TUF repository: offline by `agentctl`, online by the control plane, by tests as attackers.

Nothing here judges what it signs: whoever holds the online keys can build any generation. That a node does not believe
it is the work of `trusted_set` and `acceptance`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from templates.bundle import Bundle
from templates.canonical import sha256_hex
from templates.charter import Charter, Mode
from templates.keys import check_key
from templates.names import TemplateRef
from templates.plan import Plan, read_plan
from templates.resolved import PinnedSource, read_resolved
from templates.signed_document import time_text
from templates.trusted_set_layout import (
    CHARTER_PATH,
    LIBRARY_PREFIX,
    PLAN_PATH,
    PLAN_ROLE,
    approval_path,
    code_path,
    library_paths,
    template_path,
)

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
SignedRole = TypeVar("SignedRole", Snapshot, Targets)


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
    """One signed state of everything. Persist ``metadata`` before showing it to anyone: the next build starts from it.

    ``metadata`` is file name → bytes: all roots, ``timestamp.json``, the current snapshot, targets, plan and libraries.
    ``targets`` is target path → bytes of charter, plan, and every template and approval of every library.
    """

    number: int
    metadata: Mapping[str, bytes]
    targets: Mapping[str, bytes]

    def bundle(self) -> Bundle:
        """Return what nodes need: all metadata, and the documents of the templates in the plan and of their images."""
        needed = [CHARTER_PATH, PLAN_PATH]
        for entry in read_plan(self.targets[PLAN_PATH]).entries:
            needed += _documents(entry.template)
            resolved = self.targets.get(template_path(entry.template))
            code = read_resolved(resolved).code if resolved is not None else None
            if isinstance(code, PinnedSource):
                needed += _documents(code.image.template)
        return Bundle.of(
            metadata=self.metadata, targets={path: self.targets[path] for path in needed if path in self.targets}
        )

    def http_layout(self) -> Mapping[str, bytes]:
        """Return URL path → bytes of an ordinary TUF repository with consistent snapshots; code blobs are not in it."""
        files = {f"metadata/{name}": data for name, data in self.metadata.items()}
        for path, data in self.targets.items():
            folder, slash, name = path.rpartition("/")
            files[f"targets/{folder}{slash}{sha256_hex(data)}.{name}"] = data
        return files


def build_root(spec: RootSpec, signers: Sequence[Signer]) -> bytes:
    """Build and sign ``<version>.root.json``; more signatures may follow by `add_signature`.

    A new version needs signers of the previous root too, to their threshold.
    """
    roles = {"root": spec.root, "targets": spec.targets, "snapshot": spec.snapshot, "timestamp": spec.timestamp}
    root = Root(
        version=spec.version,
        expires=_whole_seconds(spec.expires),
        keys={key.keyid: check_key(key) for role in roles.values() for key in role.keys},
        roles={name: Role([key.keyid for key in role.keys], role.threshold) for name, role in roles.items()},
        consistent_snapshot=True,
        unrecognized_fields={"environment": spec.environment, "mode": str(spec.mode)},
    )
    return _signed(root, signers)


def build_targets(
    charter: Charter, *, plan: RoleKeys, library: RoleKeys, expires: datetime, signers: Sequence[Signer]
) -> bytes:
    """Build and sign ``<charter.version>.targets.json``: it lists charter.json and delegates plan and the libraries."""
    paths = {PLAN_ROLE: [PLAN_PATH]} | {
        f"{LIBRARY_PREFIX}{domain}": library_paths(domain) for domain in sorted(charter.domains)
    }
    roles = {
        name: DelegatedRole(
            name,
            [key.keyid for key in (plan if name == PLAN_ROLE else library).keys],
            (plan if name == PLAN_ROLE else library).threshold,
            terminating=True,
            paths=patterns,
        )
        for name, patterns in paths.items()
    }
    data = charter.to_bytes()
    targets = Targets(
        version=charter.version,
        expires=_whole_seconds(expires),
        targets={CHARTER_PATH: TargetFile.from_data(CHARTER_PATH, data, ["sha256"])},
        delegations=Delegations({key.keyid: check_key(key) for key in (*plan.keys, *library.keys)}, roles),
    )
    return _signed(targets, signers)


def add_signature(metadata: bytes, signer: Signer) -> bytes:
    """Return root or targets metadata with one more signature, for N of M who never meet."""
    read: Metadata[Root] | Metadata[Targets] = Metadata.from_bytes(metadata)
    read.sign(signer, append=True)
    return read.to_bytes(_SERIALIZER)


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
        trust: from `agentctl init` or a newer charter; the delegations of its targets decide which libraries exist.
        libraries: per domain, complete; a domain that is absent gets an empty library.
        plan: the whole plan.
        signers: online keys.
        validity: how long to sign for.
        now: aware, UTC.
        previous: ``metadata`` of the generation before, None for the first.
    """
    before = _Previous(previous or {})
    targets = Metadata[Targets].from_bytes(trust.targets).signed
    files = {CHARTER_PATH: trust.charter, PLAN_PATH: plan.to_bytes()}
    metadata = {f"{version}.root.json": data for version, data in enumerate(trust.roots, start=1)}
    metadata[f"{targets.version}.targets.json"] = trust.targets
    meta = before.snapshot_meta() | {"targets.json": _meta(targets.version, trust.targets)}
    for name, delegated in (targets.delegations.roles or {} if targets.delegations else {}).items():
        if name == PLAN_ROLE:
            listed = {PLAN_PATH: TargetFile.from_data(PLAN_PATH, files[PLAN_PATH], ["sha256"])}
            signer, lasts_s = signers.plan, validity.plan_s
        else:
            library = libraries.get(name.removeprefix(LIBRARY_PREFIX), Library())
            documents = _library_documents(library)
            files |= documents
            listed = {path: TargetFile.from_data(path, data, ["sha256"]) for path, data in documents.items()}
            listed |= _library_code(name.removeprefix(LIBRARY_PREFIX), library)
            signer, lasts_s = signers.library, validity.library_s
        version, data = before.role(name, listed, keyids=delegated.keyids, signer=signer, lasts_s=lasts_s, now=now)
        metadata[f"{version}.{name}.json"] = data
        meta[f"{name}.json"] = _meta(version, data)
    number, snapshot = before.snapshot(meta, signer=signers.snapshot, lasts_s=validity.snapshot_s, now=now)
    metadata[f"{number}.snapshot.json"] = snapshot
    metadata["timestamp.json"] = _timestamp(
        version=before.lease_version + 1,
        snapshot=_meta(number, snapshot),
        signer=signers.timestamp,
        lasts_s=validity.lease_s,
        now=now,
    )
    return Generation(number=number, metadata=metadata, targets=files)


def renew_lease(metadata: Mapping[str, bytes], *, signer: Signer, validity: Validity, now: datetime) -> bytes:
    """Return a newer ``timestamp.json`` for the same generation."""
    before = Metadata[Timestamp].from_bytes(metadata["timestamp.json"]).signed
    return _timestamp(
        version=before.version + 1, snapshot=before.snapshot_meta, signer=signer, lasts_s=validity.lease_s, now=now
    )


class _Previous:
    """The generation before, from which unchanged roles are taken over."""

    def __init__(self, metadata: Mapping[str, bytes]) -> None:
        self._metadata = metadata
        self._snapshot: tuple[Snapshot, bytes] | None = None
        self.lease_version = 0
        if metadata:
            timestamp = Metadata[Timestamp].from_bytes(metadata["timestamp.json"]).signed
            self.lease_version = timestamp.version
            data = metadata[f"{timestamp.snapshot_meta.version}.snapshot.json"]
            self._snapshot = Metadata[Snapshot].from_bytes(data).signed, data

    def snapshot_meta(self) -> dict[str, MetaFile]:
        """Return what was listed; a role once listed must stay, its domain's or not."""
        return dict(self._snapshot[0].meta) if self._snapshot else {}

    def role(
        self,
        name: str,
        listed: dict[str, TargetFile],
        *,
        keyids: Sequence[str],
        signer: Signer,
        lasts_s: int,
        now: datetime,
    ) -> tuple[int, bytes]:
        """Return version and bytes of a delegated role that lists ``listed``: the ones before if they still serve."""
        meta = self.snapshot_meta().get(f"{name}.json")
        version = meta.version if meta else 0
        data = self._metadata.get(f"{version}.{name}.json")
        if data is not None:
            before = Metadata[Targets].from_bytes(data)
            half_left = before.signed.expires - now >= timedelta(seconds=lasts_s) / 2
            if before.signed.targets == listed and half_left and before.signatures.keys() <= set(keyids):
                return version, data
        role = Targets(version=version + 1, expires=_after(now, lasts_s), targets=listed)
        return role.version, _signed(role, [signer])

    def snapshot(self, meta: dict[str, MetaFile], *, signer: Signer, lasts_s: int, now: datetime) -> tuple[int, bytes]:
        """Return number and bytes of a snapshot that lists ``meta``: the one before if it still serves."""
        version = 0
        if self._snapshot:
            before, data = self._snapshot
            version = before.version
            half_left = before.expires - now >= timedelta(seconds=lasts_s) / 2
            same_key = signer.public_key.keyid in Metadata[Snapshot].from_bytes(data).signatures
            if before.meta == meta and half_left and same_key:
                return version, data
        snapshot = Snapshot(version=version + 1, expires=_after(now, lasts_s), meta=meta)
        return snapshot.version, _signed(snapshot, [signer])


_SERIALIZER = JSONSerializer(compact=True)


def _signed(signed: T, signers: Sequence[Signer]) -> bytes:
    metadata: Metadata[T] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(_SERIALIZER)


def _timestamp(*, version: int, snapshot: MetaFile, signer: Signer, lasts_s: int, now: datetime) -> bytes:
    timestamp = Timestamp(
        version=version,
        expires=_after(now, lasts_s),
        snapshot_meta=snapshot,
        unrecognized_fields={"signed_at": time_text(now)},
    )
    return _signed(timestamp, [signer])


def _meta(version: int, data: bytes) -> MetaFile:
    return MetaFile(version=version, length=len(data), hashes={"sha256": sha256_hex(data)})


def _after(now: datetime, seconds: int) -> datetime:
    return _whole_seconds(now) + timedelta(seconds=seconds)


def _whole_seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _documents(ref: TemplateRef) -> tuple[str, str]:
    return template_path(ref), approval_path(ref)


def _library_documents(library: Library) -> dict[str, bytes]:
    return {template_path(ref): data for ref, data in library.templates.items()} | {
        approval_path(ref): data for ref, data in library.approvals.items()
    }


def _library_code(domain: str, library: Library) -> dict[str, TargetFile]:
    return {
        path: TargetFile(length=length, hashes={"sha256": digest}, path=path)
        for digest, length in library.code.items()
        for path in (code_path(domain, digest),)
    }
