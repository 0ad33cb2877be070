"""What `control_plane.file_blobs` promises: a digest names its bytes, durably, or nothing."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.file_blobs import BlobDamagedError, BlobMissingError, FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def path_of(tmp_path: Path, sha256: str) -> Path:
    return tmp_path / "blobs" / sha256[:2] / sha256


@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=4096))
def test_what_was_put_is_read_under_its_digest(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = FileBlobs(tmp_path_factory.mktemp("blobs"))
    sha256 = blobs.put(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert blobs.has(sha256)
    assert blobs.read(sha256) == data
    assert list(blobs.digests()) == [sha256]


def test_it_is_there_for_the_next_process(blobs: FileBlobs, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    assert FileBlobs(tmp_path / "blobs").read(sha256) == b"data"


def test_putting_twice_writes_once(blobs: FileBlobs, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    inode = path_of(tmp_path, sha256).stat().st_ino
    blobs.put(b"data")
    assert path_of(tmp_path, sha256).stat().st_ino == inode


def test_a_flipped_byte_is_refused_set_aside_and_mended_by_putting_again(blobs: FileBlobs, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    path_of(tmp_path, sha256).write_bytes(b"dbta")
    with pytest.raises(BlobDamagedError):
        blobs.read(sha256)
    with pytest.raises(BlobMissingError):
        blobs.read(sha256)
    assert path_of(tmp_path, sha256).with_suffix(".damaged").read_bytes() == b"dbta"
    assert blobs.put(b"data") == sha256
    assert blobs.read(sha256) == b"data"


def test_putting_mends_damage_that_nobody_has_noticed(blobs: FileBlobs, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    path_of(tmp_path, sha256).write_bytes(b"dbta")
    blobs.put(b"data")
    assert blobs.read(sha256) == b"data"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 63, "A" * 64, "0" * 64, "0" * 64 + "\n"])
def test_what_is_no_digest_or_unknown_is_missing(blobs: FileBlobs, name: str) -> None:
    with pytest.raises(BlobMissingError):
        blobs.read(name)


def test_a_killed_process_leaves_nothing_behind(blobs: FileBlobs, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "partial" / "tmpabc").write_bytes(b"half a blo")
    FileBlobs(tmp_path / "blobs")
    assert list((tmp_path / "blobs" / "partial").iterdir()) == []


def test_sweeping_keeps_what_is_referred_to_and_what_is_young(blobs: FileBlobs, tmp_path: Path) -> None:
    kept, young, old = blobs.put(b"kept"), blobs.put(b"young"), blobs.put(b"old")
    past = time.time() - 1000
    for sha256 in (kept, old):
        os.utime(path_of(tmp_path, sha256), (past, past))
    assert blobs.sweep(keep={kept}, older_than=past + 1) == 1
    assert set(blobs.digests()) == {kept, young}


def test_only_its_owner_may_look(blobs: FileBlobs, tmp_path: Path) -> None:
    sha256 = blobs.put(b"data")
    assert path_of(tmp_path, sha256).stat().st_mode & 0o077 == 0
    assert path_of(tmp_path, sha256).parent.stat().st_mode & 0o077 == 0
