"""Everything that fuzzing ever found, once more; and the seeds, which are valid."""

from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.suffix in {".bin", ".hex"})


def content(path: Path) -> bytes:
    return bytes.fromhex(path.read_text(encoding="ascii")) if path.suffix == ".hex" else path.read_bytes()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    TARGETS[path.parent.name](content(path))


def test_every_entry_of_the_corpus_belongs_to_a_target() -> None:
    assert {path.parent.name for path in CORPUS.glob("*/*")} <= set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_keep_the_promise(name: str) -> None:
    for each in seeds()[name]:
        TARGETS[name](each)
