"""A node's world without a control plane: templates are approved and published in memory, and put into a store."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from data_plane.seeding import seed_store
from sandbox.engine import wat2wasm
from sandbox.inspection import inspect
from templates.approval import Statement, merge, sign
from templates.capabilities import ModuleReport, derive
from templates.document import Abi, read_template
from templates.inheritance import resolve
from templates.names import TemplateRef
from templates.plan import Plan, PlanEntry
from templates.repository import Generation, Library, OfflineTrust, Validity, publish, renew_lease
from templates.resolved import BlobPin, ImagePin, PinnedModule, PinnedSource, ResolvedTemplate
from templates.revocations import NO_REVOCATIONS, Revocations
from templates.trusted_set import Installation
from tests.images import image_bytes
from tests.installation import ENVIRONMENT, LocalInstallation, make_installation

AUTHOR = "dora"
APPROVERS = ("alice", "bob")
REPORTS_DIRECTORY = Path(__file__).resolve().parent.parent / "build" / "test-module-reports"


@cache
def report_of(wasm: bytes) -> ModuleReport:
    """Return what the product's own inspection says; kept under ``build/``, because a big image takes seconds."""
    path = REPORTS_DIRECTORY / f"{hashlib.sha256(wasm).hexdigest()}.json"
    if not path.exists():
        with ThreadPoolExecutor(1) as thread:  # the caller may be inside a running event loop
            facts = thread.submit(lambda: asyncio.run(inspect(wasm))).result()
        REPORTS_DIRECTORY.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts.to_json()), encoding="utf-8")
    return ModuleReport.from_json(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True)
class Approved:
    """One template with its approval; ``blobs`` is its own code."""

    resolved: ResolvedTemplate
    approval: bytes
    blobs: Mapping[str, bytes]

    @property
    def ref(self) -> TemplateRef:
        return self.resolved.ref


