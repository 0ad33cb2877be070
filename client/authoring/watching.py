"""Do something again whenever files below a folder change: by looking, since that works on every file system."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.25
_IGNORED: Final = frozenset({"__pycache__", "node_modules", "build"})
_BUILT: Final = frozenset({".wasm", ".zip", ".pyc"})
_FILES_MAX: Final = 2_000

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Return time and size of every file that an author may change, by name."""
    seen: Snapshot = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in _IGNORED for part in parts) or path.suffix in _BUILT:
            continue
        try:
            facts = path.stat()
        except OSError:
            continue  # an editor replaces files: it is there again at the next look
        if path.is_file():
            seen["/".join(parts)] = (facts.st_mtime_ns, facts.st_size)
        if len(seen) >= _FILES_MAX:
            break
    return seen


def changes(folder: Path, *, sleep: Callable[[float], None]) -> Iterator[list[str]]:
    """Yield the names that changed, for ever; only when nothing has changed for one look, so that a save is one change.

    Everything is compared with what was there when the last change was yielded: what changes meanwhile is not lost.
    """
    settled = before = snapshot(folder)
    while True:
        sleep(LOOK_EVERY_S)
        now = snapshot(folder)
        if now == before and now != settled:
            changed = sorted(name for name in {*now, *settled} if now.get(name) != settled.get(name))
            settled = now
            yield changed
        before = now
