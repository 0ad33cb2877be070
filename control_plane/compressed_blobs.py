"""Blobs as they travel: each compressed once, however many nodes ask at the same time, and kept while there is room."""

import asyncio
from collections import OrderedDict

import zstandard

from control_plane.file_blobs import FileBlobs

LEVEL = 3
WINDOW_LOG = 23


class CompressedBlobs:
    """Least recently used frames leave first; the sum of those kept is at most ``bytes_max``."""

    def __init__(self, blobs: FileBlobs, *, bytes_max: int) -> None:
        self._blobs = blobs
        self._bytes_max = bytes_max
        self._bytes = 0
        self._frames: OrderedDict[str, bytes] = OrderedDict()
        self._pending: dict[str, asyncio.Future[bytes]] = {}

    async def frame(self, sha256: str) -> bytes:
        """Return one zstd frame over the blob, whose bytes were checked against their digest.

        Raises:
            BlobMissingError, BlobDamagedError: see `control_plane.file_blobs`.
        """
        if sha256 in self._frames:
            self._frames.move_to_end(sha256)
            return self._frames[sha256]
        pending = self._pending.get(sha256)
        if pending is None:
            pending = asyncio.ensure_future(asyncio.to_thread(self._compress, sha256))
            self._pending[sha256] = pending
            pending.add_done_callback(lambda done: self._keep(sha256, done))
        return await asyncio.shield(pending)

    def _compress(self, sha256: str) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(LEVEL, window_log=WINDOW_LOG)
        return zstandard.ZstdCompressor(compression_params=parameters).compress(self._blobs.read(sha256))

    def _keep(self, sha256: str, done: "asyncio.Future[bytes]") -> None:
        self._pending.pop(sha256, None)
        if done.cancelled() or done.exception() is not None or len(done.result()) > self._bytes_max:
            return
        self._frames[sha256] = done.result()
        self._bytes += len(done.result())
        while self._bytes > self._bytes_max:
            _, removed = self._frames.popitem(last=False)
            self._bytes -= len(removed)