@dataclass(kw_only=True)
class NodeWorld:
    """Everything that a control plane and the reviewers would do for a node, in memory."""

    installation: LocalInstallation
    lease_s: int = 600
    generation: Generation | None = None
    trust: OfflineTrust
    library: dict[TemplateRef, Approved] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path, **changes: Any) -> "NodeWorld":
        installation = make_installation(directory, **changes)
        return cls(installation=installation, trust=installation.trust)

    # Templates

    def command(self, name: str, text: str, *, persons: Sequence[str] = APPROVERS, **document: Any) -> Approved:
        """Approve a ``command`` module given as WAT."""
        return self.module(name, wat2wasm(text), abi="command", persons=persons, **document)

    def module(
        self, name: str, wasm: bytes, *, abi: str = "component", persons: Sequence[str] = APPROVERS, **document: Any
    ) -> Approved:
        pin = PinnedModule(module=BlobPin(sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm)), abi=Abi(abi))
        code = {"module": "agent.wasm", "abi": abi}
        return self._approve(name, {**document, "code": code}, pin, wasm, report_of(wasm), persons)

    def image(self, name: str = "cpython", version: str = "0.1.0") -> Approved:
        wasm = image_bytes(name)
        limits = {"memory_bytes": 268_435_456}
        return self.module(f"images/{name}", wasm, version=version, limits=limits, persons=("alice",))

    def source(
        self,
        name: str,
        text: str | bytes,
        *,
        image: str = "cpython",
        file: str = "agent.py",
        persons: Sequence[str] = APPROVERS,
        **document: Any,
    ) -> Approved:
        """Approve a source agent; the image is approved with it."""
        runtime = self.library.get(TemplateRef.parse(f"images/{image}@0.1.0")) or self.image(image)
        wasm = image_bytes(image)
        data = text.encode() if isinstance(text, str) else text
        pin = PinnedSource(
            source=BlobPin(sha256=hashlib.sha256(data).hexdigest(), length=len(data)),
            file=file,
            image=ImagePin(template=runtime.ref, sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm)),
        )
        code = {"source": file, "image": image}
        return self._approve(name, {**document, "code": code}, pin, data, report_of(wasm), persons)

    def _approve(
        self,
        name: str,
        document: Mapping[str, Any],
        pin: PinnedModule | PinnedSource,
        blob: bytes,
        report: ModuleReport,
        persons: Sequence[str],
    ) -> Approved:
        domain, _, short = name.partition("/")
        whole = {"schema": 1, "domain": domain, "name": short, "version": "1.0.0", **document}
        resolved = resolve(read_template(json.dumps(whole).encode()), (), author=AUTHOR, code=pin)
        statement = Statement(
            environment=ENVIRONMENT,
            template=resolved.ref,
            sha256=resolved.digest,
            author=AUTHOR,
            capabilities=derive(resolved, report),
            expires=(datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0),
        )
        envelope = sign(statement.to_payload(), self.installation.reviewers[persons[0]])
        for person in persons[1:]:
            envelope = merge(envelope, sign(statement.to_payload(), self.installation.reviewers[person]))
        approved = Approved(
            resolved=resolved, approval=envelope.to_bytes(), blobs={hashlib.sha256(blob).hexdigest(): blob}
        )
        self.library[resolved.ref] = approved
        self.blobs.update(approved.blobs)
        return approved

    # Generations

    def publish(
        self,
        *active: Approved,
        revocations: Revocations = NO_REVOCATIONS,
        now: datetime | None = None,
        lease_s: int | None = None,
    ) -> Generation:
        """Sign the next generation, in which ``active`` runs on every node."""
        libraries = {
            domain: Library(
                templates={ref: each.resolved.to_bytes() for ref, each in self.library.items() if ref.domain == domain},
                approvals={ref: each.approval for ref, each in self.library.items() if ref.domain == domain},
                code={
                    sha256: len(blob)
                    for ref, each in self.library.items()
                    if ref.domain == domain
                    for sha256, blob in each.blobs.items()
                },
            )
            for domain in self.installation.charter.domains
        }
        entries = tuple(PlanEntry(template=each.ref, sha256=each.resolved.digest) for each in active)
        self.generation = publish(
            trust=self.trust,
            libraries=libraries,
            plan=Plan(environment=ENVIRONMENT, entries=entries, revocations=revocations),
            signers=self.installation.online,
            validity=Validity(lease_s=self.lease_s if lease_s is None else lease_s),
            now=(now or datetime.now(UTC)).replace(microsecond=0),
            previous=None if self.generation is None else self.generation.metadata,
        )
        return self.generation

    def renewed(self, *, now: datetime | None = None) -> bytes:
        """Return a newer lease of the published generation."""
        if self.generation is None:
            raise RuntimeError("expected a published generation")
        timestamp = renew_lease(
            self.generation.metadata,
            signer=self.installation.online.timestamp,
            validity=Validity(lease_s=self.lease_s),
            now=(now or datetime.now(UTC)).replace(microsecond=0),
        )
        metadata = {**self.generation.metadata, "timestamp.json": timestamp}
        self.generation = replace(self.generation, metadata=metadata)
        return timestamp

    # Nodes

    def store(self, node: str) -> Path:
        return self.installation.directory / "nodes" / node

    def seed(self, node: str = "n1", *, generation: Generation | None = None, now: datetime | None = None) -> int:
        """Put the published generation into a node's store."""
        chosen = generation or self.generation
        if chosen is None:
            raise RuntimeError("expected a published generation")
        return seed_store(
            self.store(node),
            root=self.trust.roots[0],
            bundle=chosen.bundle().to_bytes(),
            blobs=self.blobs,
            installation=self.node_installation(node),
            now=now or datetime.now(UTC),
        )

    def node_installation(self, node: str = "n1", *, production: bool = False) -> Installation:
        return Installation(node_id=node, environment=ENVIRONMENT, production=production)

    def environment(self, node: str = "n1", **settings: str) -> dict[str, str]:
        """Return the variables of a node; ``settings`` are lower-case names without prefix."""
        tls = self.installation.node(node)
        values = {
            "trust_domain": "factory.test",
            "tls_certificate_file": str(tls.certificate),
            "tls_key_file": str(tls.key),
            "tls_authorities_file": str(tls.authorities),
            "store_directory": str(self.store(node)),
            "root_file": str(self.installation.trust_directory / "root.json"),
            "mode": "development",
            **settings,
        }
        return {f"AGENTFACTORY_NODE_{name.upper()}": value for name, value in values.items()}
