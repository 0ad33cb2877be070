"""Bytes that are neither TLS nor HTTP/2, on the node's port and on its page of metrics.

Source: CWE-20. Expected: the connections are closed; nothing is logged but clean lines.
"""

import asyncio
import contextlib

from client.selftest.attack import Attack
from client.selftest.stage import Stage

_PIECES = (
    b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4_096, b"\x16\x03\x01\xff\xff" + b"\x41" * 4_096, b"\x1b[2J\r\n" * 100,
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000, b"\xff" * 65_536,
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /readyz HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for address in (stage.node.address, stage.node.observation):
        host, _, port = address.rpartition(":")
        for piece in _PIECES:
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(OSError, TimeoutError):
                writer.write(piece)
                async with asyncio.timeout(0.1):
                    stage.note(await reader.read(65_536))
            writer.close()


ATTACK = Attack(run=_run)
