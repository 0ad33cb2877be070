"""What attackers do to bundles, and what nodes answer: helpers over `tests.trust_world`."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile
from tuf.api.serialization.json import JSONSerializer

from templates.bundle import Bundle
from templates.canonical import sha256_hex
from templates.reasons import AgentFactoryError, Reason
from templates.repository import Validity
from templates.trusted_set import (
    Accepted,
    Belief,
    Installation,
    accept,
)
from tests.trust_world import (
    NODE,
    NOW,
    VALIDITY,
    World,
    believe,
    pinned,
    ready_world,
    signer,
)

HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=VALIDITY.lease_s)
TOO_LONG = Validity(lease_s=3601)
COMPACT = JSONSerializer(compact=True)


def refused(
    reason: Reason,
    bundle: Bundle,
    belief: Belief,
    *,
    installation: Installation = NODE,
    now: datetime = NOW,
    match: str = "expected",
) -> AgentFactoryError:
    """Assert that a node refuses ``bundle`` for this reason."""
    with pytest.raises(AgentFactoryError, match=match) as refusal:
        accept(bundle, belief=belief, installation=installation, now=now)
    assert refusal.value.reason is reason, refusal.value.message
    return refusal.value


def accepted_at(world: World, at: datetime = NOW, belief: Belief | None = None) -> Accepted:
    return believe(world.publish(now=at).bundle(), belief or pinned(world), now=at)


def without(bundle: Bundle, pattern: str) -> Bundle:
    return Bundle(files={path: data for path, data in bundle.files.items() if not re.search(pattern, path)})


def replaced(bundle: Bundle, pattern: str, change: Callable[[bytes], bytes]) -> Bundle:
    """Change the one file whose path matches."""
    (path,) = [path for path in bundle.files if re.search(pattern, path)]
    return Bundle(files={**bundle.files, path: change(bundle.files[path])})


def forged(
    bundle: Bundle,
    role: str,
    change: Callable[[Any], None] = lambda _: None,
    *,
    by: tuple[str, ...] | None = None,
    raw: Callable[[bytes], bytes] = lambda data: data,
) -> Bundle:
    """Change the metadata of one role, sign it, and sign snapshot and timestamp anew over it with the online keys."""
    files = dict(bundle.files)

    def sign(name: str, edit: Callable[[Any], None], keys: tuple[str, ...]) -> tuple[int, bytes]:
        (path,) = [path for path in files if re.fullmatch(rf"metadata/(\d+\.)?{name}\.json", path)]
        metadata: Metadata[Any] = Metadata.from_bytes(files.pop(path))
        edit(metadata.signed)
        metadata.signatures.clear()
        for key in keys:
            metadata.sign(signer(key), append=True)
        data = metadata.to_bytes(COMPACT)
        data = raw(data) if name == role else data
        prefix = "" if name == "timestamp" else f"{metadata.signed.version}."
        files[f"metadata/{prefix}{name}.json"] = data
        return metadata.signed.version, data

    chain = [role, *(above for above in ("snapshot", "timestamp") if above != role)]
    if role == "timestamp":
        chain = ["timestamp"]
    version, data = 0, b""
    for name in chain:
        below = MetaFile(version=version or 1, length=len(data), hashes={"sha256": sha256_hex(data)})

        def edit(signed: Any, name: str = name, below: MetaFile = below) -> None:
            if name == role:
                change(signed)
            elif name == "snapshot":
                signed.meta[f"{role}.json"] = below
            else:
                signed.snapshot_meta = below

        default = ("library",) if name.startswith("library-") else (name,)
        version, data = sign(name, edit, by if by is not None and name == role else default)
    return Bundle(files=files)


def offer(**changes: Any) -> tuple[Bundle, Belief]:
    world = ready_world()
    for name, value in changes.items():
        setattr(world, name, value)
    return world.publish().bundle(), pinned(world)


def first_replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)
