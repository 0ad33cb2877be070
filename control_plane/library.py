"""Everything that reviewers approved, as one value: where parents, images and the plan's entries are looked up."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from control_plane.lifecycle import Action, TransitionRefusedError
from control_plane.review import Change
from templates.acceptance import Material
from templates.approval import read_envelope
from templates.names import TemplateName, TemplateRef
from templates.plan import PlanEntry
from templates.repository import Library as DomainLibrary
from templates.resolved import ParentPin, PinnedSource, ResolvedTemplate, read_resolved
from templates.revocations import Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """One published template version with the documents that travel."""

    resolved: ResolvedTemplate
    resolved_bytes: bytes
    envelope: bytes
    sha256: str

    @property
    def ref(self) -> TemplateRef:
        return self.resolved.ref

    @property
    def is_runnable(self) -> bool:
        """Whether it can be active on nodes: images and abstract templates are only material for others."""
        return not (self.resolved.is_image or self.resolved.is_abstract)

    @property
    def entry(self) -> PlanEntry:
        """This version, for the whole fleet."""
        return PlanEntry(template=self.ref, sha256=self.sha256)

    def is_revoked(self, revocations: Revocations) -> bool:
        """Whether the template itself or any code that it pins is revoked."""
        code = self.resolved.code
        pinned = {blob.sha256 for blob in code.blobs()} if code else set()
        return self.sha256 in revocations.templates or not pinned.isdisjoint(revocations.modules)


@dataclass(frozen=True, slots=True)
class Library:
    """Approved versions by reference; immutable, so that a publication that fails leaves the old one in place."""

    approved: Mapping[TemplateRef, Approved] = field(default_factory=dict)

    @classmethod
    def of(cls, approved: Iterable[Approved]) -> "Library":
        return cls({each.ref: each for each in approved})

    def __iter__(self) -> Iterator[Approved]:
        return iter(self.approved.values())

    def get(self, ref: TemplateRef) -> Approved | None:
        return self.approved.get(ref)

    def with_version(self, added: Approved) -> "Library":
        return Library({**self.approved, added.ref: added})

    def newest(
        self, name: TemplateName, revocations: Revocations, *, deprecated: Collection[TemplateRef] = ()
    ) -> Approved | None:
        """Return the highest version of ``name`` that is not revoked; a deprecated one only where there is no other."""
        versions = (each for each in self if each.ref.template_name == name and not each.is_revoked(revocations))
        return max(versions, key=lambda each: (each.ref not in deprecated, each.ref.version), default=None)

    def pinned(self, pin: ParentPin) -> ResolvedTemplate | None:
        found = self.get(pin.template)
        return found.resolved if found is not None and found.sha256 == pin.sha256 else None

    def ancestors(self, resolved: ResolvedTemplate) -> tuple[Approved, ...]:
        """Return the line of parents that ``resolved`` pins, nearest first, as far as it is known here."""
        line: list[Approved] = []
        pin = resolved.parent
        while pin is not None:
            found = self.get(pin.template)
            if found is None or found.sha256 != pin.sha256 or found in line:
                break
            line.append(found)
            pin = found.resolved.parent
        return tuple(line)

    def image_of(self, resolved: ResolvedTemplate) -> Approved | None:
        return self.get(resolved.code.image.template) if isinstance(resolved.code, PinnedSource) else None

    def materials(self) -> Mapping[TemplateRef, Material]:
        return {each.ref: Material(resolved=each.resolved_bytes, approval=each.envelope) for each in self}

    def is_outdated(self, approved: Approved, revocations: Revocations) -> bool:
        """Whether a newer version of its parent, or of its image, was approved since it was resolved."""
        code = approved.resolved.code
        pins = [approved.resolved.parent.template] if approved.resolved.parent else []
        if isinstance(code, PinnedSource):
            pins.append(code.image.template)
        for pin in pins:
            newest = self.newest(pin.template_name, revocations)
            if newest is not None and newest.ref.version > pin.version:
                return True
        return False

    def by_domain(self) -> Mapping[str, DomainLibrary]:
        """Return what `templates.repository.publish` signs: per domain its documents and its code, images' apart."""
        result: dict[str, DomainLibrary] = {}
        for domain in sorted({each.ref.domain for each in self}):
            members = sorted((each for each in self if each.ref.domain == domain), key=lambda each: each.ref)
            result[domain] = DomainLibrary(
                templates={each.ref: each.resolved_bytes for each in members},
                approvals={each.ref: each.envelope for each in members},
                code=_own_code(members),
            )
        return result


def approved_of(change: Change) -> Approved:
    """Return the library's view of a change that has its approvals."""
    if change.envelope is None:
        raise TransitionRefusedError(change.name, state=change.state, action=Action.PLACE)
    return Approved(
        resolved=read_resolved(change.resolved),
        resolved_bytes=change.resolved,
        envelope=read_envelope(change.envelope).to_bytes(),
        sha256=change.sha256,
    )


def _own_code(members: Iterable[Approved]) -> dict[str, int]:
    code: dict[str, int] = {}
    for each in members:
        match each.resolved.code:
            case PinnedSource(source=source):
                code[source.sha256] = source.length
            case None:
                pass
            case module:
                code.update((blob.sha256, blob.length) for blob in module.blobs())
    return code
