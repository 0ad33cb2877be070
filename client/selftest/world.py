"""A throw-away installation: an authority, offline and online keys, reviewers, a development charter, one generation.

Everything that a control plane and reviewers would do for one node. Signing keys exist in memory only; certificates and
trust documents lie in a temporary directory.
"""

import hashlib
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner

from client.local_run import IMAGES_DIRECTORY, LocalRunError
from client.selftest.attack import Guest
from client.selftest.hostile_service import HEADER, SECRET
from service.identity import Identity
from service.local_ca import LocalCa
from service.tls import TlsFiles
from templates.approval import Statement, merge, sign
from templates.capabilities import ModuleReport, derive
from templates.charter import Charter, Domain, Mode, SecretBinding
from templates.document import Abi, read_template
from templates.inheritance import resolve
from templates.names import TemplatePattern, TemplateRef
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
from templates.revocations import NO_REVOCATIONS, Revocations

TRUST_DOMAIN: Final = "selftest.local"
ENVIRONMENT: Final = "selftest"
NODE: Final = "node"
AUTHOR: Final = "mallory"
REVIEWERS: Final = ("alice", "bob")
DOMAIN: Final = "attacks"
GUARDED: Final = "guarded"
IMAGE: Final = "cpython"
_IMAGE_REF: Final = TemplateRef.parse(f"images/{IMAGE}@0.1.0")
_IMAGE_LIMITS: Final = {"memory_bytes": 256 << 20}
_LEASE_S: Final = 3_600
_VALID: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A template with its approval and its own code."""

    resolved: ResolvedTemplate
    approval: bytes
    sha256: str
    blob: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who signs, and what: honest people, unless an attack says otherwise."""

    persons: Sequence[str] = REVIEWERS[:1]
    strangers: Sequence[CryptoSigner] = ()
    author: str = AUTHOR
    amend: Callable[[Statement], Statement] = lambda statement: statement


_ONE_PERSON: Final = Approval()


def new_signer() -> CryptoSigner:
    """Return a new key, in memory only."""
    return CryptoSigner.generate_ed25519()


def _charter(reviewers: Mapping[str, CryptoSigner], secret_origin: str) -> Charter:
    """``attacks`` and ``images`` need one signature; ``guarded`` needs two, so that it can be tried to do with one."""
    one = Domain(reviewers=frozenset(REVIEWERS), threshold=1)
    binding = SecretBinding(
        origin=secret_origin,
        header=HEADER,
        path_prefixes=("/bound",),
        methods=("GET",),
        templates=(TemplatePattern.parse(f"{DOMAIN}/*"),),
    )
    return Charter(
        environment=ENVIRONMENT,
        mode=Mode.DEVELOPMENT,
        version=1,
        persons={name: {signer.public_key.keyid: signer.public_key} for name, signer in reviewers.items()},
        domains={DOMAIN: one, "images": one, GUARDED: replace(one, threshold=2)},
        approval_days_max=30,
        lease_s_max=86_400,
        staleness_s_max=86_400,
        secret_bindings={SECRET: binding} if secret_origin else {},
    )


