"""A small world of trust in memory: offline and online keys, persons, a charter, two templates, and one image.

Every part can be replaced before `World.publish`: that is how tests play attackers with all the online keys.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from securesystemslib.signer import CryptoSigner

from templates.approval import Statement, merge, sign
from templates.bundle import Bundle
from templates.canonical import sha256_hex
from templates.capabilities import MemoryReport, ModuleReport, derive
from templates.charter import Ceiling, Charter, Domain, Mode
from templates.document import Abi, LeaseExpiry
from templates.grants import Grants, KvGrant
from templates.limits import DEFAULT_LIMITS
from templates.names import TemplateRef
from templates.plan import Plan, PlanEntry
from templates.repository import (
    Generation,
    Library,
    OfflineTrust,
    OnlineSigners,
    RoleKeys,
    RootSpec,
    Validity,
    build_root,
    build_targets,
    publish,
)
from templates.resolved import BlobPin, ImagePin, PinnedModule, PinnedSource, ResolvedTemplate
from templates.trusted_set import Accepted, Belief, Installation, accept

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
ENVIRONMENT = "prod"
NODE = Installation(node_id="n1", environment=ENVIRONMENT, production=True)
VALIDITY = Validity(lease_s=600)
SOURCE = b"def process(text):\n    return text\n"
IMAGE_MODULE = b"\0asm-image"
HARDWARE_MODULE = b"\0asm-hardware"
IMAGE_REF = TemplateRef.parse("images/cpython@0.1.0")
AGENT_REF = TemplateRef.parse("docs/summariser@1.0.0")
HARDWARE_REF = TemplateRef.parse("docs/hardware@1.0.0")


@cache
def signer(name: str) -> CryptoSigner:
    """Return the one key of this name; bob's are RSA and carol's ML-DSA."""
    if name.startswith("bob"):
        return CryptoSigner.generate_rsa(size=2048)
    if name.startswith("carol"):
        return CryptoSigner.generate_mldsa()
    return CryptoSigner.generate_ed25519()


def role_keys(*names: str, threshold: int = 1) -> RoleKeys:
    return RoleKeys(keys=tuple(signer(name).public_key for name in names), threshold=threshold)


def online(**others: CryptoSigner) -> OnlineSigners:
    parts = {name: others.get(name, signer(name)) for name in ("snapshot", "timestamp", "plan", "library")}
    return OnlineSigners(**parts)


def root_spec(**changes: object) -> RootSpec:
    spec = RootSpec(
        environment=ENVIRONMENT,
        mode=Mode.PRODUCTION,
        version=1,
        expires=NOW + 1000 * DAY,
        root=role_keys("root-a", "root-b", threshold=2),
        targets=role_keys("targets"),
        snapshot=role_keys("snapshot"),
        timestamp=role_keys("timestamp"),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def root(*signers: str, **changes: object) -> bytes:
    return build_root(root_spec(**changes), [signer(name) for name in signers or ("root-a", "root-b")])


def persons(**more: Iterable[str]) -> dict[str, dict[str, object]]:
    names = {"alice": ["alice"], "bob": ["bob"], "carol": ["carol"], "dave": ["dave"], **more}
    return {
        person: {signer(name).public_key.keyid: signer(name).public_key for name in keys}
        for person, keys in names.items()
    }


def charter(**changes: object) -> Charter:
    base = Charter(
        environment=ENVIRONMENT,
        mode=Mode.PRODUCTION,
        version=1,
        persons=persons(),  # type: ignore[arg-type]
        domains={
            "docs": Domain(
                reviewers=frozenset({"alice", "bob", "carol", "dave"}),
                threshold=2,
                ceiling=Ceiling(grants=Grants(kv=KvGrant(namespace="*", bytes_max=1000)), limits=DEFAULT_LIMITS),
                threshold_above_ceiling=3,
            ),
            "images": Domain(reviewers=frozenset({"alice", "bob"}), threshold=1),
        },
        approval_days_max=365,
        lease_s_max=3600,
        staleness_s_max=86_400,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def targets(of: Charter, *signers: str, **changes: object) -> bytes:
    arguments: dict[str, object] = {
        "plan": role_keys("plan"),
        "library": role_keys("library"),
        "expires": NOW + 400 * DAY,
        **changes,
    }
    return build_targets(of, signers=[signer(name) for name in signers or ("targets",)], **arguments)  # type: ignore[arg-type]


def template(ref: TemplateRef = AGENT_REF, **changes: object) -> ResolvedTemplate:
    """Return a source agent run by the image, written by dave."""
    base = ResolvedTemplate(
        ref=ref,
        author="dave",
        role="tester",
        description="",
        labels={},
        parent=None,
        capabilities=(),
        tools=(),
        default_config={},
        config_schema=None,
        input_schema=None,
        output_schema=None,
        examples=(),
        code=PinnedSource(
            source=BlobPin(sha256=sha256_hex(SOURCE), length=len(SOURCE)),
            file="agent.py",
            image=ImagePin(template=IMAGE_REF, sha256=sha256_hex(IMAGE_MODULE), length=len(IMAGE_MODULE)),
        ),
        grants=Grants(kv=KvGrant(namespace="notes", bytes_max=1000)),
        limits=DEFAULT_LIMITS,
        callers=(),
        on_lease_expiry=LeaseExpiry.CONTINUE,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def module_code(module: bytes, abi: Abi) -> PinnedModule:
    return PinnedModule(module=BlobPin(sha256=sha256_hex(module), length=len(module)), abi=abi)


def hardware(ref: TemplateRef = HARDWARE_REF, **changes: object) -> ResolvedTemplate:
    return template(ref, **{"code": module_code(HARDWARE_MODULE, Abi.COMMAND), "grants": Grants(), **changes})


def image(ref: TemplateRef = IMAGE_REF, **changes: object) -> ResolvedTemplate:
    return template(
        ref, **{"code": module_code(IMAGE_MODULE, Abi.COMPONENT), "grants": Grants(), "author": "carol", **changes}
    )


def report(resolved: ResolvedTemplate) -> ModuleReport | None:
    """Return what inspection of the template's module, or its image's, would find."""
    match resolved.code:
        case None:
            return None
        case PinnedModule(module=blob, abi=Abi.COMMAND):
            return _report(blob, "module", ("wasi_snapshot_preview1.fd_write",), ("_start", "memory"))
        case PinnedModule(module=blob):
            return _report(blob, "component", (), ("process", "load"))
        case PinnedSource(image=pin):
            return _report(BlobPin(sha256=pin.sha256, length=pin.length), "component", (), ("process", "load"))


def _report(blob: BlobPin, kind: str, imports: tuple[str, ...], exports: tuple[str, ...]) -> ModuleReport:
    return ModuleReport(
        sha256=blob.sha256,
        length=blob.length,
        kind=kind,
        imports=imports,
        exports=exports,
        memories=(MemoryReport(bytes_min=65_536, bytes_max=None),),
    )


def statement(resolved: ResolvedTemplate, **changes: object) -> Statement:
    base = Statement(
        environment=ENVIRONMENT,
        template=resolved.ref,
        sha256=resolved.digest,
        author=resolved.author,
        capabilities=derive(resolved, report(resolved)),
        expires=NOW + 100 * DAY,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def approval(resolved: ResolvedTemplate, *by: str, **changes: object) -> bytes:
    """Return the envelope of a statement about ``resolved``, signed with these keys."""
    payload = statement(resolved, **changes).to_payload()
    first, *others = [sign(payload, signer(name)) for name in by or ("alice", "bob")]
    for other in others:
        first = merge(first, other)
    return first.to_bytes()


def entry(resolved: ResolvedTemplate, *nodes: str) -> PlanEntry:
    return PlanEntry(template=resolved.ref, sha256=resolved.digest, nodes=frozenset(nodes) if nodes else None)


@dataclass
class World:
    """What a control plane holds; `publish` numbers generations from what it published before."""

    roots: list[bytes] = field(default_factory=lambda: [root()])
    charter: Charter = field(default_factory=charter)
    targets: bytes | None = None
    templates: dict[TemplateRef, bytes] = field(default_factory=dict)
    approvals: dict[TemplateRef, bytes] = field(default_factory=dict)
    code: dict[str, dict[str, int]] = field(default_factory=dict)
    plan: Plan = field(default_factory=lambda: Plan(environment=ENVIRONMENT, entries=()))
    signers: OnlineSigners = field(default_factory=online)
    validity: Validity = VALIDITY
    metadata: Mapping[str, bytes] | None = None

    def add(self, resolved: ResolvedTemplate, envelope: bytes | None, *, active: bool = True) -> None:
        """Put a template with its code into the library, and into the plan."""
        self.templates[resolved.ref] = resolved.to_bytes()
        if envelope is not None:
            self.approvals[resolved.ref] = envelope
        own = resolved.code.blobs()[:1] if resolved.code else ()
        self.code.setdefault(resolved.ref.domain, {}).update({blob.sha256: blob.length for blob in own})
        if active:
            others = tuple(
                each for each in self.plan.entries if each.template.template_name != resolved.ref.template_name
            )
            self.plan = replace(self.plan, entries=(*others, entry(resolved)))

    def libraries(self) -> dict[str, Library]:
        domains = {ref.domain for ref in self.templates}
        return {
            domain: Library(
                templates={ref: data for ref, data in self.templates.items() if ref.domain == domain},
                approvals={ref: data for ref, data in self.approvals.items() if ref.domain == domain},
                code=self.code.get(domain, {}),
            )
            for domain in domains
        }

    def publish(self, *, now: datetime = NOW) -> Generation:
        data = self.charter.to_bytes()
        trust = OfflineTrust(roots=tuple(self.roots), targets=self.targets or targets(self.charter), charter=data)
        generation = publish(
            trust=trust,
            libraries=self.libraries(),
            plan=self.plan,
            signers=self.signers,
            validity=self.validity,
            now=now,
            previous=self.metadata,
        )
        self.metadata = generation.metadata
        return generation


def ready_world() -> World:
    """Return a world in which the source agent, the compiled one and the image are approved."""
    world = World()
    world.add(image(), approval(image(), "alice"), active=False)
    world.add(template(), approval(template(), "alice", "bob"))
    world.add(hardware(), approval(hardware(), "bob", "carol"))
    return world


def pinned(world: World) -> Belief:
    return Belief(root=world.roots[0])


def believe(bundle: Bundle, belief: Belief, *, installation: Installation = NODE, now: datetime = NOW) -> Accepted:
    return accept(bundle, belief=belief, installation=installation, now=now)


Change = Callable[[World], None]
