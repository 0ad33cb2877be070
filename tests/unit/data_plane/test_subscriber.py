"""Blobs as a control plane may send them, well or badly; pauses between attempts."""

import hashlib
import os
from collections.abc import AsyncIterator

import pytest
import zstandard
from agentfactory.distribution.v1 import distribution_pb2 as pb

from data_plane.generation_files import BlobError
from data_plane.grpc_subscriber import Backoff, received_blobs

ONE, TWO = b"one" * 1000, os.urandom(700_000)
EMPTY = b""
ZEROES = bytes(9_000_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pieces(
    data: bytes, *, name: bytes = b"", length: int = -1, frame: bytes | None = None
) -> list[pb.FetchBlobsResponse]:
    whole = zstandard.compress(data) if frame is None else frame
    parts = [whole[start : start + 262_144] for start in range(0, len(whole), 262_144)] or [b""]
    return [
        pb.FetchBlobsResponse(
            sha256=name or hashlib.sha256(data).digest(),
            length=len(data) if length < 0 else length,
            piece_zstd=part,
            last=index == len(parts) - 1,
        )
        for index, part in enumerate(parts)
    ]


async def received(sent: list[pb.FetchBlobsResponse], *wanted: bytes) -> dict[str, bytes]:
    async def stream() -> AsyncIterator[pb.FetchBlobsResponse]:
        for each in sent:
            yield each

    return {name: data async for name, data in received_blobs(stream(), {sha(each): len(each) for each in wanted})}


async def test_blobs_are_put_together_from_their_pieces() -> None:
    assert len(pieces(TWO)) > 1
    got = await received([*pieces(ONE), *pieces(TWO), *pieces(EMPTY)], ONE, TWO, EMPTY)
    assert got == {sha(ONE): ONE, sha(TWO): TWO, sha(EMPTY): EMPTY}


BOMB = zstandard.compress(b"\0" * 50_000_000)
WIDE = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
).compress(ZEROES)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ([], [ONE]),
        (pieces(ONE), [ONE, TWO]),
        ([*pieces(ONE), *pieces(ONE)], [ONE]),
        (pieces(TWO), [ONE]),
        (pieces(ONE, length=5), [ONE]),
        (pieces(ONE, frame=BOMB), [ONE]),
        (pieces(ONE, frame=b"not zstd"), [ONE]),
        (pieces(ONE, frame=zstandard.compress(ONE) + b"tail"), [ONE]),
        (pieces(ONE, frame=zstandard.compress(ONE)[:-3]), [ONE]),
        (pieces(TWO, frame=os.urandom(1_000_000)), [TWO]),
        (pieces(ZEROES, frame=WIDE), [ZEROES]),
        ([*pieces(TWO)[:-1], *pieces(ONE)], [ONE, TWO]),
        (pieces(TWO)[:-1], [TWO]),
    ],
    ids=["nothing", "one missing", "twice", "unwanted", "wrong length", "bomb", "garbage", "tail", "cut", "too long",
         "wide window", "interleaved", "no end"],
)  # fmt: skip
async def test_anything_else_is_refused(sent: list[pb.FetchBlobsResponse], wanted: list[bytes]) -> None:
    with pytest.raises(BlobError):
        await received(sent, *wanted)


def test_pauses_double_with_jitter_and_start_anew_after_success() -> None:
    jitter = iter([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    backoff = Backoff(first_s=0.2, max_s=1.0, jitter=lambda: next(jitter))
    assert [backoff.pause_s() for _ in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.0, 0.5])
    backoff.reset()
    assert backoff.pause_s() == pytest.approx(0.2)
