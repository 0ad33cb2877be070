"""Small decisions, each with its refusals: names, pages, permissions, roles, what nodes say, turns, frames."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from control_plane.compressed_blobs import CompressedBlobs
from control_plane.file_blobs import BlobMissingError, FileBlobs
from control_plane.fleet import NodeView, Refusal
from control_plane.paging import (
    PAGE_BYTES_MAX,
    PAGE_SIZE_MAX,
    PageTokenError,
    fitting,
    page_size,
    position_of,
    token_of,
)
from control_plane.push import Stage
from control_plane.review import ChangeUnknownError, change_number
from control_plane.roles import Role, expiry_warnings, roles_of
from control_plane.trust_directory import TrustUnreadableError, read_trust_directory, trust_files, trust_of
from control_plane.turns import Turns
from templates.revocations import Revocations
from tests.installation import LocalInstallation, write_trust
from tests.unit.control_plane.world import SOURCE, World, source_document

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sized:
    size: int

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's name
        return self.size


class TestNames:
    def test_of_changes(self) -> None:
        assert change_number("changes/7") == 7

    @pytest.mark.parametrize(
        "name", ["", "7", "changes/", "changes/x", "changes/-1", "changes/1/2", "changes/" + "9" * 19, "changes/٣"]
    )
    def test_that_are_none(self, name: str) -> None:
        with pytest.raises(ChangeUnknownError):
            change_number(name)


class TestPages:
    @given(position=st.integers(min_value=0, max_value=10**15))
    def test_a_token_gives_its_position_back(self, position: int) -> None:
        assert position_of(token_of(position)) == position

    @pytest.mark.parametrize("token", ["x", "7", "p", "p-1", "p1.5", "p" + "1" * 19])
    def test_other_texts_are_refused(self, token: str) -> None:
        with pytest.raises(PageTokenError):
            position_of(token)

    @given(sizes=st.lists(st.integers(min_value=0, max_value=PAGE_BYTES_MAX * 2), max_size=20))
    def test_what_does_not_fit_into_an_answer_is_for_the_next_page(self, sizes: list[int]) -> None:
        page = fitting(Sized(size) for size in sizes)
        assert [each.size for each in page] == sizes[: len(page)]
        assert bool(page) == bool(sizes)
        assert len(page) <= 1 or sum(each.size for each in page) <= PAGE_BYTES_MAX
        if len(page) < len(sizes):
            assert sum(sizes[: len(page) + 1]) > PAGE_BYTES_MAX

    def test_sizes(self) -> None:
        assert (page_size(0), page_size(3), page_size(10**6)) == (50, 3, PAGE_SIZE_MAX)
        with pytest.raises(PageTokenError):
            page_size(-1)


class TestRoles:
    async def test_are_read_from_a_generation(self, world: World) -> None:
        await world.start()
        roles = {role.name: role for role in roles_of(world.publisher.present.metadata)}
        assert list(roles)[:2] == ["root", "targets"]
        assert set(roles) == {
            "root", "targets", "snapshot", "timestamp", "plan", "library-docs", "library-images", "library-dev",
        }  # fmt: skip
        assert roles["root"].key_ids == (world.installation.root.public_key.keyid,)
        assert roles["plan"].key_ids == (world.installation.online.plan.public_key.keyid,)
        assert {name for name, role in roles.items() if not role.is_online} == {"root", "targets"}

    @pytest.mark.parametrize(
        ("role", "left", "warned"),
        [
            ("root", timedelta(days=31), ""),
            ("root", timedelta(days=29), "expires"),
            ("root", timedelta(seconds=-1), "expired"),
            ("plan", timedelta(days=2), ""),
            ("plan", timedelta(hours=23), "expires"),
            ("timestamp", timedelta(seconds=200), ""),
            ("timestamp", timedelta(seconds=100), "expires"),
        ],
    )
    def test_are_warned_of(self, role: str, left: timedelta, warned: str) -> None:
        roles = (Role(name=role, version=3, expires=NOW + left, key_ids=(), threshold=1),)
        warnings = expiry_warnings(roles, {}, lease_s=600, now=NOW)
        assert [each.split()[3] for each in warnings] == ([warned] if warned else [])

    def test_approvals_are_warned_of_too(self) -> None:
        warnings = expiry_warnings(
            (), {"docs/a@1.0.0": NOW + timedelta(days=3), "docs/b@1.0.0": NOW + timedelta(days=60)}, lease_s=1, now=NOW
        )
        assert [each.split()[3] for each in warnings] == ["docs/a@1.0.0"]


class TestFleet:
    def test_a_refusal_is_forgotten_with_a_newer_acknowledgement(self) -> None:
        refusal = Refusal(generation=5, phase="VERIFY", template="", reason="R", message="m", retryable=False)
        view = NodeView(id="n", seen_at=NOW).nacked(now=NOW, refusal=refusal)
        older = view.acked(now=NOW, generation=4, stage=Stage.ACTIVE)
        assert older.refusal == refusal
        assert older.acked(now=NOW, generation=5, stage=Stage.VERIFIED).refusal is None

    @given(text=st.text(max_size=2000))
    def test_what_a_node_says_is_one_short_line(self, text: str) -> None:
        refusal = Refusal(generation=1, phase=text, template=text, reason=text, message=text, retryable=False)
        kept = NodeView(id="n", seen_at=NOW).nacked(now=NOW, refusal=refusal).refusal
        assert kept is not None
        for each in (kept.phase, kept.template, kept.reason, kept.message):
            assert len(each) <= 500
            assert each.isprintable()
            assert len(each.splitlines()) <= 1


class TestTrustDirectory:
    def test_reads_what_was_written(self, installation: LocalInstallation, tmp_path: Path) -> None:
        write_trust(tmp_path, installation.trust)
        assert read_trust_directory(tmp_path) == installation.trust
        assert trust_of(trust_files(installation.trust)) == installation.trust

    @pytest.mark.parametrize("version", [0, 3])
    def test_refuses_a_chain_with_a_gap(self, installation: LocalInstallation, tmp_path: Path, version: int) -> None:
        write_trust(tmp_path, installation.trust)
        (tmp_path / "1.root.json").write_bytes(b"{}")
        (tmp_path / f"{version}.root.json").write_bytes(b"{}")
        if version:
            with pytest.raises(TrustUnreadableError, match="versions 1, 3"):
                read_trust_directory(tmp_path)
        else:
            assert read_trust_directory(tmp_path).roots == (b"{}",), "0.root.json is no root"

    def test_refuses_what_is_too_long(self, installation: LocalInstallation, tmp_path: Path) -> None:
        write_trust(tmp_path, installation.trust)
        (tmp_path / "charter.json").write_bytes(bytes((4 << 20) + 1))
        with pytest.raises(TrustUnreadableError, match=r"charter\.json"):
            read_trust_directory(tmp_path)


class TestTurns:
    async def test_one_after_the_other(self) -> None:
        running, seen = 0, list[int]()

        async def work(number: int) -> int:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1
            seen.append(number)
            return number

        async with Turns() as turns:
            results = await asyncio.gather(*(turns.take(lambda number=number: work(number)) for number in range(20)))  # type: ignore[misc]
        assert results == seen == list(range(20))

    async def test_a_caller_that_goes_away_stops_nothing(self) -> None:
        release, done = asyncio.Event(), list[str]()

        async def work() -> None:
            await release.wait()
            done.append("done")

        async with Turns() as turns:
            asking = asyncio.ensure_future(turns.take(work))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            release.set()
        assert done == ["done"]

    async def test_a_failure_reaches_whoever_asked_and_the_next_gets_its_turn(self) -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("expected")

        async def succeed() -> str:
            await asyncio.sleep(0)
            return "well"

        async with Turns() as turns:
            with pytest.raises(ValueError, match="expected"):
                await turns.take(fail)
            assert await turns.take(succeed) == "well"


class TestCompressedBlobs:
    async def test_many_who_ask_at_once_cost_one_read(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        sha256 = blobs.put(b"data" * 1000)
        compressed = CompressedBlobs(blobs, bytes_max=1 << 20)
        frames = await asyncio.gather(*(compressed.frame(sha256) for _ in range(50)))
        assert len({id(frame) for frame in frames}) == 1
        assert zstandard.ZstdDecompressor().decompress(frames[0]) == b"data" * 1000

    async def test_the_least_recently_used_leaves_first(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        noise = [b"".join(hashlib.sha256(bytes([seed, each])).digest() for each in range(30)) for seed in range(3)]
        one, two, three = (blobs.put(data) for data in noise)
        compressed = CompressedBlobs(blobs, bytes_max=2100)
        kept = await compressed.frame(one)
        await compressed.frame(two)
        assert await compressed.frame(one) is kept
        await compressed.frame(three)
        assert await compressed.frame(one) is kept
        assert list(compressed._frames) == [three, one]

    async def test_what_is_missing_is_missing_each_time(self, tmp_path: Path) -> None:
        compressed = CompressedBlobs(FileBlobs(tmp_path), bytes_max=1 << 20)
        for _ in range(2):
            with pytest.raises(BlobMissingError):
                await compressed.frame("0" * 64)

    async def test_what_is_too_big_to_keep_is_served_all_the_same(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        sha256 = blobs.put(bytes(range(256)))
        compressed = CompressedBlobs(blobs, bytes_max=10)
        assert await compressed.frame(sha256)
        assert not compressed._frames


async def test_a_template_is_outdated_when_its_parent_or_image_moved_on(world: World) -> None:
    await world.start()
    await world.publish_image("0.1.0")
    change = await world.publish(source_document(), SOURCE)
    library = world.publisher.present.material.library
    echo = library.get(change.ref)
    assert echo is not None
    assert not library.is_outdated(echo, Revocations())
    await world.publish_image("0.2.0", b"\0asm image two")
    assert world.publisher.present.material.library.is_outdated(echo, Revocations())
