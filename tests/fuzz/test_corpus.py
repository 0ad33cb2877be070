"""Everything that fuzzing ever found, once more; seeds that are hostile on purpose; and seeds that are valid.

``corpus/reasons.toml`` says of each file why it is kept.
"""

import tomllib

import pytest

from tests.fuzz.seeds import CORPUS, kept, seeds
from tests.fuzz.targets import TARGETS

FILES = [(target, name) for target in sorted(TARGETS) for name in kept(target)]


@pytest.mark.parametrize(("target", "name"), FILES, ids=str)
def test_what_was_found_once_is_not_found_again(target: str, name: str) -> None:
    TARGETS[target](kept(target)[name])


def test_every_file_of_the_corpus_belongs_to_a_target_and_says_why_it_is_kept() -> None:
    reasons = tomllib.loads((CORPUS / "reasons.toml").read_text(encoding="utf-8"))
    written = {(target, name) for target, each in reasons.items() for name in each}
    there = {(path.parent.name, path.name) for path in CORPUS.glob("*/*")}
    assert written == there
    assert {target for target, _ in there} == set(TARGETS), "expected a file for every target, and for nothing else"
    assert all(len(reason) > 20 for each in reasons.values() for reason in each.values())
    assert all(path.stat().st_size <= 4_096 for path in CORPUS.glob("*/*")), "seeds are small"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_keep_the_promise(name: str) -> None:
    for each in seeds()[name]:
        TARGETS[name](each)
