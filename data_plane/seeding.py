"""Fill a node's store from a bundle and blobs on disk: a node without a control plane, an air gap, tests and benches.

What is imported is verified exactly like what is pushed, the freshness of the lease included, before anything is kept.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from data_plane.generation_files import BlobError, GenerationFiles
from templates.bundle import read_bundle
from templates.trusted_set import Belief, Installation, accept


def seed_store(
    store_directory: Path,
    *,
    root: bytes,
    bundle: bytes,
    blobs: Mapping[str, bytes],
    installation: Installation,
    now: datetime,
) -> int:
    """Verify ``bundle`` (not compressed) and make it the newest generation of the store; return its number.

    ``blobs`` are by sha256 (hex) and must hold the source and modules of every template that the plan names for this
    node. Their capabilities are derived and their modules compiled when the node starts. The store may exist; an older
    generation than it has seen is refused. No node may run on the store meanwhile.

    Raises:
        AgentFactoryError: with the same reasons as the node's Nack of a pushed update.
    """
    files = GenerationFiles(store_directory)
    belief = files.belief() or Belief(root=root)
    offered = read_bundle(bundle)
    accepted = accept(offered, belief=belief, installation=installation, now=now)
    for sha256 in sorted(accepted.code):
        if sha256 not in blobs and not files.has_blob(sha256, accepted.code[sha256]):
            raise BlobError(f"expected blob {sha256} beside the bundle, got none", metadata={"sha256": sha256})
        if sha256 in blobs:
            files.keep_blob(sha256, blobs[sha256])
    files.keep(accepted.generation, offered, accepted.code)
    files.keep_belief(accepted.belief)
    return accepted.generation
