"""One bundle that is wrong in one way, and the one reason for which a node refuses it: the table of the workflow."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from templates.bundle import Bundle
from templates.canonical import canonical_bytes
from templates.charter import Mode
from templates.plan import Plan
from templates.reasons import Reason
from templates.trusted_set import (
    Belief,
)
from tests.trust_forgery import (
    COMPACT,
    TOO_LONG,
    first_replaced,
    forged,
    offer,
    replaced,
    without,
)
from tests.trust_world import (
    AGENT_REF,
    ENVIRONMENT,
    NOW,
    charter,
    entry,
    role_keys,
    root,
    signer,
    targets,
    template,
)

Offer = Callable[[], tuple[Bundle, Belief]]


def _edit(change: Callable[[Bundle], Bundle]) -> Offer:
    def build() -> tuple[Bundle, Belief]:
        bundle, belief = offer()
        return change(bundle), belief

    return build


def _forge(role: str, change: Callable[[Any], None] = lambda _: None, **how: Any) -> Offer:
    return _edit(lambda bundle: forged(bundle, role, change, **how))


def _set(name: str, value: Any) -> Callable[[Any], None]:
    return lambda signed: setattr(signed, name, value)


def _signed_field(name: str, value: Any) -> Callable[[Any], None]:
    return lambda signed: signed.unrecognized_fields.update({name: value})


def _drop_code(signed: Targets) -> None:
    signed.targets = {path: info for path, info in signed.targets.items() if "/code/" not in path}


def _shorten_code(signed: Targets) -> None:
    for path, info in signed.targets.items():
        if "/code/" in path:
            info.length += 1


def _sha512_only(signed: Targets) -> None:
    data = charter().to_bytes()
    signed.targets["charter.json"] = TargetFile.from_data("charter.json", data, ["sha512"])


def _drop_hash(signed: Snapshot) -> None:
    signed.meta["plan.json"].hashes = None


def _with_target(path: str) -> Callable[[Targets], None]:
    def change(signed: Targets) -> None:
        signed.targets[path] = TargetFile.from_data(path, b"x", ["sha256"])

    return change


def _rename_delegation(signed: Targets) -> None:
    assert signed.delegations is not None
    assert signed.delegations.roles is not None
    signed.delegations.roles["library-docs"].paths = ["*/templates/*", "docs/approvals/*", "docs/code/*"]


def _drop_delegation(signed: Targets) -> None:
    assert signed.delegations is not None
    assert signed.delegations.roles is not None
    del signed.delegations.roles["library-images"]


def _delegate_further(signed: Targets) -> None:
    signed.delegations = Metadata[Targets].from_bytes(targets(charter())).signed.delegations


def _other_charter(**changes: Any) -> Offer:
    """Sign a charter offline whose bytes the writer would not make."""

    def build() -> tuple[Bundle, Belief]:
        bundle, belief = offer()
        value = {**json.loads(charter().to_bytes()), **changes}
        data = canonical_bytes(value)

        def change(signed: Targets) -> None:
            signed.targets["charter.json"] = TargetFile.from_data("charter.json", data, ["sha256"])

        return forged(replaced(bundle, "charter.json$", lambda _: data), "targets", change), belief

    return build


def _root_without_a_key() -> bytes:
    metadata: Metadata[Root] = Metadata.from_bytes(root(version=2))
    del metadata.signed.keys[signer("timestamp").public_key.keyid]
    metadata.sign(signer("root-a"))
    metadata.sign(signer("root-b"), append=True)
    return metadata.to_bytes(COMPACT)


def _renumbered_snapshot(bundle: Bundle) -> Bundle:
    def change(signed: Timestamp) -> None:
        signed.snapshot_meta.version = 2

    files = {path.replace("1.snapshot.json", "2.snapshot.json"): data for path, data in bundle.files.items()}
    return forged(Bundle(files=files), "timestamp", change)


def _renumbered_plan(bundle: Bundle) -> Bundle:
    def change(signed: Snapshot) -> None:
        signed.meta["plan.json"].version = 2

    files = {path.replace("1.plan.json", "2.plan.json"): data for path, data in bundle.files.items()}
    return forged(Bundle(files=files), "snapshot", change)


def _other_plan(data: bytes) -> Offer:
    def change(signed: Targets) -> None:
        signed.targets["plan.json"] = TargetFile.from_data("plan.json", data, ["sha256"])

    return _edit(lambda bundle: forged(replaced(bundle, "targets/plan.json", lambda _: data), "plan", change))


def _roots(*more: bytes, **changes: Any) -> Offer:
    return lambda: offer(roots=[root(), *more], **changes)


def _duplicate_version(data: bytes) -> bytes:
    return first_replaced(data, b'"version":1', b'"version":1,"version":1')


SECRET_ROOT = root("root-c", "root-d", version=2, root=role_keys("root-c", "root-d", threshold=2))

REFUSALS: dict[str, tuple[Reason, Offer]] = {
    # T1, T2
    "a root that its predecessor did not sign": (Reason.METADATA_UNDER_THRESHOLD, _roots(SECRET_ROOT)),
    "a root signed by one of two": (Reason.METADATA_UNDER_THRESHOLD, _roots(root("root-a", version=2))),
    "a root signed twice by one": (Reason.METADATA_UNDER_THRESHOLD, _roots(root("root-a", "root-a", version=2))),
    "a root that does not sign itself": (
        Reason.METADATA_UNDER_THRESHOLD,
        _roots(root("root-a", "root-b", version=2, root=role_keys("root-c", "root-d", threshold=2))),
    ),
    "a root under another number": (Reason.METADATA_MISMATCH, _roots(root(version=3))),
    "a root that has run out": (Reason.METADATA_EXPIRED, _roots(root(version=2, expires=NOW))),
    "a root of another environment": (Reason.WRONG_ENVIRONMENT, _roots(root(version=2, environment="staging"))),
    "a development root": (Reason.DEVELOPMENT_MODE, _roots(root(version=2, mode=Mode.DEVELOPMENT))),
    "a root in no mode": (Reason.METADATA_INVALID, _roots(root(version=2, mode="loose"))),
    "a root with a duplicate key": (
        Reason.METADATA_INVALID,
        _roots(first_replaced(root(version=2), b'"_type":"root"', b'"_type":"root","_type":"root"')),
    ),
    "a root that is no JSON": (Reason.METADATA_INVALID, _roots(b"{")),
    "a root of the wrong type": (Reason.METADATA_INVALID, _roots(targets(charter()))),
    "a root beyond the cap": (Reason.METADATA_INVALID, _roots(b" " * 600_000)),
    "a threshold out of reach": (
        Reason.METADATA_INVALID,
        _roots(root(version=2, timestamp=role_keys("timestamp", threshold=2))),
    ),
    "a root whose version is no number": (
        Reason.METADATA_INVALID,
        _roots(first_replaced(root(version=2), b'"version":2', b'"version":true')),
    ),
    "a root whose charter's key is online": (
        Reason.METADATA_INVALID,
        _roots(root(version=2, targets=role_keys("timestamp"))),
    ),
    "a root with its own key online": (
        Reason.METADATA_INVALID,
        _roots(root(version=2, snapshot=role_keys("snapshot", "root-a"))),
    ),
    "a root that names a key and does not have it": (Reason.METADATA_MISSING, _roots(_root_without_a_key())),
    # T3
    "a timestamp with a fraction": (
        Reason.METADATA_INVALID,
        _forge("timestamp", raw=lambda data: first_replaced(data, b'"signed_at"', b'"half":0.5,"signed_at"')),
    ),
    "a timestamp that names nothing": (
        Reason.METADATA_INVALID,
        _forge("timestamp", raw=lambda data: first_replaced(data, b'"meta"', b'"atem"')),
    ),
    "no timestamp": (Reason.METADATA_MISSING, _edit(lambda bundle: without(bundle, "timestamp"))),
    "a timestamp signed by a stranger": (Reason.METADATA_UNDER_THRESHOLD, _forge("timestamp", by=("mallory",))),
    "a timestamp signed by the snapshot key": (Reason.METADATA_UNDER_THRESHOLD, _forge("timestamp", by=("snapshot",))),
    "a timestamp without signatures": (Reason.METADATA_UNDER_THRESHOLD, _forge("timestamp", by=())),
    "a timestamp that has run out": (Reason.METADATA_EXPIRED, _forge("timestamp", _set("expires", NOW))),
    "a timestamp with a duplicate key": (Reason.METADATA_INVALID, _forge("timestamp", raw=_duplicate_version)),
    "a timestamp with a byte order mark": (
        Reason.METADATA_INVALID,
        _forge("timestamp", raw=lambda data: b"\xef\xbb\xbf" + data),
    ),
    "a timestamp with trailing data": (Reason.METADATA_INVALID, _forge("timestamp", raw=lambda data: data + b"{}")),
    "a timestamp beyond the cap": (Reason.METADATA_INVALID, _forge("timestamp", raw=lambda data: data + b" " * 20_000)),
    "a timestamp with unsigned fields": (
        Reason.METADATA_INVALID,
        _forge("timestamp", raw=lambda data: data[:-1] + b',"more":1}'),
    ),
    "a snapshot for a timestamp": (
        Reason.METADATA_INVALID,
        _edit(lambda bundle: replaced(bundle, "timestamp", lambda _: bundle.metadata["1.snapshot.json"])),
    ),
    # T4
    "no snapshot": (Reason.METADATA_MISSING, _edit(lambda bundle: without(bundle, "snapshot"))),
    "a snapshot signed by the timestamp key": (Reason.METADATA_UNDER_THRESHOLD, _forge("snapshot", by=("timestamp",))),
    "a snapshot that has run out": (Reason.METADATA_EXPIRED, _forge("snapshot", _set("expires", NOW))),
    "another snapshot than the timestamp names": (
        Reason.METADATA_MISMATCH,
        _edit(lambda bundle: replaced(bundle, "snapshot", lambda data: data + b" ")),
    ),
    "a timestamp that names no hash": (
        Reason.METADATA_INVALID,
        _forge("timestamp", lambda signed: setattr(signed.snapshot_meta, "hashes", None)),
    ),
    "a timestamp that names no length": (
        Reason.METADATA_INVALID,
        _forge("timestamp", lambda signed: setattr(signed.snapshot_meta, "length", None)),
    ),
    "a snapshot of another version than the timestamp says": (Reason.METADATA_MISMATCH, _edit(_renumbered_snapshot)),
    "a snapshot of another version": (
        Reason.METADATA_MISSING,
        _forge("timestamp", lambda signed: setattr(signed.snapshot_meta, "version", 2)),
    ),
    # T5
    "no targets": (Reason.METADATA_MISSING, _edit(lambda bundle: without(bundle, "targets.json"))),
    "targets signed by every online key": (
        Reason.METADATA_UNDER_THRESHOLD,
        _forge("targets", by=("snapshot", "timestamp", "plan", "library")),
    ),
    "targets that have run out": (Reason.METADATA_EXPIRED, _forge("targets", _set("expires", NOW))),
    "targets that list more than the charter": (Reason.METADATA_INVALID, _forge("targets", _with_target("plan.json"))),
    "targets that let a library list other domains": (Reason.METADATA_INVALID, _forge("targets", _rename_delegation)),
    "targets without a library": (Reason.METADATA_INVALID, _forge("targets", _drop_delegation)),
    "targets without delegations": (Reason.METADATA_INVALID, _forge("targets", _set("delegations", None))),
    "targets that the snapshot does not list": (
        Reason.METADATA_MISSING,
        _forge("snapshot", lambda signed: signed.meta.pop("targets.json")),
    ),
    # T6
    "no charter": (Reason.TARGET_MISSING, _edit(lambda bundle: without(bundle, "charter.json"))),
    "another charter": (
        Reason.TARGET_MISMATCH,
        _edit(lambda bundle: replaced(bundle, "charter.json", lambda _: charter(lease_s_max=7200).to_bytes())),
    ),
    "a charter without SHA-256": (Reason.METADATA_INVALID, _forge("targets", _sha512_only)),
    "a charter of another version": (Reason.METADATA_MISMATCH, _other_charter(version=2)),
    "a charter of another environment": (Reason.WRONG_ENVIRONMENT, _other_charter(environment="staging")),
    "a development charter under a production root": (Reason.DEVELOPMENT_MODE, _other_charter(mode="development")),
    "a charter that contradicts itself": (Reason.CHARTER_INVALID, _other_charter(staleness_s_max=1)),
    "a reviewer whose key is the plan's": (
        Reason.METADATA_INVALID,
        lambda: offer(targets=targets(charter(), plan=role_keys("plan", "alice"))),
    ),
    "a reviewer whose key is the timestamp's": (
        Reason.METADATA_INVALID,
        lambda: offer(roots=[root(timestamp=role_keys("timestamp", "alice"))]),
    ),
    # T7
    "a lease longer than the charter allows": (Reason.LEASE_TOO_LONG, lambda: offer(validity=TOO_LONG)),
    "a lease from the future": (
        Reason.CLOCK_BEHIND,
        _forge("timestamp", _signed_field("signed_at", "2030-01-01T12:01:01Z")),
    ),
    "a lease that does not say when it was signed": (
        Reason.METADATA_INVALID,
        _forge("timestamp", lambda signed: signed.unrecognized_fields.clear()),
    ),
    "a lease signed at no time": (
        Reason.METADATA_INVALID,
        _forge("timestamp", _signed_field("signed_at", "yesterday")),
    ),
    # T8
    "a plan signed by the library key": (Reason.METADATA_UNDER_THRESHOLD, _forge("plan", by=("library",))),
    "a library signed by the plan key": (Reason.METADATA_UNDER_THRESHOLD, _forge("library-docs", by=("plan",))),
    "a plan that has run out": (Reason.METADATA_EXPIRED, _forge("plan", _set("expires", NOW))),
    "a library that has run out": (Reason.METADATA_EXPIRED, _forge("library-docs", _set("expires", NOW))),
    "another plan than the snapshot names": (
        Reason.METADATA_MISMATCH,
        _edit(lambda bundle: replaced(bundle, "metadata/1.plan", lambda data: data + b" ")),
    ),
    "a plan without a hash in the snapshot": (Reason.METADATA_INVALID, _forge("snapshot", _drop_hash)),
    "a plan that the snapshot does not list": (
        Reason.METADATA_MISSING,
        _forge("snapshot", lambda signed: signed.meta.pop("plan.json")),
    ),
    "a library that the snapshot does not list": (
        Reason.METADATA_MISSING,
        _forge("snapshot", lambda signed: signed.meta.pop("library-docs.json")),
    ),
    "a library that delegates further": (Reason.METADATA_INVALID, _forge("library-docs", _delegate_further)),
    "a library with a duplicate key": (Reason.METADATA_INVALID, _forge("library-docs", raw=_duplicate_version)),
    "a plan of another version than the snapshot says": (Reason.METADATA_MISMATCH, _edit(_renumbered_plan)),
    # T9
    "no plan.json": (Reason.TARGET_MISSING, _edit(lambda bundle: without(bundle, "targets/plan.json"))),
    "a plan.json that is not listed": (Reason.TARGET_MISSING, _forge("plan", lambda signed: signed.targets.clear())),
    "another plan.json": (
        Reason.TARGET_MISMATCH,
        _edit(lambda bundle: replaced(bundle, "targets/plan.json", lambda data: data + b" ")),
    ),
    "a plan.json of another environment": (
        Reason.WRONG_ENVIRONMENT,
        lambda: offer(plan=Plan(environment="staging", entries=())),
    ),
    "a plan.json that is none": (Reason.PLAN_INVALID, _other_plan(b"{}")),
    # T10
    "a template that is not in the bundle": (
        Reason.TARGET_MISSING,
        _edit(lambda bundle: without(bundle, "templates/hardware")),
    ),
    "another template than the library lists": (
        Reason.TARGET_MISMATCH,
        _edit(lambda bundle: replaced(bundle, "templates/hardware", lambda data: data + b" ")),
    ),
    "an approval that is not in the bundle": (
        Reason.APPROVAL_MISSING,
        _edit(lambda bundle: without(bundle, "approvals/hardware")),
    ),
    "code that the library does not list": (Reason.CODE_UNLISTED, _forge("library-docs", _drop_code)),
    "code that the library lists with another length": (Reason.CODE_UNLISTED, _forge("library-docs", _shorten_code)),
    "an image's code that its library does not list": (Reason.CODE_UNLISTED, _forge("library-images", _drop_code)),
    "a template of a domain without a charter": (
        Reason.DOMAIN_UNKNOWN,
        lambda: offer(
            plan=Plan(environment=ENVIRONMENT, entries=(entry(template(replace(AGENT_REF, domain="other"))),))
        ),
    ),
    # T11
    "a document that no role lists": (
        Reason.TARGET_MISSING,
        _edit(lambda bundle: Bundle(files={**bundle.files, "targets/docs/templates/stray@1.0.0.json": b"{}"})),
    ),
    "a document of a domain without a library": (
        Reason.BUNDLE_INVALID,
        _edit(lambda bundle: Bundle(files={**bundle.files, "targets/other/templates/aa@1.0.0.json": b"{}"})),
    ),
    "a stray target": (
        Reason.BUNDLE_INVALID,
        _edit(lambda bundle: Bundle(files={**bundle.files, "targets/stray.json": b"{}"})),
    ),
    "stray metadata": (
        Reason.BUNDLE_INVALID,
        _edit(lambda bundle: Bundle(files={**bundle.files, "metadata/9.plan.json": b"{}"})),
    ),
    "a root out of line": (
        Reason.BUNDLE_INVALID,
        _edit(lambda bundle: Bundle(files={**bundle.files, "metadata/9.root.json": b"{}"})),
    ),
}
