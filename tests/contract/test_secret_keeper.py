"""One body for every keeper of secrets: a node's directory, and the fake that tests use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from data_plane.broker.secret_binding import SecretKeeper, SecretUnusableError
from data_plane.secret_directory import TTL_S, SecretDirectory
from tests.egress_world import MemorySecrets

CONTENTS = {"api-token": b"Bearer 0123456789\n", "short": b"abc", "binary": b"\x00" * 20}
Put = Callable[[str, bytes], None]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def put_file(directory: Path, name: str, content: bytes) -> None:
    (directory / name).unlink(missing_ok=True)
    (directory / name).touch(mode=0o600)
    (directory / name).write_bytes(content)


@pytest.fixture(params=["directory", "memory"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> tuple[SecretKeeper, Put]:
    if request.param == "memory":
        memory = MemorySecrets(CONTENTS)
        return memory, memory.contents.__setitem__
    for name, content in CONTENTS.items():
        put_file(tmp_path, name, content)

    def put(name: str, content: bytes) -> None:
        put_file(tmp_path, name, content)
        clock.now += TTL_S

    return SecretDirectory(tmp_path, monotonic=clock), put


Keeper = tuple[SecretKeeper, Put]


async def test_a_secret_is_the_one_line_that_is_kept(keeper: Keeper) -> None:
    assert (await keeper[0].secret("api-token")).value == "Bearer 0123456789"


async def test_a_changed_secret_is_used(keeper: Keeper) -> None:
    kept, put = keeper
    await kept.secret("api-token")
    put("api-token", b"Bearer abcdefghij")
    assert (await kept.secret("api-token")).value == "Bearer abcdefghij"


async def test_a_secret_that_came_later_is_found(keeper: Keeper) -> None:
    kept, put = keeper
    with pytest.raises(SecretUnusableError):
        await kept.secret("later")
    put("later", b"0123456789")
    assert (await kept.secret("later")).value == "0123456789"


@pytest.mark.parametrize("name", ["short", "binary", "missing", "../api-token", "", ".", "api-token\n"])
async def test_what_is_no_secret_is_refused_without_its_value(keeper: Keeper, name: str) -> None:
    with pytest.raises(SecretUnusableError) as caught:
        await keeper[0].secret(name)
    assert "abc" not in str(caught.value)


# --- of the directory alone


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700 | 0o011])
async def test_a_file_that_others_can_read_is_refused(tmp_path: Path, clock: Clock, mode: int) -> None:
    put_file(tmp_path, "token", b"0123456789")
    (tmp_path / "token").chmod(mode)
    with pytest.raises(SecretUnusableError, match="expected mode 0600"):
        await SecretDirectory(tmp_path, monotonic=clock).secret("token")


async def test_what_is_no_regular_file_is_refused(tmp_path: Path, clock: Clock) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    directory = SecretDirectory(tmp_path, monotonic=clock)
    for name in ("fifo", "folder"):
        with pytest.raises(SecretUnusableError, match=r"regular file|folder"):
            await directory.secret(name)


async def test_a_projected_volume_is_followed(tmp_path: Path, clock: Clock) -> None:
    for version, content in (("v1", b"0123456789"), ("v2", b"abcdefghij")):
        (tmp_path / version).mkdir()
        put_file(tmp_path / version, "token", content)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "token").symlink_to("data/token")
    directory = SecretDirectory(tmp_path, monotonic=clock)
    assert (await directory.secret("token")).value == "0123456789"
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    assert (await directory.secret("token")).value == "0123456789"  # for as long as TTL_S
    clock.now += TTL_S
    assert (await directory.secret("token")).value == "abcdefghij"


async def test_a_secret_that_was_removed_is_no_longer_used(tmp_path: Path, clock: Clock) -> None:
    put_file(tmp_path, "token", b"0123456789")
    directory = SecretDirectory(tmp_path, monotonic=clock)
    await directory.secret("token")
    (tmp_path / "token").unlink()
    clock.now += TTL_S
    with pytest.raises(SecretUnusableError):
        await directory.secret("token")


async def test_without_a_directory_there_are_no_secrets(clock: Clock) -> None:
    with pytest.raises(SecretUnusableError, match="without a secrets directory"):
        await SecretDirectory(None, monotonic=clock).secret("token")
