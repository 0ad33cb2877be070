"""The client workflow: what a node does with an offered generation before it believes a byte of it.

Steps, numbered as in ADR 4; in brackets the step of the TUF specification 1.0.31. Every step works on a scratch copy
and raises an error with its own reason; belief changes only in the last one, by being returned. A failed update leaves
the earlier belief in place, newer roots excepted: a node persists `verify_roots` at once.

T1   roots [5.3]: from the trusted one over every newer one, each signed by its predecessor's threshold and its own
T2   the newest root [5.3.10] has not expired; environment and mode are those of this installation; root and targets
     have no online key; this machine's clock is not behind what it believed before
T3   timestamp [5.4]: signed; not older than the one believed, nor the same number for another generation; not expired
T4   snapshot [5.5]: the file that timestamp names; signed; not older, not another state of the same generation; every
     role that was there before is still there; not expired
T5   targets [5.6]: the file that snapshot names; signed; not older; not expired; lists the charter and nothing else,
     delegates ``plan`` and one library per domain of the charter, each with its own paths
T6   charter: the target that targets lists; its version, environment and mode; no person has an online key
T7   lease: signed in the past, no longer than the charter allows
T8   plan and libraries [5.6.7]: the files that snapshot names; signed; not older; not expired
T9   plan.json: the target that its role lists; environment
T10  every template of the plan, and every image, by the one rule of `acceptance` on the documents that libraries list;
     code listed with the length that was approved
T11  nothing is in the bundle that was not verified
T12  trust: the new belief, with revocations that only grow

At boot from disk (design section 5, rule 6) T3 and T4 tolerate that timestamp and snapshot have expired, nothing else.
A role's high-water mark is forgotten only when a key of the role was taken away by the role above it, which needs that
role's signatures: this is the specification's recovery from a fast-forward attack [5.3.11].
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from templates.acceptance import (
    AcceptedTemplate,
    Material,
    WithdrawnError,
    accept_template,
    effective_revocations,
)
from templates.bundle import Bundle, BundleInvalidError
from templates.canonical import sha256_hex
from templates.charter import Charter, Mode, read_charter
from templates.names import TemplateRef
from templates.plan import Plan, read_plan
from templates.reasons import Reason
from templates.revocations import Revocations
from templates.signed_document import read_time
from templates.trusted_set_errors import (
    ClockBehindError,
    DevelopmentModeError,
    GenerationConflictError,
    GenerationRollbackError,
    LeaseTooLongError,
    MetadataExpiredError,
    MetadataInvalidError,
    MetadataMismatchError,
    MetadataMissingError,
    MetadataRollbackError,
    TargetMissingError,
    WrongEnvironmentError,
)
from templates.trusted_set_freshness import freshness, in_force, withdrawn_since
from templates.trusted_set_layout import (
    CHARTER_PATH,
    LIBRARY_PREFIX,
    PLAN_PATH,
    PLAN_ROLE,
    check_code_is_listed,
    check_delegations,
    delegated_names,
    read_document_path,
)
from templates.trusted_set_roles import (
    Role,
    check_metadata_file,
    check_not_expired,
    check_target_file,
    check_version,
    is_root_file,
    load,
    newest_root,
    online_keyids,
    role_of,
    trusted_root,
    verify,
)
from templates.trusted_set_values import (
    Accepted,
    Belief,
    Freshness,
    HighWaterMark,
    Installation,
    Lease,
    RoleMark,
    Withdrawn,
    read_belief,
)

__all__ = [
    "Accepted",
    "Belief",
    "Freshness",
    "HighWaterMark",
    "Installation",
    "Lease",
    "RoleMark",
    "Withdrawn",
    "accept",
    "accept_from_disk",
    "freshness",
    "in_force",
    "read_belief",
    "renew_lease",
    "verify_roots",
    "withdrawn_since",
]


def verify_roots(trusted: bytes, offered: Bundle) -> bytes:
    """Step T1: return the newest root that the trusted one leads to; persist it whatever becomes of the rest."""
    newest, _ = newest_root(trusted, offered.metadata)
    return newest


def accept(
    offered: Bundle, *, belief: Belief, installation: Installation, now: datetime, previous: Accepted | None = None
) -> Accepted:
    """Verify an offered generation whole, by steps T1 to T12.

    Args:
        offered: the bundle.
        belief: what this node keeps; its root may be older than those in the bundle. It is left as it was, the new one
            is in the result. The generation believed already may be offered again.
        installation: of this node.
        now: aware, UTC.
        previous: what this process accepted last, if anything: signatures over approvals that did not change, under a
            charter that did not change, are not verified twice.

    Raises:
        AgentFactoryError: a subclass with its own reason per rule; see ADR 4.
    """
    return _Update(
        offered, belief=belief, installation=installation, now=now, from_disk=False, previous=previous
    ).verified()


def accept_from_disk(stored: Bundle, *, belief: Belief, installation: Installation, now: datetime) -> Accepted:
    """Verify the stored generation again at boot: like `accept`, but lease and snapshot may have expired (rule 6).

    Ask `freshness` before anything runs.
    """
    return _Update(stored, belief=belief, installation=installation, now=now, from_disk=True).verified()


def renew_lease(accepted: Accepted, timestamp: bytes, *, installation: Installation, now: datetime) -> Accepted:
    """Verify a newer ``timestamp.json`` for the generation that is believed already (steps T2, T3 and T7).

    Raises:
        MetadataMismatchError: it is the lease of another generation; ask for the full state.
        MetadataExpiredError: it, or a role that it vouches for, has run out.
        AgentFactoryError: as `accept`.
    """
    mark = accepted.belief.mark
    if mark is None:
        raise MetadataMissingError("expected a generation that was believed, got none", role="snapshot")
    role = role_of(trusted_root(accepted.belief.root), "timestamp")
    signed = verify(role, load(Timestamp, timestamp, role="timestamp"))
    if signed.version < accepted.lease.version:
        raise MetadataRollbackError(role="timestamp", trusted=accepted.lease.version, offered=signed.version)
    meta = signed.snapshot_meta
    if meta.version != accepted.generation or (meta.hashes or {}).get("sha256") != mark.snapshot_sha256:
        raise MetadataMismatchError(
            f"expected the lease of generation {accepted.generation}, got one of {meta.version}", role="timestamp"
        )
    lease = _lease(signed, charter=accepted.charter, clock_skew_s=installation.clock_skew_s, now=now)
    for name, expires in {**accepted.expires, "timestamp": lease.expires}.items():
        if now >= expires:
            raise MetadataExpiredError(role=name, expires=expires, now=now)
    roles = {**mark.roles, "timestamp": RoleMark(version=lease.version, keyids=role.keyids)}
    return replace(
        accepted,
        lease=lease,
        expires={**accepted.expires, "timestamp": lease.expires},
        belief=replace(
            accepted.belief,
            mark=replace(mark, signed_at=max(mark.signed_at, lease.signed_at), roles=roles),
        ),
    )


class _Update:
    """The scratch copy of one update; `verified` is the only way out."""

    def __init__(
        self,
        offered: Bundle,
        *,
        belief: Belief,
        installation: Installation,
        now: datetime,
        from_disk: bool,
        previous: Accepted | None = None,
    ) -> None:
        self._metadata = offered.metadata
        self._targets = offered.targets
        self._belief = belief
        self._installation = installation
        self._now = now
        self._from_disk = from_disk
        self._previous = previous
        self._used = {f"targets/{CHARTER_PATH}", f"targets/{PLAN_PATH}", "metadata/timestamp.json"}
        self._marks: dict[str, RoleMark] = {}
        self._expires: dict[str, datetime] = {}

    def verified(self) -> Accepted:
        root_data, root = newest_root(self._belief.root, self._metadata)  # T1
        mode = self._check_root(root)  # T2
        forgotten = self._online_keys_were_taken_away(root)
        mark = self._belief.mark
        skew = timedelta(seconds=self._installation.clock_skew_s)
        if mark is not None and not forgotten and self._now < mark.signed_at - skew:
            raise ClockBehindError(signed_at=mark.signed_at, now=self._now)
        timestamp = self._timestamp(root, forgotten=forgotten)  # T3
        snapshot, snapshot_sha256 = self._snapshot(root, timestamp, forgotten=forgotten)  # T4
        targets = self._delegate(role_of(root, "targets"), snapshot)  # T5
        charter = self._charter(targets, root, mode=mode)  # T6
        lease = _lease(timestamp, charter=charter, clock_skew_s=self._installation.clock_skew_s, now=self._now)  # T7
        delegated = self._delegated(targets, charter, snapshot, forgotten=forgotten)  # T8
        plan = self._plan(delegated[PLAN_ROLE])  # T9
        known = self._belief.revocations.union(plan.revocations).union(charter.revocations)
        verified = self._known_from_before(charter, effective_revocations(charter, known))
        chosen, withdrawn = self._templates(  # T10
            plan, charter, delegated, effective_revocations(charter, known), verified
        )
        self._check_nothing_left(root)  # T11
        code = {
            blob.sha256: blob.length for each in chosen if each.resolved.code for blob in each.resolved.code.blobs()
        }
        return Accepted(  # T12
            generation=snapshot.version,
            node_id=self._installation.node_id,
            root_version=root.version,
            environment=charter.environment,
            mode=charter.mode,
            charter=charter,
            plan=plan,
            lease=lease,
            expires={"root": root.expires, **self._expires},
            templates={each.ref.template_name: each for each in chosen},
            withdrawn=withdrawn,
            verified=verified,
            code=code,
            belief=Belief(
                root=root_data,
                mark=HighWaterMark(
                    snapshot_sha256=snapshot_sha256,
                    signed_at=lease.signed_at if mark is None or forgotten else max(mark.signed_at, lease.signed_at),
                    roles={**(mark.roles if mark else {}), **self._marks},
                ),
                revocations=known,
            ),
        )

    def _check_root(self, root: Root) -> Mode:
        check_not_expired(root, role="root", now=self._now)
        environment, mode = root.unrecognized_fields.get("environment"), root.unrecognized_fields.get("mode")
        self._check_environment("root", str(environment))
        if mode not in tuple(Mode):
            raise MetadataInvalidError(f"expected a mode, {' or '.join(Mode)}, got {mode!r}", role="root")
        self._check_mode("root", Mode(mode))
        online = online_keyids(root)
        for name in ("root", "targets"):
            if role_of(root, name).keyids & online:
                raise MetadataInvalidError(f"expected offline keys for {name}, got an online one", role="root")
        return Mode(mode)

    def _check_environment(self, role: str, got: str) -> None:
        if got != self._installation.environment:
            raise WrongEnvironmentError(role=role, expected=self._installation.environment, got=got)

    def _check_mode(self, role: str, got: Mode) -> None:
        if self._installation.production and got is not Mode.PRODUCTION:
            raise DevelopmentModeError(f"expected mode production, as this node's, got {got}", role=role)

    def _online_keys_were_taken_away(self, root: Root) -> bool:
        """Fast-forward recovery [5.3.11]: a newer root without a key under which timestamp or snapshot was believed."""
        mark = self._belief.mark
        return mark is not None and any(
            not mark.roles[name].keyids <= role_of(root, name).keyids for name in ("timestamp", "snapshot")
        )

    def _floor(self, role: Role) -> int:
        """Return the version below which ``role`` must not fall."""
        mark = self._belief.mark.roles.get(role.name) if self._belief.mark else None
        return mark.version if mark is not None and mark.keyids <= role.keyids else 0

    def _believe(self, role: Role, signed: Timestamp | Snapshot | Targets) -> None:
        self._marks[role.name] = RoleMark(version=signed.version, keyids=role.keyids)
        self._expires[role.name] = signed.expires

    def _timestamp(self, root: Root, *, forgotten: bool) -> Timestamp:
        role = role_of(root, "timestamp")
        signed = verify(role, load(Timestamp, self._file("timestamp.json", role="timestamp"), role="timestamp"))
        floor = 0 if forgotten else self._floor(role)
        if signed.version < floor:
            raise MetadataRollbackError(role="timestamp", trusted=floor, offered=signed.version)
        mark = self._belief.mark
        if mark is not None and signed.version == floor and signed.snapshot_meta.version > mark.generation:
            raise MetadataMismatchError(
                f"expected version {floor} to name generation {mark.generation}, as before, "
                f"got {signed.snapshot_meta.version}",
                role="timestamp",
            )
        if not self._from_disk:
            check_not_expired(signed, role="timestamp", now=self._now)
        self._believe(role, signed)
        return signed

    def _snapshot(self, root: Root, timestamp: Timestamp, *, forgotten: bool) -> tuple[Snapshot, str]:
        role, meta = role_of(root, "snapshot"), timestamp.snapshot_meta
        floor = 0 if forgotten else self._floor(role)
        if meta.version < floor:
            raise GenerationRollbackError(trusted=floor, offered=meta.version)
        data = self._file(f"{meta.version}.snapshot.json", role="snapshot")
        check_metadata_file(meta, data, role="snapshot")
        signed = verify(role, load(Snapshot, data, role="snapshot"))
        check_version(signed, meta, role="snapshot")
        digest, mark = sha256_hex(data), self._belief.mark
        if mark is not None and not forgotten:
            if signed.version == floor and digest != mark.snapshot_sha256:
                raise GenerationConflictError(generation=floor, trusted=mark.snapshot_sha256, offered=digest)
            for name in sorted(mark.roles.keys() - {"timestamp", "snapshot"}):
                if f"{name}.json" not in signed.meta:
                    raise MetadataMissingError("expected in the snapshot, as in the one before, got nothing", role=name)
        if not self._from_disk:
            check_not_expired(signed, role="snapshot", now=self._now)
        self._believe(role, signed)
        return signed, digest

    def _delegate(self, role: Role, snapshot: Snapshot) -> Targets:
        """Read one role of targets that ``snapshot`` names: T5 and T8."""
        meta = snapshot.meta.get(f"{role.name}.json")
        if meta is None:
            raise MetadataMissingError("expected in the snapshot, got nothing", role=role.name)
        floor = self._floor(role)
        if meta.version < floor:
            raise MetadataRollbackError(role=role.name, trusted=floor, offered=meta.version)
        data = self._file(f"{meta.version}.{role.name}.json", role=role.name)
        check_metadata_file(meta, data, role=role.name)
        signed = verify(role, load(Targets, data, role=role.name))
        check_version(signed, meta, role=role.name)
        check_not_expired(signed, role=role.name, now=self._now)
        self._believe(role, signed)
        return signed

    def _charter(self, targets: Targets, root: Root, *, mode: Mode) -> Charter:
        if set(targets.targets) != {CHARTER_PATH}:
            raise MetadataInvalidError(
                f"expected {CHARTER_PATH} alone, got {sorted(targets.targets)[:5]}", role="targets"
            )
        charter = read_charter(self._target(CHARTER_PATH, targets, role="targets"))
        if charter.version != targets.version:
            raise MetadataMismatchError(
                f"expected the charter's version to be {targets.version}, got {charter.version}", role="targets"
            )
        self._check_environment("charter", charter.environment)
        self._check_mode("charter", charter.mode)
        if charter.mode is not mode:
            raise MetadataMismatchError(
                f"expected the charter in the root's mode {mode}, got {charter.mode}", role="targets"
            )
        check_delegations(targets, charter)
        online = online_keyids(root).union(*(role_of(targets, name).keyids for name in delegated_names(charter)))
        for person, keys in charter.persons.items():
            if keys.keys() & online:
                raise MetadataInvalidError(f"expected keys of its own for {person}, got an online one", role="targets")
        return charter

    def _delegated(
        self, targets: Targets, charter: Charter, snapshot: Snapshot, *, forgotten: bool
    ) -> Mapping[str, Targets]:
        verified = {}
        for name in delegated_names(charter):
            role = role_of(targets, name)
            signed = self._delegate(role, snapshot)
            if signed.delegations is not None:
                raise MetadataInvalidError("expected no further delegation, got one", role=name)
            verified[name] = signed
        marks = self._belief.mark.roles if self._belief.mark and not forgotten else {}
        for name in sorted(marks.keys() - self._marks.keys()):  # libraries of domains that the charter has dropped
            if snapshot.meta[f"{name}.json"].version < marks[name].version:
                raise MetadataRollbackError(
                    role=name, trusted=marks[name].version, offered=snapshot.meta[f"{name}.json"].version
                )
        return verified

    def _plan(self, signed: Targets) -> Plan:
        plan = read_plan(self._target(PLAN_PATH, signed, role=PLAN_ROLE))
        self._check_environment(PLAN_ROLE, plan.environment)
        return plan

    def _known_from_before(self, charter: Charter, revocations: Revocations) -> dict[TemplateRef, AcceptedTemplate]:
        """Return what was accepted under the same charter, while the same reviewers were revoked."""
        before = self._previous
        if before is None or before.charter != charter:
            return {}
        revoked = effective_revocations(before.charter, before.belief.revocations)
        return dict(before.verified) if revoked.reviewers == revocations.reviewers else {}

    def _templates(
        self,
        plan: Plan,
        charter: Charter,
        delegated: Mapping[str, Targets],
        revocations: Revocations,
        verified: dict[TemplateRef, AcceptedTemplate],
    ) -> tuple[tuple[AcceptedTemplate, ...], tuple[Withdrawn, ...]]:
        """Accept every entry; ``verified`` becomes what was accepted, images included."""
        materials = self._materials(delegated)
        node = self._installation.node_id
        here = {entry.template for entry in plan.for_node(node)}
        chosen: list[AcceptedTemplate] = []
        withdrawn: list[Withdrawn] = []
        for entry in plan.entries:
            try:
                accepted = accept_template(
                    entry, materials, charter=charter, revocations=revocations, now=self._now, earlier=verified
                )
            except WithdrawnError as error:
                withdrawn.append(Withdrawn(template=entry.template, reason=error.reason, message=error.message))
                continue
            verified[entry.template] = accepted
            if accepted.image is not None:
                verified[accepted.image.ref] = accepted.image
            check_code_is_listed(accepted, delegated)
            if entry.template in here and accepted.is_runnable:
                chosen.append(accepted)
        for ref in verified.keys() - materials.keys():
            del verified[ref]
        if node in revocations.nodes:
            message = f"expected a node that is not revoked, got {node}"
            revoked = [Withdrawn(template=each.ref, reason=Reason.NODE_REVOKED, message=message) for each in chosen]
            return (), (*withdrawn, *revoked)
        return tuple(chosen), tuple(withdrawn)

    def _materials(self, delegated: Mapping[str, Targets]) -> Mapping[TemplateRef, Material]:
        """Return every document in the bundle that the library of its domain lists."""
        resolved: dict[TemplateRef, bytes] = {}
        approvals: dict[TemplateRef, bytes] = {}
        for path in self._targets:
            document = read_document_path(path)
            role = f"{LIBRARY_PREFIX}{document[0].domain}" if document else ""
            if document is None or role not in delegated:
                continue  # T11 refuses it
            ref, is_approval = document
            (approvals if is_approval else resolved)[ref] = self._target(path, delegated[role], role=role)
        return {ref: Material(resolved=data, approval=approvals.get(ref)) for ref, data in resolved.items()}

    def _check_nothing_left(self, root: Root) -> None:
        for name in self._metadata:
            if is_root_file(name) and int(name.partition(".")[0]) <= root.version:
                self._used.add(f"metadata/{name}")
        files = {f"metadata/{name}" for name in self._metadata} | {f"targets/{path}" for path in self._targets}
        if left := sorted(files - self._used):
            raise BundleInvalidError(f"expected only files that signed metadata lists, got {left[0]!r}")

    def _file(self, name: str, *, role: str) -> bytes:
        data = self._metadata.get(name)
        if data is None:
            raise MetadataMissingError(f"expected {name} in the bundle, got none", role=role)
        self._used.add(f"metadata/{name}")
        return data

    def _target(self, path: str, signed: Targets, *, role: str) -> bytes:
        info, data = signed.targets.get(path), self._targets.get(path)
        if info is None or data is None:
            where = "listed" if info is None else "in the bundle"
            raise TargetMissingError(f"expected {path} {where}, got nothing", role=role)
        check_target_file(info, data, role=role)
        self._used.add(f"targets/{path}")
        return data


def _lease(signed: Timestamp, *, charter: Charter, clock_skew_s: int, now: datetime) -> Lease:
    """Step T7."""
    try:
        signed_at = read_time(str(signed.unrecognized_fields.get("signed_at")))
    except ValueError as error:
        raise MetadataInvalidError(f"expected signed_at, got: {error}", role="timestamp") from None
    if signed_at > now + timedelta(seconds=clock_skew_s):
        raise ClockBehindError(signed_at=signed_at, now=now)
    length_s = int((signed.expires - signed_at).total_seconds())
    if length_s > charter.lease_s_max:
        raise LeaseTooLongError(most_s=charter.lease_s_max, got_s=length_s)
    return Lease(version=signed.version, signed_at=signed_at, expires=signed.expires)
