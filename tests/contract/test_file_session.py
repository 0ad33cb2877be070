"""What a session over real directories promises to whoever uses it as files, and what it counts."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.scratch_directories import ScratchDirectories, measure
from sandbox.file_protocol import AT, CLOSES, OPEN, READ, Errno, FileRefusal, Kind, Open, pack_request
from sandbox.file_quota import Ledger
from sandbox.file_session import FileLimits
from tests.file_world import NEW, QUOTA, Files, directory, files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "file").write_bytes(b"0123456789")
    (tmp_path / "scratch").mkdir()
    return tmp_path


@pytest.fixture
def guest(place: Path) -> Iterator[Files]:
    with files(place / "data", place / "scratch") as guest:
        yield guest


def test_an_export_is_read_and_described(guest: Files) -> None:
    root = guest.roots["/data"]
    handle = guest.open(root, "file")
    assert (guest.read(handle, 4, 3), guest.read(handle, 9, 8), guest.read(handle, 9, 10)) == (b"3456", b"89", b"")
    assert guest.list(root) == ["file", "sub"]
    found = guest.stat(root, "file")
    assert (found.kind, found.size, found.inode) == (Kind.FILE, 10, guest.stat(handle).inode)
    assert guest.stat(root, "sub").kind is guest.stat(root, ".").kind is Kind.DIRECTORY


@pytest.mark.parametrize("flags", [NEW, Open.WRITE, Open.READ | Open.TRUNCATE, Open.CREATE | Open.TRUNCATE])
def test_an_export_is_not_changed_by_any_way_of_opening(guest: Files, place: Path, flags: Open) -> None:
    root = guest.roots["/data"]
    assert guest.refusal("open", root, "file", flags) is Errno.ROFS
    assert guest.refusal("open", root, "new", flags | Open.CREATE) is Errno.ROFS
    handle = guest.open(root, "file")
    assert guest.refusal("write", handle, b"x") is Errno.BADF
    assert guest.refusal("resize", handle, 0) is Errno.INVAL
    assert guest.refusal("at", "mkdir", root, "new") is Errno.ROFS
    assert guest.refusal("at", "unlink", root, "file") is Errno.ROFS
    assert guest.refusal("at", "rmdir", root, "sub") is Errno.ROFS
    assert guest.refusal("rename", root, "file", root, "other") is Errno.ROFS
    assert guest.refusal("times", root, "file", 1) is Errno.ROFS
    assert (place / "data" / "file").read_bytes() == b"0123456789"


def test_scratch_is_written_renamed_and_removed(guest: Files) -> None:
    root = guest.roots["/scratch"]
    guest.at("mkdir", root, "d")
    handle = guest.open(root, "d/f", NEW)
    assert guest.write(handle, b"hello") == 5
    assert guest.write(handle, b" world", append=True) == 6
    assert guest.write(handle, b"J") == 1
    assert guest.read(handle) == b"Jello world"
    guest.resize(handle, 5)
    guest.times(root, "d/f", 1_000_000_000)
    assert (guest.stat(handle).size, guest.stat(handle).modified_ns) == (5, 1_000_000_000)
    assert guest.refusal("at", "rmdir", root, "d") is Errno.NOTEMPTY
    guest.rename(root, "d/f", root, "g")
    assert guest.read(handle) == b"Jello"
    guest.at("rmdir", root, "d")
    guest.at("unlink", root, "g")
    assert guest.list(root) == []


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (("open", "d", NEW), Errno.ISDIR),
        (("open", "d", Open.WRITE), Errno.ISDIR),
        (("open", "f", Open.READ | Open.DIRECTORY), Errno.NOTDIR),
        (("open", "f", NEW | Open.EXCLUSIVE), Errno.EXIST),
        (("open", "f/x", NEW), Errno.NOTDIR),
        (("open", "new/", NEW), Errno.ISDIR),
        (("open", "no/new", NEW), Errno.NOENT),
        (("open", ".", NEW), Errno.ISDIR),
        (("mkdir", "d"), Errno.EXIST),
        (("mkdir", "f"), Errno.EXIST),
        (("mkdir", "."), Errno.BUSY),
        (("unlink", "d"), Errno.ISDIR),
        (("unlink", "f/"), Errno.NOTDIR),
        (("unlink", "none"), Errno.NOENT),
        (("rmdir", "f"), Errno.NOTDIR),
        (("rmdir", "."), Errno.BUSY),
        (("rename", "d", "d/inside"), Errno.XDEV),
        (("rename", "f", "g/"), Errno.NOTDIR),
        (("rename", "f", "d"), Errno.ISDIR),
        (("rename", "d", "f"), Errno.NOTDIR),
        (("rename", "none", "x"), Errno.NOENT),
    ],
)
def test_refusals_are_those_of_posix(guest: Files, call: tuple[str, str, object], errno: Errno) -> None:
    root = guest.roots["/scratch"]
    guest.at("mkdir", root, "d")
    guest.open(root, "f", NEW)
    function, path, *rest = call
    if function == "open":
        assert guest.refusal("open", root, path, *rest) is errno
    elif function == "rename":
        assert guest.refusal("rename", root, path, root, *rest) is errno
    else:
        assert guest.refusal("at", function, root, path) is errno


def test_a_file_that_was_opened_for_one_thing_does_not_do_the_other(guest: Files) -> None:
    root = guest.roots["/scratch"]
    writer = guest.open(root, "f", Open.WRITE | Open.CREATE)
    guest.write(writer, b"x")
    assert guest.refusal("read", writer) is Errno.BADF
    assert guest.refusal("write", guest.open(root, "f"), b"y") is Errno.BADF
    assert guest.refusal("resize", guest.open(root, "f", Open.READ | Open.TRUNCATE), 1) is Errno.INVAL
    assert guest.stat(root, "f").size == 0


# --- the quota


def account(place: Path) -> tuple[int, int]:
    """What lies on the disk."""
    found = measure(directory(place / "scratch"), QUOTA)
    return found.bytes_used, found.files_used


def test_bytes_are_counted_by_size_holes_included(place: Path) -> None:
    ledger = Ledger(QUOTA)
    with files(None, place / "scratch", ledger=ledger) as guest:
        root = guest.roots["/scratch"]
        handle = guest.open(root, "f", NEW)
        assert guest.refusal("write", handle, b"x" * 1_001) is Errno.DQUOT
        assert guest.refusal("resize", handle, 1_001) is Errno.DQUOT
        assert guest.refusal("resize", handle, 1 << 62) is Errno.DQUOT
        assert guest.refusal("resize", handle, (1 << 64) - 1) is Errno.FBIG
        assert guest.refusal("write", handle, b"x", 1_000) is Errno.DQUOT
        assert guest.refusal("write", handle, b"x", (1 << 63) - 1) is Errno.FBIG
        guest.write(handle, b"x", 999)
        assert ledger.bytes_used == 1_000
        assert guest.refusal("write", guest.open(root, "g", NEW), b"x") is Errno.DQUOT
        guest.write(handle, b"y" * 1_000)
        guest.resize(handle, 10)
        assert (ledger.bytes_used, ledger.files_used) == account(place) == (10, 2)


def test_files_and_directories_and_depth_are_bounded(place: Path) -> None:
    with files(None, place / "scratch") as guest:
        root = guest.roots["/scratch"]
        guest.at("mkdir", root, "a")
        guest.at("mkdir", root, "a/b")
        guest.at("mkdir", root, "a/b/c")
        guest.closes.append(guest.open(root, "a/b/c/d", NEW))
        assert guest.refusal("at", "mkdir", root, "a/b/c/d/e") is Errno.NOTDIR
        guest.at("unlink", root, "a/b/c/d")
        guest.at("mkdir", root, "a/b/c/d")
        assert guest.refusal("at", "mkdir", root, "a/b/c/d/e") is Errno.DQUOT
        assert guest.refusal("open", root, "a/b/c/d/e", NEW) is Errno.DQUOT
        for index in range(4):
            guest.at("mkdir", root, f"f{index}")
        assert guest.refusal("at", "mkdir", root, "g") is Errno.DQUOT
        assert guest.refusal("open", root, "g", NEW) is Errno.DQUOT
        guest.at("rmdir", root, "f0")
        guest.open(root, "g", NEW)


def test_no_path_grows_deeper_by_moving_what_is_held_open(place: Path) -> None:
    with files(None, place / "scratch") as guest:
        root = guest.roots["/scratch"]
        for path in ("a", "a/b", "a/b/c", "x", "x/y"):
            guest.at("mkdir", root, path)
        held = guest.open(root, "x", Open.READ | Open.DIRECTORY)
        for target in ("a/b/c/x", "a/b/x", "a/x"):
            assert guest.refusal("rename", root, "x", root, target) is Errno.XDEV
        guest.rename(held, "y", root, "z")
        guest.rename(root, "a/b/c", root, "c")
        assert sorted(guest.list(root)) == ["a", "c", "x", "z"]


def test_a_file_without_a_name_counts_until_it_is_closed(place: Path) -> None:
    ledger = Ledger(QUOTA)
    with files(None, place / "scratch", ledger=ledger) as guest:
        root = guest.roots["/scratch"]
        first = guest.open(root, "f", NEW)
        second = guest.open(root, "f")
        guest.write(first, b"x" * 600)
        guest.at("unlink", root, "f")
        assert guest.refusal("write", guest.open(root, "g", NEW), b"x" * 600) is Errno.DQUOT
        guest.write(first, b"x" * 10, append=True)
        assert ledger.bytes_used == 610
        guest.closes += [first]
        assert guest.list(root) == ["g"]
        assert ledger.bytes_used == 610
        guest.closes += [second]
        assert guest.list(root) == ["g"]
        assert (ledger.bytes_used, ledger.files_used) == (0, 1)


def test_what_a_rename_replaces_is_given_back(place: Path) -> None:
    ledger = Ledger(QUOTA)
    with files(None, place / "scratch", ledger=ledger) as guest:
        root = guest.roots["/scratch"]
        for name, size in (("f", 600), ("g", 300)):
            handle = guest.open(root, name, NEW)
            guest.write(handle, b"x" * size)
            guest.closes.append(handle)
        guest.rename(root, "g", root, "f")
        assert (ledger.bytes_used, ledger.files_used) == account(place) == (300, 1)
        guest.rename(root, "f", root, "f")
        assert (ledger.bytes_used, ledger.files_used) == (300, 1)


def test_sessions_of_one_scratch_share_the_account_and_a_crash_loses_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "scratch" / "agents" / "one"
    directories = ScratchDirectories(tmp_path / "scratch", free_bytes_min=0)
    directories.start()
    first = directories.open(path, QUOTA, number=1, writable=True)
    second = directories.open(path, QUOTA, number=1, writable=True)
    assert first.ledger is second.ledger
    held = first.open(first.open_root(), b"f", NEW)
    first.write(held, 0, b"x" * 700, append=False)
    # A crash: nothing is released, another process starts over the same disk.
    again = ScratchDirectories(tmp_path / "scratch", free_bytes_min=0)
    again.start()
    tree = again.open(path, QUOTA, number=1, writable=True)
    assert tree.ledger is not None
    assert (tree.ledger.bytes_used, tree.ledger.files_used) == (700, 1)
    with pytest.raises(FileRefusal):
        tree.write(tree.open(tree.open_root(), b"g", NEW), 0, b"x" * 301, append=False)


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path) -> None:
    directories = ScratchDirectories(tmp_path, free_bytes_min=1 << 62)
    directories.start()
    tree = directories.open(tmp_path / "agents" / "one", QUOTA, number=1, writable=True)
    with pytest.raises(FileRefusal) as refusal:
        tree.open(tree.open_root(), b"f", NEW)
    assert refusal.value.errno is Errno.NOSPC


NAMES = st.sampled_from(["a", "b", "a/c", "b/c", "a/c/d", "a/c/d/e"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), NAMES, st.sampled_from([NEW, Open.WRITE, NEW | Open.TRUNCATE, Open.READ])),
        st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, 700), st.integers(0, 400)),
        st.tuples(st.just("resize"), st.integers(0, 5), st.integers(0, 1_200)),
        st.tuples(st.sampled_from(["mkdir", "rmdir", "unlink"]), NAMES),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("close"), st.integers(0, 5)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_done_the_account_is_what_lies_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    place, ledger = tmp_path_factory.mktemp("quota"), Ledger(QUOTA)
    (place / "scratch").mkdir()
    with files(None, place / "scratch", ledger=ledger) as guest:
        root, held = guest.roots["/scratch"], []
        for function, *rest in steps:
            try:
                if function == "open":
                    held.append(guest.open(root, *rest))  # type: ignore[arg-type]
                elif function in {"write", "resize", "close"} and held:
                    handle = held[rest[0] % len(held)]  # type: ignore[operator]
                    if function == "write":
                        guest.write(handle, b"x" * rest[2], rest[1])  # type: ignore[operator,arg-type]
                    elif function == "resize":
                        guest.resize(handle, rest[1])  # type: ignore[arg-type]
                    else:
                        held.remove(handle)
                        guest.closes.append(handle)
                elif function == "rename":
                    guest.rename(root, str(rest[0]), root, str(rest[1]))
                elif function in {"mkdir", "rmdir", "unlink"}:
                    guest.at(str(function), root, str(rest[0]))
            except FileRefusal:
                pass
            assert ledger.bytes_used <= QUOTA.bytes_max
            assert ledger.files_used <= QUOTA.files_max
        guest.closes += held
        guest.stat(root)
        assert (ledger.bytes_used, ledger.files_used) == account(place)


# --- limits of one invocation, and what a hostile worker sends


def test_what_one_invocation_may_do_is_bounded(place: Path) -> None:
    limits = FileLimits(operations_max=12, bytes_read_max=12, bytes_written_max=5, open_max=2, entries_max=1)
    with files(place / "data", place / "scratch", limits=limits) as guest:
        root = guest.roots["/data"]
        handle = guest.open(root, "file")
        assert guest.read(handle) == b"0123456789"
        assert guest.read(handle) == b"01"
        assert guest.refusal("read", handle) is Errno.DQUOT
        writer = guest.open(guest.roots["/scratch"], "f", NEW)
        assert guest.refusal("open", root, "file") is Errno.MFILE
        assert guest.refusal("write", writer, b"123456") is Errno.DQUOT
        guest.write(writer, b"12345")
        assert guest.refusal("write", writer, b"1") is Errno.DQUOT
        assert guest.refusal("list", root) is Errno.OVERFLOW
        assert guest.stat(handle).size == 10
        assert guest.refusal("stat", handle) is Errno.DQUOT


def test_a_handle_is_dead_once_it_is_closed_and_its_number_never_comes_back(guest: Files) -> None:
    root = guest.roots["/data"]
    first = guest.open(root, "file")
    guest.closes.append(first)
    second = guest.open(root, "file")
    assert second > first
    for name in ("read", "stat"):
        assert guest.refusal(name, first) is Errno.BADF
    guest.closes += [first, 999, second]
    assert guest.refusal("read", second) is Errno.BADF


def test_handles_of_another_session_mean_nothing(place: Path) -> None:
    with files(place / "data", place / "scratch") as one, files(None, place / "scratch") as other:
        handle = [one.open(one.roots["/data"], "file") for _ in range(5)][-1]
        assert one.read(handle) == b"0123456789"
        assert other.refusal("read", handle) is Errno.BADF


def test_nothing_is_served_after_the_end(place: Path) -> None:
    with files(place / "data") as guest:
        handle = guest.open(guest.roots["/data"], "file")
        guest.session.close()
        assert guest.refusal("read", handle) is Errno.NOSYS
        assert guest.refusal("mounts") is Errno.NOSYS
        guest.session.close()


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        ("", b""),
        ("_perform", b"\0\0"),
        ("close", b"\0\0"),
        ("read", b""),
        ("read", CLOSES.pack(65_535)),
        ("read", CLOSES.pack(1)),
        ("read", CLOSES.pack(0) + b"\1"),
        ("open", pack_request([], OPEN.pack(1, 255) + b"file")),
        ("open", pack_request([], OPEN.pack(2, 64) + b"file")),
        ("stat", pack_request([], b"")),
        ("read", pack_request([], READ.pack(2, (1 << 64) - 1, (1 << 32) - 1))),
        ("unlink", pack_request([], AT.pack(2, 0))),
        ("rename", pack_request([], bytes(10))),
        ("times", pack_request([], bytes(22))),
    ],
)
def test_requests_out_of_shape_are_refused_and_change_nothing(guest: Files, function: str, argument: bytes) -> None:
    assert guest.session.perform(function, argument)[:2] != b"\0\0"
    assert guest.list(guest.roots["/data"]) == ["file", "sub"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    function=st.sampled_from(["mounts", "open", "read", "write", "list", "stat", "times", "resize", "rename", "mkdir"]),
    argument=st.binary(max_size=64),
)
def test_no_bytes_of_a_worker_are_an_error_of_ours(guest: Files, function: str, argument: bytes) -> None:
    assert len(guest.session.perform(function, argument)) >= 2


def test_many_entries_are_told_in_blocks(tmp_path: Path) -> None:
    for index in range(3_000):
        (tmp_path / f"{index:04}-{'n' * 40}").touch()
    (tmp_path / os.fsdecode(b"\xff-not-text")).touch()
    with files(tmp_path) as guest:
        root, names = guest.roots["/data"], list[str]()
        blocks = 0
        while block := guest.list(root, len(names)):
            names += block
            blocks += 1
        assert len(names) == 3_000
        assert names == sorted(names)
        assert blocks > 1


def test_a_quota_that_was_lowered_lets_things_shrink(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 500)
    small = Ledger(replace(QUOTA, bytes_max=100), bytes_used=500, files_used=1)
    with files(None, tmp_path, ledger=small) as guest:
        handle = guest.open(guest.roots["/scratch"], "f", NEW)
        assert guest.refusal("resize", handle, 501) is Errno.DQUOT
        guest.resize(handle, 300)
        guest.write(handle, b"y" * 300)
        assert guest.refusal("write", handle, b"y", append=True) is Errno.DQUOT
