"""Small installations of their own for attacks on trust: a node that does not run, and what is brought to it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from client.selftest.attack import BreachError
from client.selftest.guests import ORDINARY
from client.selftest.node import Imported, Node
from client.selftest.stage import Stage
from client.selftest.world import Approval, Approved, World
from templates.bundle import Bundle
from templates.repository import Generation

TEMPLATE: Final = "attacks/ordinary"


@dataclass(slots=True, kw_only=True)
class Forge:
    """A world with one approved template, the generation that makes it active, and a node with an empty store."""

    stage: Stage
    world: World
    node: Node
    template: Approved
    first: Generation

    async def refused(self, generation: Generation | bytes, *reasons: str) -> None:
        """Bring a generation to the node, which must refuse it for one of ``reasons``, and keep nothing of it."""
        before = _state(self.node.store)
        found = await self.node.imported(generation)
        self.stage.note(found.text)
        wanted = " or ".join(reasons)
        if found.status == 0:
            raise BreachError(f"expected {wanted}, got a node that took it")
        if found.reason not in reasons:
            raise BreachError(f"expected {wanted}, got {found.reason or found.text[-300:]}")
        if _state(self.node.store) != before:
            raise BreachError("expected a store that a refused generation leaves as it was")

    async def taken(self, generation: Generation) -> Imported:
        """Bring a generation to the node, which must take it."""
        found = await self.node.imported(generation)
        if found.status != 0:
            raise BreachError(f"expected a node that takes an honest generation, got {found.text[-300:]}")
        return found

    def changed(self, path: str, change: Callable[[bytes], bytes], generation: Generation | None = None) -> bytes:
        """Return a bundle in which the one file whose name ends in ``path`` is changed."""
        bundle = (generation or self.first).bundle()
        (name,) = [each for each in bundle.files if each.endswith(path)]
        return replace(bundle, files={**bundle.files, name: change(bundle.files[name])}).to_bytes()

    def without(self, path: str) -> bytes:
        """Return the first bundle without the file whose name ends in ``path``."""
        bundle = self.first.bundle()
        return Bundle(files={name: data for name, data in bundle.files.items() if not name.endswith(path)}).to_bytes()


def forge(stage: Stage) -> Forge:
    """Make a small installation for this case; what an earlier round left is no part of it."""
    number = len(list(stage.scratch.iterdir()))
    directory = stage.scratch / str(number)
    directory.mkdir()
    world = World.make(directory)
    template = world.approve(TEMPLATE, ORDINARY)
    return Forge(stage=stage, world=world, node=Node(world), template=template, first=world.publish(template))


async def approval_is_refused(stage: Stage, name: str, approval: Approval, *reasons: str) -> None:
    """Publish a template that was approved like this; the node must refuse the generation."""
    small = forge(stage)
    victim = small.world.approve(name, ORDINARY, approval)
    await small.refused(small.world.publish(small.template, victim), *reasons)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """Return a change of a JSON file's bytes."""

    def apply(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return apply


def flip(path: Path, *, at: float = 0.5) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[min(len(data) - 1, int(len(data) * at))] ^= 1
    path.write_bytes(bytes(data))


def _state(store: Path) -> dict[str, str]:
    """What a store holds besides blobs, which are checked by their names, and the node's own files of this moment."""
    kept = ("generations", "belief")
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in kept
        for path in ([store / name] if (store / name).is_file() else (store / name).rglob("*"))
        if path.is_file()
    }
