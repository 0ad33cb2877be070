"""Leaving an export: by dots, absolute paths, links, hard links, mounts and other kinds of files."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import file_beneath, file_tree
from sandbox.file_protocol import Errno, Open
from tests.file_world import NEW, Files, files

SECRET = "canary-4711"


@pytest.fixture(params=["openat2", "steps"])
def guest(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """An export and scratch beside a secret; once with the kernel's own walk and once without."""
    if request.param == "steps":
        monkeypatch.setattr(file_tree, "open_directory_beneath", file_beneath.open_directory_by_steps)
    elif not file_beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    data, scratch, outside = tmp_path / "data", tmp_path / "scratch", tmp_path / "outside"
    for path in (data, data / "sub", scratch, outside):
        path.mkdir()
    (outside / "secret").write_text(SECRET)
    (data / "file").write_text("public")
    (data / "sub" / "deep").write_text("deep")
    (data / "link").symlink_to(outside / "secret")
    (data / "up").symlink_to("../outside")
    (data / "sub" / "up").symlink_to("../../outside")
    (data / "inside").symlink_to("file")
    (data / "self").symlink_to("/proc/self/root")
    with files(data, scratch) as guest:
        yield guest


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        ("..", Errno.PERM),
        ("../outside/secret", Errno.PERM),
        ("sub/../../outside/secret", Errno.PERM),
        ("./.././outside", Errno.PERM),
        ("sub/" * 3 + "../" * 4 + "outside", Errno.PERM),
        ("/etc/passwd", Errno.PERM),
        ("//etc/passwd", Errno.PERM),
        ("link", Errno.LOOP),
        ("link/", Errno.LOOP),
        ("link/.", Errno.LOOP),
        ("up/secret", Errno.LOOP),
        ("up/", Errno.LOOP),
        ("sub/up/secret", Errno.LOOP),
        ("inside", Errno.LOOP),
        ("self/etc/passwd", Errno.LOOP),
        ("file/", Errno.NOTDIR),
        ("file/.", Errno.NOTDIR),
        ("file/deep", Errno.NOTDIR),
        ("", Errno.NOENT),
        ("nothing", Errno.NOENT),
        (b"fi\0le", Errno.INVAL),
        (b"\xff\xfe", Errno.ILSEQ),
        ("x" * 256, Errno.NAMETOOLONG),
        ("x" * 4_097, Errno.NAMETOOLONG),
        ("x/" * 10_000, Errno.NAMETOOLONG),
        ("./" * 2_048, None),
        ("sub/../file", None),
        ("sub/.././sub//deep", None),
    ],
)
def test_no_path_leaves_the_export(guest: Files, path: str | bytes, errno: Errno | None) -> None:
    root = guest.roots["/data"]
    if errno is None:
        guest.open(root, path)
    elif isinstance(path, str) and path.split("/")[0] in {"up", "sub", "self"} and errno is Errno.LOOP:
        # The kernel says ELOOP where it walks, and ENOTDIR where each name is opened by itself.
        assert guest.refusal("open", root, path) in {Errno.LOOP, Errno.NOTDIR}
    else:
        assert guest.refusal("open", root, path) is errno


def test_a_directory_handle_is_no_way_up(guest: Files) -> None:
    sub = guest.open(guest.roots["/data"], "sub", Open.READ | Open.DIRECTORY)
    assert guest.refusal("open", sub, "../file") is Errno.PERM
    assert guest.refusal("stat", sub, "..") is Errno.PERM
    assert guest.read(guest.open(sub, "deep")) == b"deep"


@pytest.mark.parametrize("name", ["link", "up", "inside"])
def test_links_are_seen_and_not_followed(guest: Files, name: str) -> None:
    root = guest.roots["/data"]
    assert guest.stat(root, name, follow=False).size == 0
    assert guest.refusal("stat", root, name) is Errno.NOENT
    assert guest.refusal("times", root, name, 1) is Errno.ROFS


def test_links_in_a_writable_directory_are_neither_written_through_nor_made(guest: Files, tmp_path: Path) -> None:
    root, outside = guest.roots["/scratch"], tmp_path / "outside"
    (tmp_path / "scratch" / "planted").symlink_to(outside / "secret")
    (tmp_path / "scratch" / "dangling").symlink_to(outside / "new")
    (tmp_path / "scratch" / "folder").symlink_to(outside)
    for name in ("planted", "dangling"):
        for flags in (NEW, Open.WRITE, Open.WRITE | Open.TRUNCATE, NEW | Open.EXCLUSIVE):
            assert guest.refusal("open", root, name, flags) in {Errno.LOOP, Errno.EXIST}
    assert guest.refusal("times", root, "planted", 1) is Errno.LOOP
    assert guest.refusal("at", "mkdir", root, "folder/x") in {Errno.LOOP, Errno.NOTDIR}
    assert guest.refusal("at", "unlink", root, "folder/secret") in {Errno.LOOP, Errno.NOTDIR}
    assert guest.refusal("rename", root, "folder/secret", root, "mine") in {Errno.LOOP, Errno.NOTDIR}
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_text() == SECRET


def test_a_hard_link_to_something_outside_is_not_written_to(guest: Files, tmp_path: Path) -> None:
    secret = tmp_path / "outside" / "secret"
    os.link(secret, tmp_path / "scratch" / "hard")
    for flags in (Open.WRITE, Open.READ | Open.WRITE, Open.TRUNCATE | Open.WRITE, NEW):
        assert guest.refusal("open", guest.roots["/scratch"], "hard", flags) is Errno.PERM
    assert secret.read_text() == SECRET


def test_devices_pipes_and_sockets_are_not_opened(guest: Files, tmp_path: Path) -> None:
    data = tmp_path / "data"
    os.mkfifo(data / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(data / "socket"))
        names = ["pipe", "socket"]
        if os.geteuid() == 0:
            os.mknod(data / "null", 0o20666, os.makedev(1, 3))
            names.append("null")
        for name in names:
            for flags in (Open.READ, Open.WRITE | Open.READ, Open.READ | Open.CREATE):
                assert guest.refusal("open", guest.roots["/data"], name, flags) in {Errno.ACCES, Errno.ROFS}


def test_what_is_mounted_inside_an_export_is_another_file_system(guest: Files) -> None:
    # /proc is one that is mounted for certain; its handle is what an export of / would come to.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(Exception, match=r"XDEV|cross-device"):
            file_beneath.open_directory_beneath(root, (b"proc", b"self"), device=os.fstat(root).st_dev)
    finally:
        os.close(root)


def test_a_mount_inside_another_keeps_to_itself(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    (outer / "sub").mkdir(parents=True)
    inner.mkdir()
    (outer / "here").write_text("outer")
    with files(outer, inner) as guest:
        assert guest.refusal("open", guest.roots["/scratch"], "../here") is Errno.PERM
        source, target = guest.roots["/data"], guest.roots["/scratch"]
        assert guest.refusal("rename", source, "here", target, "here") is Errno.XDEV
        assert guest.refusal("rename", target, "x", source, "x") is Errno.XDEV


def test_an_absent_export_and_an_unknown_handle_give_nothing_away(guest: Files) -> None:
    absent = guest.roots["/absent"]
    for function in ("mkdir", "rmdir", "unlink", "stat"):
        assert guest.refusal("at", function, absent, "x") is Errno.ACCES
    assert guest.refusal("list", absent) is Errno.ACCES
    assert guest.refusal("open", absent, "../data/file") is Errno.ACCES
    for handle in (0, 999, (1 << 32) - 1):
        assert guest.refusal("read", handle) is Errno.BADF
