"""A submitter who sends a byte now and then does not keep others out for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from control_plane import intake
from control_plane.submission import SubmissionRefusedError
from templates.resolved import BlobPin


async def test_a_trickle_ends_however_regular_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "CODE_TIMEOUT_S", 0.05)

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield b"x"

    blob = BlobPin(sha256="0" * 64, length=1 << 24)
    with pytest.raises(SubmissionRefusedError, match="all code within"):
        await intake._receive_all([blob], trickle())
