"""Fill a node's store from a bundle and blobs on disk: a node without a control plane, an air gap, tests and benches.

What is imported is verified exactly like what is pushed, the freshness of the lease included, before anything is kept.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path


def seed_store(
    store_directory: Path,
    *,
    root: bytes,
    bundle: bytes,
    blobs: Mapping[str, bytes],
    production: bool,
    node_id: str,
    now: datetime,
) -> int:
    """Verify ``bundle`` (not compressed) and make it the newest generation of the store; return its number.

    ``blobs`` are by sha256 (hex) and must hold the source and modules of every template that the plan names for
    ``node_id``. Modules are compiled when the node starts. The store may exist; an older generation than it has seen
    is refused.

    Raises:
        AgentFactoryError: with the same reasons as the node's Nack of a pushed update.
    """
    raise NotImplementedError
