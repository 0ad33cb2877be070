"""Recordings at rest: encrypted for one tenant and one invocation, bounded, whole after a crash."""

import os
from pathlib import Path

import pytest

from client.recording_files import RecordingInvalidError, RecordingLockedError, read_recording, write_recording
from data_plane.agents.refusals import UnknownRecordingError
from data_plane.recording_envelope import RecordingDamagedError, WrappedKey, open_envelope, seal
from data_plane.recording_files import RecordingBounds, RecordingFiles
from data_plane.recording_keys import LocalRecordingKeys
from data_plane.sealed_files import StoreFailedError
from service.telemetry import RECORDINGS, RECORDINGS_KEPT_BYTES, Telemetry
from templates.reasons import Reason

SECRET = b"what the tenant asked and was answered"
ROOMY = RecordingBounds(count_max=100, bytes_max=1 << 20, age_s_max=1e6)


class Shelf:
    """A collection in a directory, with a clock of its own."""

    def __init__(self, directory: Path, bounds: RecordingBounds = ROOMY) -> None:
        self.directory, self.now = directory, 1_000_000.0
        self.keys = LocalRecordingKeys(directory / "keys")
        self.telemetry = Telemetry()
        self.files = RecordingFiles(
            directory / "recordings", keys=self.keys, bounds=bounds, telemetry=self.telemetry, clock=lambda: self.now
        )
        self.files.load()

    def paths(self) -> list[Path]:
        return sorted((self.directory / "recordings").rglob("*.recording"))


async def test_what_is_kept_is_read_by_its_tenant_alone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "01ab", SECRET)
    assert await shelf.files.read("acme", "01ab") == SECRET
    assert shelf.files.has("acme", "01ab")
    for tenant, name in (("rival", "01ab"), ("acme", "01ac"), ("acme", "../01ab"), ("acme", ""), ("", "01ab")):
        assert not shelf.files.has(tenant, name)
        with pytest.raises(UnknownRecordingError) as refused:
            await shelf.files.read(tenant, name)
        assert refused.value.reason is Reason.UNKNOWN_RECORDING


async def test_nothing_readable_lies_on_the_disk_and_nobody_else_may_look(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "01ab", SECRET)
    (path,) = shelf.paths()
    assert SECRET not in path.read_bytes()
    assert b"acme" not in path.read_bytes()
    for each in (path, *(tmp_path / "keys").iterdir()):
        assert each.stat().st_mode & 0o777 == 0o600
    for each in (path.parent, path.parent.parent, tmp_path / "keys"):
        assert each.stat().st_mode & 0o777 == 0o700


async def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    keys = LocalRecordingKeys(tmp_path)
    envelope = await seal(SECRET, tenant="acme", invocation_id="01ab", keys=keys)
    for index in range(len(envelope)):
        changed = bytearray(envelope)
        changed[index] ^= 1
        with pytest.raises(RecordingDamagedError):
            await open_envelope(bytes(changed), tenant="acme", invocation_id="01ab", keys=keys)
    for length in (0, 5, 9, 40, len(envelope) - 1):
        with pytest.raises(RecordingDamagedError):
            await open_envelope(envelope[:length], tenant="acme", invocation_id="01ab", keys=keys)
    assert await open_envelope(envelope, tenant="acme", invocation_id="01ab", keys=keys) == SECRET


async def test_an_envelope_does_not_open_under_another_name_or_tenant(tmp_path: Path) -> None:
    keys = LocalRecordingKeys(tmp_path)
    envelope = await seal(SECRET, tenant="acme", invocation_id="01ab", keys=keys)
    for tenant, name in (("acme", "01ac"), ("rival", "01ab")):
        with pytest.raises(RecordingDamagedError):
            await open_envelope(envelope, tenant=tenant, invocation_id=name, keys=keys)


async def test_a_file_that_was_moved_to_another_tenant_or_name_does_not_open(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "01ab", SECRET)
    await shelf.files.keep("rival", "01ab", b"rival's own")
    first, second = shelf.paths()
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(swapped)
    for tenant in ("acme", "rival"):
        with pytest.raises(RecordingDamagedError) as damaged:
            await shelf.files.read(tenant, "01ab")
        assert damaged.value.reason is Reason.RECORDING_DAMAGED


async def test_a_tenant_whose_key_is_gone_has_no_recordings_any_more(tmp_path: Path) -> None:
    await Shelf(tmp_path).files.keep("acme", "01ab", SECRET)
    for key in (tmp_path / "keys").iterdir():
        key.unlink()
    with pytest.raises(RecordingDamagedError, match="key"):
        await Shelf(tmp_path).files.read("acme", "01ab")


async def test_a_wrapped_key_is_of_its_tenant(tmp_path: Path) -> None:
    keys = LocalRecordingKeys(tmp_path)
    wrapped = await keys.wrap("acme", b"k" * 32)
    assert await keys.unwrap("acme", wrapped) == b"k" * 32
    other = await keys.wrap("rival", b"k" * 32)
    for forged in (other, WrappedKey(wrapped.key_id, other.wrapped), WrappedKey(wrapped.key_id, b"")):
        with pytest.raises(RecordingDamagedError):
            await keys.unwrap("acme", forged)


