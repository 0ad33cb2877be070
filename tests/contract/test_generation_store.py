"""What the node's store of generations promises: whole or not at all, and nothing that was changed is believed."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_plane.generation_files import BlobError, GenerationFiles
from data_plane.sealed_files import StoreDamagedError, StoreFailedError, read_sealed, write_sealed
from templates.bundle import Bundle
from templates.canonical import sha256_hex
from templates.reasons import Reason
from templates.revocations import Revocations
from templates.trusted_set import Belief, HighWaterMark, RoleMark

BUNDLE = Bundle.of(metadata={"timestamp.json": b"t1", "1.root.json": b"r"}, targets={"charter.json": b"{}"})
BLOB = b"some source"
SHA = sha256_hex(BLOB)
BELIEF = Belief(
    root=b"root",
    mark=HighWaterMark(
        snapshot_sha256="0" * 64,
        signed_at=datetime(2030, 1, 1, tzinfo=UTC),
        roles={
            role: RoleMark(version=3, keyids=frozenset({"a" * 64}))
            for role in ("timestamp", "snapshot", "targets", "plan")
        },
    ),
    revocations=Revocations(templates=frozenset({"1" * 64})),
)


@pytest.fixture
def files(tmp_path: Path) -> GenerationFiles:
    return GenerationFiles(tmp_path / "store")


def only(files: GenerationFiles) -> Bundle:
    (stored,) = files.generations()
    return files.load(stored)


def test_a_stored_generation_is_read_as_it_was_kept(files: GenerationFiles, tmp_path: Path) -> None:
    files.keep(3, BUNDLE, {SHA: len(BLOB)})
    assert only(files) == BUNDLE
    assert only(GenerationFiles(tmp_path / "store")) == BUNDLE
    assert [each.number for each in files.generations()] == [3]


def test_a_newer_lease_travels_with_its_generation(files: GenerationFiles) -> None:
    files.keep(3, BUNDLE, {})
    files.keep_lease(3, b"t2")
    assert only(files).metadata["timestamp.json"] == b"t2"
    files.keep_lease(9, b"t3")
    assert only(files).metadata["timestamp.json"] == b"t2"


def test_generations_are_listed_highest_first_and_the_oldest_go(files: GenerationFiles) -> None:
    for number in (2, 10, 9, 1):
        files.keep(number, BUNDLE, {})
    assert [each.number for each in files.generations()] == [10, 9, 2, 1]
    files.collect(current=10, kept=2)
    assert [each.number for each in files.generations()] == [10, 9]


def test_the_same_generation_with_a_newer_lease_replaces_the_older_at_the_next_collection(
    files: GenerationFiles,
) -> None:
    files.keep(3, BUNDLE, {})
    files.keep(3, BUNDLE.with_timestamp(b"t2"), {})
    assert len(files.generations()) == 2
    files.keep(3, BUNDLE, {})
    assert len(files.generations()) == 2


def test_blobs_and_facts_that_no_kept_generation_needs_are_collected(files: GenerationFiles) -> None:
    other = b"older source"
    for data in (BLOB, other):
        files.keep_blob(sha256_hex(data), data)
        files.keep_facts(sha256_hex(data), b"facts")
    files.keep(1, BUNDLE, {sha256_hex(other): len(other)})
    files.keep(2, BUNDLE, {SHA: len(BLOB)})
    assert files.collect(current=2, kept=2) == 0
    assert files.collect(current=2, kept=1) == 1
    assert files.kept_code() == {SHA}
    assert files.facts(sha256_hex(other)) is None
    assert files.facts(SHA) == b"facts"


def test_a_blob_is_kept_and_read_by_its_digest_alone(files: GenerationFiles) -> None:
    with pytest.raises(BlobError) as refused:
        files.keep_blob(SHA, b"other bytes")
    assert refused.value.reason is Reason.BLOB_UNAVAILABLE
    assert not files.has_blob(SHA, len(BLOB))
    files.keep_blob(SHA, BLOB)
    assert files.blob(SHA) == BLOB
    assert files.has_blob(SHA, len(BLOB))
    assert not files.has_blob(SHA, len(BLOB) + 1)
    with pytest.raises(BlobError):
        files.blob("0" * 64)


def test_a_damaged_blob_is_refused_and_gone_so_that_it_is_fetched_again(files: GenerationFiles, tmp_path: Path) -> None:
    files.keep_blob(SHA, BLOB)
    flip(tmp_path / "store" / "blobs" / SHA, 3)
    with pytest.raises(BlobError):
        files.blob(SHA)
    assert not files.has_blob(SHA, len(BLOB))


def test_belief_is_kept_whole(files: GenerationFiles, tmp_path: Path) -> None:
    assert files.belief() is None
    files.keep_belief(BELIEF)
    assert GenerationFiles(tmp_path / "store").belief() == BELIEF


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def read_all(files: GenerationFiles) -> None:
    files.belief()
    for stored in files.generations():
        files.load(stored)


DAMAGED: list[tuple[str, Callable[[Path], Path]]] = [
    ("belief", lambda store: store / "belief"),
    ("bundle", lambda store: next((store / "generations").iterdir()) / "bundle"),
    ("lease", lambda store: next((store / "generations").iterdir()) / "lease"),
    ("key", lambda store: store / "key"),
]


@pytest.mark.parametrize(("name", "path_of"), DAMAGED)
def test_every_flipped_byte_is_noticed(tmp_path: Path, name: str, path_of: Callable[[Path], Path]) -> None:
    files = GenerationFiles(tmp_path)
    files.keep(3, BUNDLE, {SHA: 11})
    files.keep_lease(3, b"t2")
    files.keep_belief(BELIEF)
    read_all(GenerationFiles(tmp_path))
    path = path_of(tmp_path)
    for at in range(path.stat().st_size):
        flip(path, at)
        with pytest.raises(StoreDamagedError) as refused:
            read_all(GenerationFiles(tmp_path))
        assert refused.value.reason is Reason.STORE_DAMAGED
        flip(path, at)
    read_all(GenerationFiles(tmp_path))


@pytest.mark.parametrize("length", [0, 4, 39, 60])
def test_a_cut_file_is_noticed(files: GenerationFiles, tmp_path: Path, length: int) -> None:
    files.keep_belief(BELIEF)
    path = tmp_path / "store" / "belief"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamagedError):
        files.belief()


def test_a_missing_high_water_mark_beside_generations_is_damage(files: GenerationFiles) -> None:
    files.keep(3, BUNDLE, {})
    with pytest.raises(StoreDamagedError, match="high-water mark"):
        files.belief()


def test_one_sealed_file_cannot_stand_in_for_another(tmp_path: Path) -> None:
    key = b"k" * 32
    write_sealed(tmp_path / "a", b"content", purpose="a", key=key)
    assert read_sealed(tmp_path / "a", purpose="a", key=key) == b"content"
    for purpose, other in (("b", key), ("a", b"j" * 32)):
        with pytest.raises(StoreDamagedError):
            read_sealed(tmp_path / "a", purpose=purpose, key=other)


def test_a_lease_does_not_fit_another_generation(files: GenerationFiles, tmp_path: Path) -> None:
    files.keep(3, BUNDLE, {})
    files.keep_lease(3, b"t2")
    files.keep(4, BUNDLE.with_timestamp(b"t9"), {})
    newer, older = files.generations()
    (newer.directory / "lease").write_bytes((older.directory / "lease").read_bytes())
    with pytest.raises(StoreDamagedError):
        files.load(newer)


def test_a_damaged_copy_of_the_same_generation_is_replaced(files: GenerationFiles) -> None:
    files.keep(3, BUNDLE, {})
    (stored,) = files.generations()
    flip(stored.directory / "bundle", 50)
    files.keep(3, BUNDLE, {})
    assert only(files) == BUNDLE


def test_a_generation_that_cannot_be_read_does_not_keep_blobs_and_goes(files: GenerationFiles) -> None:
    files.keep_blob(SHA, BLOB)
    files.keep(3, BUNDLE, {SHA: len(BLOB)})
    (stored,) = files.generations()
    flip(stored.directory / "bundle", 50)
    assert files.collect(current=3, kept=1) == 1
    assert files.generations() == ()


def test_leftovers_of_a_crash_are_removed_at_start(tmp_path: Path) -> None:
    files = GenerationFiles(tmp_path)
    (tmp_path / "scratch" / "half").mkdir()
    (tmp_path / "generations" / "notes").mkdir()
    assert files.generations() == ()
    GenerationFiles(tmp_path)
    assert not (tmp_path / "scratch" / "half").exists()


def test_the_store_is_private(files: GenerationFiles, tmp_path: Path) -> None:
    files.keep_belief(BELIEF)
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0
    assert (tmp_path / "store" / "key").stat().st_mode & 0o177 == 0
    assert (tmp_path / "store" / "belief").stat().st_mode & 0o177 == 0


def test_facts_that_were_changed_are_found_out_again(files: GenerationFiles, tmp_path: Path) -> None:
    files.keep_facts(SHA, b"{}")
    flip(tmp_path / "store" / "facts" / SHA, 45 % (tmp_path / "store" / "facts" / SHA).stat().st_size)
    assert files.facts(SHA) is None


def test_a_disk_that_refuses_is_a_typed_error_and_leaves_what_was(
    files: GenerationFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.keep_belief(BELIEF)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFailedError, match="No space left"):
        files.keep_belief(Belief(root=b"other"))
    with pytest.raises(StoreFailedError):
        files.keep(4, BUNDLE, {})
    monkeypatch.undo()
    assert files.belief() == BELIEF
    assert files.generations() == ()
    assert [path.name for path in tmp_path.glob("store/.*")] == []


def test_a_store_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailedError):
        GenerationFiles(tmp_path / "file" / "store")
