"""A control plane without processes, sockets or inspection: real records on a disk, real signatures, a fake clock."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from control_plane.change_desk import ChangeDesk
from control_plane.file_blobs import FileBlobs
from control_plane.glasses import Glasses
from control_plane.intake import Intake
from control_plane.lifecycle import Action
from control_plane.mutation import Ask, unasked
from control_plane.policy_gate import PolicyGate
from control_plane.publication import OWN_NODE_ID, Published, Terms, Update
from control_plane.publisher import Publisher, Reviewed
from control_plane.review import Change
from control_plane.sqlite_break_glass import SqliteBreakGlass
from control_plane.sqlite_store import SqliteStore
from control_plane.turns import Turns
from service.telemetry import Telemetry
from templates.approval import merge, sign
from templates.capabilities import MemoryReport, ModuleReport
from templates.names import TemplateRef
from templates.resolved import BlobPin
from templates.trusted_set import Installation
from tests.installation import ENVIRONMENT, LocalInstallation

IMAGE = b"\0asm image"
COMMAND = b"\0asm command"
SOURCE = b"def process(text):\n    return text\n"


def document(name: str, version: str = "1.0.0", domain: str = "docs", **members: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": name,
        "version": version,
        "domain": domain,
        "role": "role",
        "description": "text",
        **members,
    }


def source_document(name: str = "echo", version: str = "1.0.0", domain: str = "docs", **members: Any) -> dict[str, Any]:
    return document(name, version, domain, **{"code": {"source": "agent.py", "image": "cpython"}, **members})


def image_document(version: str = "0.1.0") -> dict[str, Any]:
    return document("cpython", version, "images", code={"module": "cpython.wasm", "abi": "component"})


def fake_report(wasm: bytes, **members: Any) -> ModuleReport:
    is_image = wasm.startswith(IMAGE)
    facts: dict[str, Any] = {
        "sha256": hashlib.sha256(wasm).hexdigest(),
        "length": len(wasm),
        "kind": "component" if is_image else "module",
        "imports": (),
        "exports": ("load", "process") if is_image else ("_start", "memory"),
        "memories": (MemoryReport(bytes_min=65536, bytes_max=None),),
    }
    return ModuleReport(**{**facts, **members})


def only_try(person: str) -> Ask[object]:
    return replace(unasked(person), validate_only=True)


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@dataclass
class Listener:
    """An audience that remembers."""

    heard: list[tuple[str, int, int]] = field(default_factory=list)
    newest: Update | None = None
    _something: asyncio.Event = field(default_factory=asyncio.Event)

    def published(self, published: Published, update: Update, *, urgent: bool) -> None:
        assert published.number == update.generation
        self.heard.append(("urgent" if urgent else "published", update.generation, update.lease_version))
        self.newest = update
        self._something.set()

    def lease_renewed(self, published: Published, update: Update) -> None:
        self.heard.append(("lease", update.generation, update.lease_version))
        self.newest = update
        self._something.set()

    async def hears(self, what: str, generation: int) -> None:
        while not any(each[:2] == (what, generation) for each in self.heard):
            self._something.clear()
            await self._something.wait()


@dataclass
class World:
    """One control plane over one state directory; make another over the same directory to see it restart."""

    installation: LocalInstallation
    directory: Path
    clock: Clock = field(default_factory=Clock)
    listener: Listener = field(default_factory=Listener)
    reports: dict[str, ModuleReport] = field(default_factory=dict)
    inspected: list[str] = field(default_factory=list)
    lease_s: int | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.telemetry = telemetry = Telemetry()
        self.store = SqliteStore.open(self.directory / "state.db")
        self.blobs = FileBlobs(self.directory / "blobs")
        self.turns = Turns()
        self.glasses = Glasses(store=SqliteBreakGlass(self.store), telemetry=telemetry, clock=self.clock)
        policy = PolicyGate(glasses=self.glasses, telemetry=telemetry)
        self.publisher = Publisher(
            store=self.store,
            blobs=self.blobs,
            terms=Terms(
                signers=self.installation.online,
                installation=Installation(node_id=OWN_NODE_ID, environment=ENVIRONMENT, production=False),
                lease_s=self.lease_s,
            ),
            audience=self.listener,
            telemetry=telemetry,
            turns=self.turns,
            policy=policy,
            clock=self.clock,
        )
        self.intake = Intake(
            store=self.store,
            blobs=self.blobs,
            inspect=self._inspect,
            publisher=self.publisher,
            policy=policy,
            turns=self.turns,
            telemetry=telemetry,
        )

        self.desk = ChangeDesk(store=self.store, publisher=self.publisher, telemetry=telemetry, turns=self.turns)

    async def _inspect(self, wasm: bytes) -> ModuleReport:
        await asyncio.sleep(0)
        self.inspected.append(hashlib.sha256(wasm).hexdigest())
        return self.reports.get(self.inspected[-1]) or fake_report(wasm)

    async def start(self) -> "World":
        await self.publisher.start(self.installation.trust)
        return self

    def restarted(self) -> "World":
        self.store.close()
        return World(self.installation, self.directory, clock=self.clock, lease_s=self.lease_s)

    async def submit(
        self,
        content: Mapping[str, Any] | bytes,
        *code: bytes,
        author: str = "alice",
        request_id: str = "",
        validate_only: bool = False,
        is_draft: bool = False,
        announced: list[BlobPin] | None = None,
        piece_bytes: int = 65536,
    ) -> Change:
        blobs = announced
        if blobs is None:
            blobs = [BlobPin(sha256=hashlib.sha256(each).hexdigest(), length=len(each)) for each in code]

        async def pieces() -> AsyncIterator[bytes]:
            for each in code:
                for start in range(0, len(each), piece_bytes):
                    yield each[start : start + piece_bytes]

        return await self.intake.submit(
            author=author,
            document=content if isinstance(content, bytes) else json.dumps(content).encode(),
            filename="template.json",
            blobs=blobs,
            pieces=pieces(),
            request_id=request_id,
            is_draft=is_draft,
            ask=only_try(author) if validate_only else None,
        )

    async def approve(self, change: Change, *persons: str) -> Reviewed:
        envelopes = [sign(change.statement, self.installation.reviewers[person]) for person in persons]
        merged = envelopes[0]
        for each in envelopes[1:]:
            merged = merge(merged, each)
        return await self.publisher.approve(change.number, merged.to_bytes())

    async def close(self, change: Change, action: Action, *, by: str, why: str = "") -> Change:
        """Reject, withdraw, deprecate or restore."""
        return (await self.desk.close(change.number, action, by=by, why=why)).change

    def stored(self, change: Change) -> Change:
        found = self.store.change(change.number)
        assert found is not None
        return found

    async def publish(self, content: Mapping[str, Any], *code: bytes, author: str = "alice") -> Change:
        """Submit and approve with everybody's signature but the author's."""
        change = await self.submit(content, *code, author=author)
        others = [person for person in self.installation.reviewers if person != author]
        return (await self.approve(change, *others)).change

    async def publish_image(self, version: str = "0.1.0", module: bytes = IMAGE) -> Change:
        return await self.publish(image_document(version), module)

    def active(self) -> list[str]:
        return [str(each.template) for each in self.publisher.present.material.plan.entries]

    def state_of(self, ref: str) -> str:
        state = self.publisher.state_of(TemplateRef.parse(ref))
        assert state is not None
        return state
