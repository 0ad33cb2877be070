"""What a reviewer relies on: a change fetched, checked, derived and compared on the reviewer's own machine.

The control plane's words count for nothing here but one, the approval's expiry date, which is shown and bounded by the
charter and this machine's clock: everything else that is signed is derived again from bytes whose digests were computed
on this machine. What a change is compared with is a version that the charter's reviewers approved and that the signed
plan names; what it can do through other agents is derived from the generation that this machine verified.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.active_templates import fetch_active
from client.admission import Opinion, as_policies, fetch_standing, opinion_of
from client.inspection_cache import InspectionCache
from templates.acceptance import effective_revocations, tally
from templates.approval import Envelope, Statement, read_envelope
from templates.approval import sign as sign_payload
from templates.capabilities import Capabilities, ModuleReport, derive
from templates.charter import Charter, read_charter
from templates.comparison import Direction, Entry, difference, grant_entries
from templates.document import read_template
from templates.fleets import fleets
from templates.grants import NO_GRANTS
from templates.inheritance import resolve
from templates.policies.policy_set import POLICIES_DOMAIN
from templates.reach import Caller, Reached, ThroughAgents, through_agents
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import PinnedModule, PinnedSource, ResolvedTemplate, read_resolved
from templates.source_archive import source_text
from templates.trusted_set import Accepted

if TYPE_CHECKING:
    import grpc
    from agentfactory.admin.v1 import admin_pb2

FETCH_TIMEOUT_S = 300.0
BLOBS_BYTES_MAX = 256 << 20
CLOCK_ALLOWANCE = timedelta(days=1)
_RIGHTS = frozenset({"schema", "version", "code", "grants", "limits", "callers", "on_lease_expiry"})
"""Members of a template that its capabilities show, or its reference does."""


class ReviewMismatchError(AgentFactoryError):
    """What the control plane says of a change is not what this machine derives from its bytes."""

    reason = Reason.REVIEW_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A change as this machine sees it; ``payload`` is what an approval signs."""

    name: str
    resolved: ResolvedTemplate
    statement: Statement
    payload: bytes
    capabilities: Capabilities
    active: ResolvedTemplate | None
    entries: Sequence[Entry]
    through: ThroughAgents
    source_diff: str
    document_diff: str
    warnings: Sequence[str] = ()
    admission: Opinion | None = None
    """What the admission policies say, asked on this machine; None for a change of the policies themselves."""

    @property
    def widens(self) -> bool:
        """Whether the change may do anything that the active version may not, itself or through agents."""
        return self.through.widens or any(entry.direction is Direction.WIDENED for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        return {
            "change": self.name,
            "template": str(self.resolved.ref),
            "sha256": self.resolved.digest,
            "author": self.resolved.author,
            "environment": self.statement.environment,
            "approval_expires": self.statement.expires.isoformat(),
            "active": str(self.active.ref) if self.active else None,
            "capabilities": self.capabilities.to_json(),
            "differences": [_entry_json(one) for one in self.entries if one.direction is not Direction.SAME],
            "through_agents": [_reached_json(one) for one in self.through.reached],
            "differences_through_agents": [_entry_json(one) for one in self.through.entries],
            "reached_by": [_caller_json(one) for one in self.through.callers],
            "widens": self.widens,
            "warnings": list(self.warnings),
            "admission": self.admission.to_json() if self.admission else None,
            "source_diff": self.source_diff,
            "document_diff": self.document_diff,
        }

    def describe(self) -> str:
        """Return the change as text: what it can do first, then what it changes."""
        lines = [
            f"{self.name}: {self.resolved.ref} by {self.resolved.author}",
            f"  digest       {self.resolved.digest}",
            f"  environment  {self.statement.environment}",
            f"  approval     until {self.statement.expires:%Y-%m-%d}",
            f"  compared to  {self.active.ref if self.active else 'nothing: no version is active'}",
            "",
            "What it can do, derived on this machine:",
            *_rights(self.entries),
            *_reach_lines(self.through.reached),
            "",
            "What changes:",
        ]
        changed = [one for one in self.entries if one.direction is not Direction.SAME] if self.active else []
        lines += map(_change_line, changed)
        if not self.active:
            lines.append("  everything above is new")
        elif not changed:
            lines.append("  nothing that it may do")
        if self.active and self.through.entries:
            lines += ["", "What changes through agents:", *map(_change_line, self.through.entries)]
        lines += _caller_lines(self.through.callers, widens=self.widens)
        if self.warnings:
            lines += [
                "",
                "What will not work under the charter of this machine:",
                *(f"  {one}" for one in self.warnings),
            ]
        lines += self.admission.lines() if self.admission else []
        if self.document_diff:
            lines += ["", "Document, besides its rights:", self.document_diff.rstrip("\n")]
        if self.source_diff:
            lines += ["", "Source:", self.source_diff.rstrip("\n")]
        return "\n".join(lines)


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {"direction": str(entry.direction), "subject": entry.subject, "old": entry.old, "new": entry.new}


def _reached_json(reached: Reached) -> dict[str, Any]:
    via = [str(each) for each in reached.via]
    return {
        "template": str(reached.template),
        "via": via,
        "depth": reached.depth,
        "grants": reached.grants.to_json(),
    }


def _caller_json(caller: Caller) -> dict[str, Any]:
    return {"template": str(caller.template), "via": [str(each) for each in caller.via], "new": caller.is_new}


def _reach_lines(reached: Sequence[Reached]) -> Iterator[str]:
    """What others may do for it: each template with its own grants, which stay its own."""
    if reached:
        yield ""
        yield "What it can do through agents, by the verified generation:"
    for one in reached:
        yield f"  {one.template}, {_via(one)}"
        rights = [entry for entry in grant_entries(NO_GRANTS, one.grants) if entry.new]
        yield from (f"    {_subject(entry):32} {entry.new}" for entry in rights)
        if not rights:
            yield "    nothing but compute"


def _caller_lines(callers: Sequence[Caller], *, widens: bool) -> Iterator[str]:
    if callers:
        yield ""
        yield f"{'Who gains by it' if widens else 'Who can invoke it'}, active templates that reach it:"
    for one in callers:
        yield f"  {one.template}, {_via(one)}{', not before' if one.is_new else ''}"


def _via(one: Reached | Caller) -> str:
    return f"via {', '.join(str(each) for each in one.via)}" if one.via else "directly"


def _change_line(entry: Entry) -> str:
    return f"  {entry.direction:9} {_subject(entry)}: {entry.old or '-'} → {entry.new or '-'}"


def _subject(entry: Entry) -> str:
    return entry.subject.lstrip("/").replace("~1", "/").replace("~0", "~")


def _rights(entries: Sequence[Entry]) -> Iterator[str]:
    """One line for each right; what an image imports is fixed and reviewed with it, so that it takes one line."""
    imports = [one.new for one in entries if one.subject.startswith("/imports/") and one.new]
    interfaces = [one.new for one in entries if one.subject.startswith("/interfaces/") and one.new]
    for one in entries:
        if one.new and not one.subject.startswith(("/imports/", "/interfaces/")):
            yield f"  {_subject(one):34} {one.new}"
    for interface in interfaces:
        yield f"  {'interface':34} {interface}"
    if imports:
        packages = sorted({name.partition("/")[0].partition(".")[0] for name in imports})
        yield f"  {'imports':34} {len(imports)} interfaces of {', '.join(packages)} (-o json lists them)"


def review(channel: "grpc.Channel", name: str, *, trust_directory: Path, cache: Path, person: str = "") -> Review:
    """Fetch the change ``name`` and derive everything about it.

    Args:
        channel: to the control plane.
        name: ``changes/<number>``.
        trust_directory: this reviewer's own copies of the charter and of the root of trust.
        cache: private directory of this machine for what it inspected, and the newest policies that it has seen.
        person: who is about to approve; the admission policies are asked about this person, too.

    Raises:
        ReviewMismatchError: bytes, parents, image or statement are not what they are said to be.
        AgentFactoryError: the present generation is not one to believe (`templates.trusted_set.accept`).
        RemoteError: the control plane refused or could not be reached.
    """
    charter = read_charter((trust_directory / "charter.json").read_bytes())
    reports = InspectionCache(cache)
    header, blobs = _fetch(channel, name, held=reports.digests())
    now = datetime.now(UTC)  # noqa: TID251 - the reviewer's own clock, which nobody else can set
    present = fetch_active(channel, charter=charter, trust_directory=trust_directory, now=now)
    found = derive_review(name, header, blobs, present=present, charter=charter, reports=reports, now=now)
    standing = fetch_standing(channel, charter=charter, present=present, memory=cache, now=now)
    if found.resolved.ref.domain == POLICIES_DOMAIN:
        entries, diff = as_policies(found.resolved, standing)
        return replace(found, entries=entries, source_diff=diff, document_diff="")
    opinion = opinion_of(
        found.resolved,
        found.capabilities,
        standing,
        differences=found.entries,
        through=found.through,
        is_new=found.active is None,
        charter=charter,
        payload=found.payload,
        person=person,
        approvers=frozenset(header.change.approvers),
        now=now,
    )
    return replace(found, admission=opinion)


def derive_review(
    name: str,
    header: "admin_pb2.ChangeHeader",
    blobs: Mapping[str, bytes],
    *,
    present: Accepted,
    charter: Charter,
    reports: InspectionCache,
    now: datetime,
) -> Review:
    """Derive everything about a change from what the control plane sent; ``blobs`` are by their own digests.

    ``present`` is the generation that is active, verified on this machine.

    Raises:
        ReviewMismatchError: as `review`.
    """
    resolved = read_resolved(header.resolved)
    _check_resolution(header, resolved)
    image = read_resolved(header.image) if header.image else None
    capabilities = _derive(resolved, image, blobs, reports)
    statement = _statement(header, resolved, capabilities, charter, now=now)
    payload = statement.to_payload()
    if payload != header.change.statement:
        raise ReviewMismatchError(
            f"expected the statement that this machine derives from {resolved.digest}, got another"
        )
    active = read_resolved(header.active) if header.active else None
    if active is not None:
        _require_approved(active, resolved, header.active_approval, charter)
    _require_planned(active, resolved, present)
    active_image = read_resolved(header.active_image) if header.active_image else None
    old = _derive(active, active_image, blobs, reports) if active else None
    return Review(
        name=name,
        resolved=resolved,
        statement=statement,
        payload=payload,
        capabilities=capabilities,
        active=active,
        entries=difference(old, capabilities),
        through=through_agents(resolved, active, fleets(present)),
        source_diff=_source_diff(active, resolved, blobs),
        document_diff=_document_diff(active, resolved),
        warnings=charter.unbound_secrets(resolved.ref.template_name, resolved.grants),
    )


def sign_review(found: Review, *, key_file: Path, passphrase_file: Path | None) -> bytes:
    """Sign what ``found`` shows and return the DSSE envelope.

    Raises:
        KeyFileError, KeyExposedError, PassphraseError: the key cannot be used.
    """
    from service.keystore import passphrase_from, read_key

    signer = read_key(key_file, passphrase=passphrase_from(value=None, file=passphrase_file))
    return sign_payload(found.payload, signer).to_bytes()


def _fetch(
    channel: "grpc.Channel", name: str, *, held: frozenset[str]
) -> "tuple[admin_pb2.ChangeHeader, dict[str, bytes]]":
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    header: pb.ChangeHeader | None = None
    pieces: dict[str, bytearray] = {}
    received = 0
    for part in ChangeServiceStub(channel).FetchChange(
        pb.FetchChangeRequest(name=name, held_sha256=[bytes.fromhex(digest) for digest in sorted(held)]),
        timeout=FETCH_TIMEOUT_S,
    ):
        if part.HasField("header"):
            header = part.header
            continue
        received += len(part.piece.data)
        if received > BLOBS_BYTES_MAX:
            raise ReviewMismatchError(f"expected at most {BLOBS_BYTES_MAX} bytes of code, got more")
        pieces.setdefault(part.piece.sha256.hex(), bytearray()).extend(part.piece.data)
    if header is None:
        raise ReviewMismatchError(f"expected the header of {name}, got none")
    blobs = {digest: bytes(data) for digest, data in pieces.items()}
    for digest, data in blobs.items():
        if hashlib.sha256(data).hexdigest() != digest:
            raise ReviewMismatchError(f"expected bytes with sha256 {digest}, got {hashlib.sha256(data).hexdigest()}")
    return header, blobs


def _check_resolution(header: "admin_pb2.ChangeHeader", resolved: ResolvedTemplate) -> None:
    parents = [read_resolved(data) for data in header.parents]
    expected = resolved.parent
    for parent in parents:
        if expected is None or parent.digest != expected.sha256 or parent.ref != expected.template:
            raise ReviewMismatchError(f"expected the parent {expected}, got {parent.ref} ({parent.digest})")
        expected = parent.parent
    if expected is not None:
        raise ReviewMismatchError(f"expected the bytes of the parent {expected.template}, got none")
    child = read_template(header.document)
    again = resolve(child, parents, author=resolved.author, code=resolved.code if child.code else None)
    if again.digest != resolved.digest:
        raise ReviewMismatchError(
            f"expected the document and its parents to resolve to {resolved.digest}, got {again.digest}"
        )


def _require_approved(active: ResolvedTemplate, change: ResolvedTemplate, approval: bytes, charter: Charter) -> None:
    """Refuse to compare with what the charter's reviewers never approved: a forged neighbour makes a change look small.

    Steps A2 to A5 of acceptance, by its own count.
    """
    if active.ref.template_name != change.ref.template_name:
        raise ReviewMismatchError(f"expected a version of {change.ref.template_name} to compare with, got {active.ref}")
    envelope = read_envelope(approval)
    said = envelope.statement()
    count = tally(envelope, charter, effective_revocations(charter))
    about = (said.environment, said.template, said.sha256, said.author)
    rights = (said.capabilities.grants.to_json(), said.capabilities.limits)
    if (
        about != (charter.environment, active.ref, active.digest, active.author)
        or rights != (active.grants.to_json(), active.limits)
        or not count.is_reached
    ):
        raise ReviewMismatchError(
            f"expected {active.ref} ({active.digest}), which is said to be active, to be approved by {count.needed} "
            f"reviewers of this machine's charter, got {', '.join(sorted(count.counted)) or 'none'}"
        )


def _require_planned(active: ResolvedTemplate | None, change: ResolvedTemplate, present: Accepted) -> None:
    """Refuse to compare with anything but what the plan names: beside an older, wider version a change looks small."""
    planned = {
        (entry.template, entry.sha256)
        for entry in present.plan.entries
        if entry.template.template_name == change.ref.template_name
    }
    if (active.ref, active.digest) not in planned if active else planned:
        names = ", ".join(sorted(str(ref) for ref, _ in planned)) or "none"
        raise ReviewMismatchError(
            f"expected the active version, in generation {present.generation} {names}, to compare with, "
            f"got {active.ref if active else 'none'}; if another was published meanwhile, try again"
        )


def _derive(
    resolved: ResolvedTemplate, image: ResolvedTemplate | None, blobs: Mapping[str, bytes], reports: InspectionCache
) -> Capabilities:
    code = resolved.code
    if code is None:
        return derive(resolved, None)
    if isinstance(code, PinnedModule):
        return derive(resolved, _report(code.module.sha256, blobs, reports))
    pinned = image.code if image else None
    if image is None or image.ref != code.image.template or not isinstance(pinned, PinnedModule):
        raise ReviewMismatchError(f"expected the image {code.image.template}, got {image.ref if image else 'none'}")
    if pinned.module.sha256 != code.image.sha256:
        raise ReviewMismatchError(f"expected the image's module {code.image.sha256}, got {pinned.module.sha256}")
    _blob(blobs, code.source.sha256)
    return derive(resolved, _report(code.image.sha256, blobs, reports))


def _report(digest: str, blobs: Mapping[str, bytes], reports: InspectionCache) -> ModuleReport:
    return reports.kept(digest) or reports.inspect(_blob(blobs, digest))


def _blob(blobs: Mapping[str, bytes], digest: str) -> bytes:
    if digest not in blobs:
        raise ReviewMismatchError(f"expected the bytes of {digest}, got none")
    return blobs[digest]


def _statement(
    header: "admin_pb2.ChangeHeader",
    resolved: ResolvedTemplate,
    capabilities: Capabilities,
    charter: Charter,
    *,
    now: datetime,
) -> Statement:
    offered = Envelope(payload=header.change.statement, signatures={}).statement()
    latest = now + timedelta(days=charter.approval_days_max) + CLOCK_ALLOWANCE
    if offered.expires > latest:
        raise ReviewMismatchError(
            f"expected an approval that ends by {latest:%Y-%m-%d} (approval_days_max), got {offered.expires:%Y-%m-%d}"
        )
    return Statement(
        environment=charter.environment,
        template=resolved.ref,
        sha256=resolved.digest,
        author=resolved.author,
        capabilities=capabilities,
        expires=offered.expires,
    )


def _source_diff(old: ResolvedTemplate | None, new: ResolvedTemplate, blobs: Mapping[str, bytes]) -> str:
    before, after = _source_text(old, blobs), _source_text(new, blobs)
    if after is None:
        return ""
    return "".join(
        line if line.endswith("\n") else line + "\n"
        for line in difflib.unified_diff(
            before.splitlines(keepends=True) if before is not None else [],
            after.splitlines(keepends=True),
            fromfile=str(old.ref) if old else "/dev/null",
            tofile=str(new.ref),
        )
    )


def _document_diff(old: ResolvedTemplate | None, new: ResolvedTemplate) -> str:
    before, after = _document_text(old), _document_text(new)
    return "\n".join(
        difflib.unified_diff(
            before,
            after,
            fromfile=str(old.ref) if old else "/dev/null",
            tofile=str(new.ref),
            lineterm="",
        )
    )


def _document_text(template: ResolvedTemplate | None) -> list[str]:
    if template is None:
        return []
    members = {name: member for name, member in template.to_json().items() if name not in _RIGHTS}
    return json.dumps(members, ensure_ascii=False, indent=2, sort_keys=True).split("\n")


def _source_text(template: ResolvedTemplate | None, blobs: Mapping[str, bytes]) -> str | None:
    if template is None or not isinstance(template.code, PinnedSource):
        return None
    return source_text(template.code.file, _blob(blobs, template.code.source.sha256))