@dataclass(slots=True, kw_only=True)
class World:
    """What the operator, the reviewers and the control plane of the throw-away node hold together."""

    directory: Path
    authority: LocalCa
    online: OnlineSigners
    reviewers: Mapping[str, CryptoSigner]
    trust: OfflineTrust
    library: dict[TemplateRef, Approved] = field(default_factory=dict)
    _tls: dict[str, TlsFiles] = field(default_factory=dict)
    _image: tuple[bytes, ModuleReport] | None = None

    @classmethod
    def make(cls, directory: Path, *, secret_origin: str = "") -> "World":
        """Make every key and document; ``directory`` is private to this run.

        The charter binds one secret to ``secret_origin``, below ``/bound``; where that is empty it binds none.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        root, targets = new_signer(), new_signer()
        online = OnlineSigners(snapshot=new_signer(), timestamp=new_signer(), plan=new_signer(), library=new_signer())
        reviewers = {name: new_signer() for name in REVIEWERS}
        charter = _charter(reviewers, secret_origin)
        spec = RootSpec(
            environment=ENVIRONMENT,
            mode=Mode.DEVELOPMENT,
            version=1,
            expires=now + _VALID,
            root=RoleKeys(keys=(root.public_key,)),
            targets=RoleKeys(keys=(targets.public_key,)),
            snapshot=RoleKeys(keys=(online.snapshot.public_key,)),
            timestamp=RoleKeys(keys=(online.timestamp.public_key,)),
        )
        trust = OfflineTrust(
            roots=(build_root(spec, [root]),),
            targets=build_targets(
                charter,
                plan=RoleKeys(keys=(online.plan.public_key,)),
                library=RoleKeys(keys=(online.library.public_key,)),
                expires=now + _VALID,
                signers=[targets],
            ),
            charter=charter.to_bytes(),
        )
        authority = LocalCa.create(directory / "ca", trust_domain=TRUST_DOMAIN, now=now - timedelta(hours=1))
        (directory / "root.json").write_bytes(trust.roots[0])
        return cls(directory=directory, authority=authority, online=online, reviewers=reviewers, trust=trust)

    # Identities

    def service(self, tenant: str, name: str = "service") -> TlsFiles:
        """Return the certificate files of a service; made once."""
        return self.tls(Identity.service(TRUST_DOMAIN, tenant, name))

    def person(self, name: str = REVIEWERS[0]) -> TlsFiles:
        """Return the certificate files of a person."""
        return self.tls(Identity.person(TRUST_DOMAIN, name))

    def tls(self, identity: Identity) -> TlsFiles:
        """Return certificate files of ``identity``, made once."""
        if identity.uri not in self._tls:
            serves = identity.kind == "node"
            issued = self.authority.issue(
                identity,
                now=datetime.now(UTC),
                dns_names=("localhost",) if serves else (),
                addresses=(ipaddress.IPv4Address("127.0.0.1"),) if serves else (),
            )
            place = "-".join(part for part in (str(identity.kind), identity.tenant, identity.name) if part)
            self._tls[identity.uri] = issued.write(self.directory / "identities" / place)
        return self._tls[identity.uri]

    # Templates

    def approve(self, name: str, guest: Guest, approval: Approval = _ONE_PERSON) -> Approved:
        """Approve a guest as the template ``name``."""
        document = {**guest.document, "limits": guest.effective_limits, "grants": dict(guest.grants)}
        if guest.python:
            return self._approve_source(name, guest.python.encode(), document, approval)
        from sandbox.engine import wat2wasm

        wasm = wat2wasm(guest.wat)
        pin = PinnedModule(module=_pin(wasm), abi=Abi(guest.abi))
        code = {"module": "agent.wasm", "abi": guest.abi}
        return self._approve(name, {**document, "code": code}, pin, wasm, _report(wasm), approval)

    def _approve_source(self, name: str, source: bytes, document: Mapping[str, Any], approval: Approval) -> Approved:
        wasm, report = self._runtime()
        pin = PinnedSource(
            source=_pin(source),
            file="agent.py",
            image=ImagePin(template=_IMAGE_REF, sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm)),
        )
        code = {"source": "agent.py", "image": IMAGE}
        return self._approve(name, {**document, "code": code}, pin, source, report, approval)

    def _runtime(self) -> tuple[bytes, ModuleReport]:
        """Return the CPython image and what it declares; approved when it is first needed."""
        if self._image is None:
            path = IMAGES_DIRECTORY / f"{IMAGE}.wasm"
            if not path.exists():
                raise LocalRunError(f"expected the image {path.name} to be built, got none: run `make images`")
            wasm = path.read_bytes()
            self._image = wasm, _report(wasm)
            pin = PinnedModule(module=_pin(wasm), abi=Abi.COMPONENT)
            document = {"limits": _IMAGE_LIMITS, "code": {"module": "agent.wasm", "abi": "component"}}
            self._approve(str(_IMAGE_REF.template_name), document, pin, wasm, self._image[1], _ONE_PERSON, "0.1.0")
        return self._image

    def _approve(
        self,
        name: str,
        document: Mapping[str, Any],
        pin: PinnedModule | PinnedSource,
        blob: bytes,
        report: ModuleReport,
        approval: Approval,
        version: str = "1.0.0",
    ) -> Approved:
        domain, _, short = name.partition("/")
        whole = {"schema": 1, "domain": domain, "name": short, "version": version, **document}
        resolved = resolve(read_template(json.dumps(whole).encode()), (), author=approval.author, code=pin)
        statement = Statement(
            environment=ENVIRONMENT,
            template=resolved.ref,
            sha256=resolved.digest,
            author=approval.author,
            capabilities=derive(resolved, report),
            expires=(datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0),
        )
        payload = approval.amend(statement).to_payload()
        first, *others = (*(self.reviewers[person] for person in approval.persons), *approval.strangers)
        envelope = sign(payload, first)
        for signer in others:
            envelope = merge(envelope, sign(payload, signer))
        approved = Approved(
            resolved=resolved, approval=envelope.to_bytes(), sha256=hashlib.sha256(blob).hexdigest(), blob=blob
        )
        self.library[resolved.ref] = approved
        return approved

    # Generations

    def publish(
        self,
        *active: Approved,
        previous: Generation | None = None,
        now: datetime | None = None,
        signers: OnlineSigners | None = None,
        lease_s: int = _LEASE_S,
        revocations: Revocations = NO_REVOCATIONS,
    ) -> Generation:
        """Sign the generation after ``previous``, in which ``active`` runs."""
        libraries = {
            domain: Library(
                templates={ref: each.resolved.to_bytes() for ref, each in self.library.items() if ref.domain == domain},
                approvals={ref: each.approval for ref, each in self.library.items() if ref.domain == domain},
                code={each.sha256: len(each.blob) for ref, each in self.library.items() if ref.domain == domain},
            )
            for domain in (DOMAIN, "images", GUARDED)
        }
        entries = tuple(PlanEntry(template=each.resolved.ref, sha256=each.resolved.digest) for each in active)
        return publish(
            trust=self.trust,
            libraries=libraries,
            plan=Plan(environment=ENVIRONMENT, entries=entries, revocations=revocations),
            signers=signers or self.online,
            validity=Validity(lease_s=lease_s),
            now=(now or datetime.now(UTC)).replace(microsecond=0),
            previous=None if previous is None else previous.metadata,
        )

    def write_blobs(self, directory: Path) -> None:
        """Write every template's code into ``directory``, each under its digest."""
        directory.mkdir(parents=True, exist_ok=True)
        for each in self.library.values():
            (directory / each.sha256).write_bytes(each.blob)


def _pin(data: bytes) -> BlobPin:
    return BlobPin(sha256=hashlib.sha256(data).hexdigest(), length=len(data))


def _report(wasm: bytes) -> ModuleReport:
    """What the product's own inspection says, in this process: these guests are ours; the node inspects them itself."""
    from sandbox.compiler_job import inspect_module

    found, _ = inspect_module(wasm)
    facts: dict[str, Any] = dict(found)
    return ModuleReport.from_json(
        {
            "sha256": hashlib.sha256(wasm).hexdigest(),
            "length": len(wasm),
            "kind": facts["kind"],
            "imports": facts["imports"],
            "exports": facts["exports"],
            "memories": [
                {"bytes_min": low, "bytes_max": high} for low, high, imported in facts["memories"] if not imported
            ],
        }
    )
