"""Frames of a few bytes that say, or hide, that they become gigabytes.

Source: CWE-409. Expected: FRAME_REFUSED, before anything is decompressed.
"""

import zstandard

from client.selftest.attack import Attack, BreachError
from client.selftest.stage import Stage
from templates.bundle import BUNDLE_BYTES_MAX, FrameRefusedError, decompress

_BOMB_BYTES = 1 << 20


async def _run(stage: Stage) -> None:
    packed = zstandard.ZstdCompressor(level=19).compress(bytes(BUNDLE_BYTES_MAX + 1))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(_BOMB_BYTES))
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    ).compress(bytes(_BOMB_BYTES))
    for name, frame, most in (
        ("declared", packed, BUNDLE_BYTES_MAX),
        ("unsized", unsized, _BOMB_BYTES - 1),
        ("wide", wide, _BOMB_BYTES - 1),
        ("doubled", packed + packed, BUNDLE_BYTES_MAX),
    ):
        stage.require(len(frame) < _BOMB_BYTES, f"expected a small frame, got {len(frame)} bytes")
        try:
            decompress(frame, bytes_max=most)
        except FrameRefusedError:
            continue
        raise BreachError(f"expected FRAME_REFUSED for a frame that is {name}")


ATTACK = Attack(run=_run)
