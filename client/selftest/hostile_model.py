"""An endpoint on loopback that speaks OpenAI's ``/chat/completions``, and answers with attacks: one for each model.

Each model has a binding of its own name, so that the circuit breaker of one attack is not another's. What it received
is kept, so that an attack on the key can show that there was one.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
KEY: Final = "selftest-model-key"
OUTPUT_TOKENS_MAX: Final = 100
_HEAD_BYTES_MAX: Final = 65_536
_BODY_BYTES_MAX: Final = 1 << 20
_FLOOD_BYTES: Final = 64 << 20
_PIECE_BYTES: Final = 65_536
_EVENT_BYTES: Final = 16
_OPENED: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its JSON body, and the ``Authorization`` that it came with."""

    body: Mapping[str, Any]
    key: str

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(slots=True)
class HostileModel:
    """``asked`` grows with every request; ``open`` is how many are being answered."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=_HEAD_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of a node whose operator set this endpoint up, with a key."""
        binding = {
            "base_url": f"http://{HOST}:{self.port}/v1",
            "networks": [f"{HOST}/32"],
            "secret": KEY,
            "models": {name: {} for name in _BEHAVIOURS},
            "output_tokens_max": OUTPUT_TOKENS_MAX,
        }
        return {"llm_bindings": json.dumps(dict.fromkeys(_BEHAVIOURS, binding)), "llm_cache_s": "60"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
                length = min(int(fields["content-length"]), _BODY_BYTES_MAX)
                asked = Asked(json.loads(await reader.readexactly(length)), fields.get("authorization", ""))
                self.asked.append(asked)
                await _BEHAVIOURS[asked.model](asked, writer)
                await writer.drain()
        finally:
            self.open -= 1
            writer.close()


def _whole(value: bytes, *, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(value)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + value


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _delta(text: str) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


async def _answer(asked: Asked, writer: asyncio.StreamWriter, text: str, *, reason: str = "stop", **other: Any) -> None:
    """Answer as a model does, a stream in small pieces; ``other`` are the members beside the choices."""
    if not asked.streams:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        writer.write(_whole(json.dumps({"choices": [choice], **other}).encode()))
        return
    writer.write(_OPENED)
    for at in range(0, len(text), _EVENT_BYTES):
        writer.write(_delta(text[at : at + _EVENT_BYTES]))
        await writer.drain()
    writer.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **other}))
    writer.write(b"data: [DONE]\n\n")


async def _plain(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await _answer(asked, writer, "an answer", usage={"prompt_tokens": 1, "completion_tokens": 2})


async def _endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(_OPENED)
    piece = _delta("on and " * 1_000) if asked.streams else b" " * _PIECE_BYTES
    for _ in range(_FLOOD_BYTES // len(piece)):
        writer.write(piece)
        await writer.drain()


async def _silent(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Opens a stream, and then says nothing for longer than any attack waits."""
    writer.write(_OPENED)
    await writer.drain()
    for _ in range(300):
        writer.write(b": still here\n\n")
        await writer.drain()
        await asyncio.sleep(0.2)


async def _giant_line(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(_OPENED + b'data: {"choices": [{"delta": {"content": "')
    for _ in range(_FLOOD_BYTES // _PIECE_BYTES):
        writer.write(b"x" * _PIECE_BYTES)
        await writer.drain()


async def _leaky(asked: Asked, writer: asyncio.StreamWriter) -> None:
    credential = asked.key.rpartition(" ")[2].encode()
    forms = [asked.key.encode(), credential[::-1], credential.hex().encode(), base64.b64encode(b"x" + credential)]
    text = " and ".join(form.decode() for form in forms)
    await _answer(asked, writer, text, reason=credential[::-1].decode(), model=credential.decode())


async def _leaky_error(asked: Asked, writer: asyncio.StreamWriter) -> None:
    error = {"error": {"message": f"\x1b[31mthe key {asked.key} is no good\r\nX-Injected: 1"}}
    if asked.streams:
        writer.write(_OPENED + _delta("half of ") + _event(error))
    else:
        writer.write(_whole(json.dumps(error).encode(), status="401 Unauthorized"))


async def _overrun(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Says more, and counts more, than it was asked for."""
    words = 50 * OUTPUT_TOKENS_MAX
    await _answer(asked, writer, "word " * words, usage={"prompt_tokens": 1, "completion_tokens": words})


async def _liar(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Counts what cannot be, so that its use would be given back."""
    await _answer(asked, writer, "free", usage={"prompt_tokens": -1_000_000, "completion_tokens": -(1 << 70)})


async def _impostor(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await _answer(asked, writer, "\ud800 says another", model="\x1b]0;gpt-9\x07", object=["not", "this"])


async def _garbled(asked: Asked, writer: asyncio.StreamWriter) -> None:
    deep = b'{"choices":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    writer.write(_OPENED + b"data: " + deep + b"\n\n" if asked.streams else _whole(deep))


_BEHAVIOURS: Final[Mapping[str, Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]]] = {
    "plain": _plain,
    "endless": _endless,
    "silent": _silent,
    "giant-line": _giant_line,
    "leaky": _leaky,
    "leaky-error": _leaky_error,
    "overrun": _overrun,
    "liar": _liar,
    "impostor": _impostor,
    "garbled": _garbled,
}
