"""Whoever swaps a directory for a link while a guest's path is walked: never a byte of what the link leads to."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from sandbox import file_beneath, file_tree
from sandbox.file_protocol import FileRefusal, Open
from tests.file_world import NEW, Files, files

ROUNDS = 1_500


class Swapper:
    """Puts a directory, then a link, then the directory again at one path, as fast as it can."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.aside = path, path.with_name("aside")
        self.link = path.with_name("link-to-be")
        self.link.symlink_to(target)
        self.swaps = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.path.rename(self.aside)
            self.link.rename(self.path)
            self.path.rename(self.link)
            self.aside.rename(self.path)
            self.swaps += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(params=["openat2", "steps"])
def walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "steps":
        monkeypatch.setattr(file_tree, "open_directory_beneath", file_beneath.open_directory_by_steps)


def outcomes(swapper: Swapper, attempt: Callable[[], bytes]) -> set[bytes]:
    seen: set[bytes] = set()
    with swapper:
        for _ in range(ROUNDS):
            try:
                seen.add(attempt())
            except FileRefusal as refusal:
                seen.add(refusal.errno.name.encode())
    assert swapper.swaps > 0
    return seen


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for side, content in (("data/a/b", "inside"), ("outside/b", "outside")):
        (tmp_path / side).mkdir(parents=True)
        (tmp_path / side / "file").write_text(content)
    return tmp_path


@pytest.mark.usefixtures("walk")
def test_a_directory_swapped_for_a_link_is_never_read_through(place: Path) -> None:
    with files(place / "data") as guest:

        def attempt() -> bytes:
            handle = guest.open(guest.roots["/data"], "a/b/file")
            try:
                return guest.read(handle)
            finally:
                guest.closes.append(handle)

        seen = outcomes(Swapper(place / "data" / "a", place / "outside"), attempt)
    assert b"inside" in seen
    assert b"outside" not in seen
    assert len(seen) > 1, "expected the race to be lost sometimes"


@pytest.mark.usefixtures("walk")
def test_a_directory_swapped_for_a_link_is_never_written_through(place: Path) -> None:
    data = place / "data"
    with files(None, data) as guest:
        made = iter(range(ROUNDS))

        def attempt() -> bytes:
            root, name = guest.roots["/scratch"], f"a/b/new-{next(made)}"
            guest.closes.append(guest.open(root, name, NEW))
            guest.at("unlink", root, name)
            return b"made"

        outcomes(Swapper(data / "a", place / "outside"), attempt)
    assert sorted(path.name for path in (place / "outside" / "b").iterdir()) == ["file"]


@pytest.mark.usefixtures("walk")
def test_a_file_swapped_for_a_link_is_never_read_through(place: Path) -> None:
    with files(place / "data") as guest:
        swapper = Swapper(place / "data" / "a" / "b" / "file", place / "outside" / "b" / "file")

        def attempt() -> bytes:
            handle = guest.open(guest.roots["/data"], "a/b/file")
            try:
                return guest.read(handle)
            finally:
                guest.closes.append(handle)

        seen = outcomes(swapper, attempt)
    assert b"inside" in seen
    assert b"outside" not in seen


def test_a_session_that_is_closed_in_mid_operation_closes_nothing_under_it(place: Path) -> None:
    """Descriptors are numbers: one that is closed too early is soon somebody else's file."""
    (place / "data" / "big").write_bytes(b"x" * 200_000)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for _ in range(50):
        with files(place / "data") as guest:
            handle = guest.open(guest.roots["/data"], "big", Open.READ)
            seen: list[bytes] = []
            reader = threading.Thread(target=_read_until_refused, args=(guest, handle, seen))
            reader.start()
            guest.session.close()
            reader.join()
            assert set(seen) <= {b"x"}
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count


def _read_until_refused(guest: Files, handle: int, seen: list[bytes]) -> None:
    try:
        while True:
            seen.append(guest.read(handle, 200_000)[:1])
    except FileRefusal:
        pass