async def test_the_oldest_of_a_tenant_make_room_and_nobody_elses(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, RecordingBounds(count_max=2, bytes_max=1 << 20, age_s_max=1e6))
    await shelf.files.keep("rival", "0", SECRET)
    for name in ("1", "2", "3"):
        await shelf.files.keep("acme", name, SECRET)
    assert [shelf.files.has("acme", name) for name in ("1", "2", "3")] == [False, True, True]
    assert shelf.files.has("rival", "0")
    assert len(shelf.paths()) == 3


async def test_bytes_are_bounded_too_and_one_that_is_too_large_alone_is_not_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, RecordingBounds(count_max=100, bytes_max=5_000, age_s_max=1e6))
    await shelf.files.keep("acme", "1", bytes(3_000))
    await shelf.files.keep("acme", "2", bytes(3_000))
    assert [shelf.files.has("acme", name) for name in ("1", "2")] == [False, True]
    await shelf.files.keep("acme", "3", bytes(6_000))
    assert not shelf.files.has("acme", "3")
    assert sum(path.stat().st_size for path in shelf.paths()) <= 5_000


async def test_what_is_too_old_goes_and_a_restart_remembers_ages(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, RecordingBounds(count_max=100, bytes_max=1 << 20, age_s_max=100.0))
    await shelf.files.keep("acme", "1", SECRET)
    (path,) = shelf.paths()
    os.utime(path, (shelf.now - 60, shelf.now - 60))
    again = Shelf(tmp_path, RecordingBounds(count_max=100, bytes_max=1 << 20, age_s_max=100.0))
    assert again.files.has("acme", "1")
    again.now += 50
    await again.files.keep("acme", "2", SECRET)
    assert [again.files.has("acme", name) for name in ("1", "2")] == [False, True]


async def test_what_a_crash_left_half_written_is_removed_at_the_start(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "1", SECRET)
    (path,) = shelf.paths()
    half = path.with_name(".2.recording.0123456789abcdef")
    half.write_bytes(b"half")
    assert await Shelf(tmp_path).files.read("acme", "1") == SECRET
    assert not half.exists()


async def test_a_disk_that_refuses_is_said_and_nothing_is_listed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "1", SECRET)
    (path,) = shelf.paths()
    (path.parent / "2.recording").mkdir()  # a rename onto a directory fails, whoever runs this
    with pytest.raises(StoreFailedError):
        await shelf.files.keep("acme", "2", SECRET)
    assert not shelf.files.has("acme", "2")
    with pytest.raises(ValueError, match="id"):
        await shelf.files.keep("acme", "../2", SECRET)


def test_a_downloaded_file_is_its_owners_and_a_passphrase_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "one"
    write_recording(path, SECRET, passphrase=None)
    assert path.read_bytes() == SECRET
    assert path.stat().st_mode & 0o777 == 0o600
    write_recording(path, SECRET, passphrase=b"correct horse")
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET not in path.read_bytes()
    with pytest.raises(RecordingInvalidError, match="passphrase"):
        read_recording(path, passphrase=None)
    with pytest.raises(RecordingLockedError):
        read_recording(path, passphrase=b"another")
    with pytest.raises(RecordingInvalidError, match="JSON"):  # opened, and then not a recording
        read_recording(path, passphrase=b"correct horse")
    whole = path.read_bytes()
    for index in (0, 9, 30, len(whole) - 1):
        path.write_bytes(whole[:index] + bytes((whole[index] ^ 1,)) + whole[index + 1 :])
        with pytest.raises((RecordingLockedError, RecordingInvalidError)):
            read_recording(path, passphrase=b"correct horse")


async def test_a_tenant_sees_its_own_from_the_newest_in_pages(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for index in range(5):
        shelf.now += 1
        await shelf.files.keep("acme", f"0{index}", SECRET)
    await shelf.files.keep("rival", "09", SECRET)
    first = shelf.files.page("acme", count_max=3)
    assert [each.invocation_id for each in first] == ["04", "03", "02"]
    assert [each.invocation_id for each in shelf.files.page("acme", before="02", count_max=3)] == ["01", "00"]
    assert shelf.files.page("nobody", count_max=3) == []
    assert first[0].written_s == shelf.now
    sizes = {path.stem: path.stat().st_size for path in shelf.paths()}
    assert first[0].size == sizes["04"]
    assert shelf.telemetry.registry.get_sample_value(RECORDINGS_KEPT_BYTES.name) == sum(sizes.values())


async def test_what_is_deleted_is_gone_at_once_and_after_a_restart(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name in ("01ab", "01ac"):
        await shelf.files.keep("acme", name, SECRET)
    await shelf.files.delete("acme", "01ab")
    for files in (shelf.files, Shelf(tmp_path).files):
        assert not files.has("acme", "01ab")
        assert [each.invocation_id for each in files.page("acme", count_max=9)] == ["01ac"]
        with pytest.raises(UnknownRecordingError):
            await files.read("acme", "01ab")
    assert [path.stem for path in shelf.paths()] == ["01ac"]
    assert shelf.telemetry.registry.get_sample_value(RECORDINGS.name, {"result": "deleted"}) == 1


async def test_nobody_deletes_what_is_not_theirs(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.files.keep("acme", "01ab", SECRET)
    for tenant, name in (("rival", "01ab"), ("acme", "../01ab"), ("acme", "01ac"), ("acme", "")):
        with pytest.raises(UnknownRecordingError):
            await shelf.files.delete(tenant, name)
    assert await shelf.files.read("acme", "01ab") == SECRET
