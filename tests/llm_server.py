"""Speaks OpenAI's ``/chat/completions``, deterministic, with every way to misbehave as a model of its own.

``python -m tests.llm_server --port 8080`` lets authors try a template without an account anywhere:
``agentctl template run … --grant llm:default=http://127.0.0.1:8080/v1``. A token is a word here.

==============  =====================================================================================
model           answers
==============  =====================================================================================
echo            ``echo: `` and the last message; ``length`` where ``max_tokens`` cuts it
count           the number of requests for this model so far
silent          as ``echo``, without usage
leaky           the ``Authorization`` header that it got
busy-once       429 with ``Retry-After: 0`` at first, then as ``echo``
busy            429 with ``Retry-After: 3600``
broken          500
forbidden       401 with the ``Authorization`` header in its message
moved           307 to another server
slow            nothing, for a long time
garbled         200 with what is not JSON
endless         a body or a stream that never ends
abrupt          half of a stream, and the connection is closed
overloaded      half of a stream, and an error object
==============  =====================================================================================
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import HttpServer, Seen, ServerTls, http_server, ok, threaded_http_server

PATH = "/v1/chat/completions"
SLOW_S = 60.0
ENDLESS_PAUSE_S = 0.001
CALM = ("echo", "count", "silent", "leaky", "busy-once")


@dataclass(slots=True, kw_only=True)
class LlmServer:
    """``requests`` are the bodies that came, in their order; ``keys`` the ``Authorization`` headers."""

    http: HttpServer
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"{self.http.origin}/v1"

    def count(self, model: str) -> int:
        return Counter(each["model"] for each in self.requests)[model]


class _Models:
    def __init__(self) -> None:
        self.server: LlmServer

    async def handle(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        if (seen.method, seen.target) != ("POST", PATH):
            writer.write(_error("404 Not Found", f"no such path: {seen.target}"))
            return
        request = json.loads(seen.body)
        key = seen.headers.get("authorization", "")
        self.server.requests.append(request)
        self.server.keys.append(key)
        model = request["model"]
        if model == "slow":
            await asyncio.sleep(SLOW_S)
        elif (refusal := self._refusal(model, key)) is not None:
            writer.write(refusal)
        elif request.get("stream"):
            await self._stream(request, key, writer)
        else:
            await self._whole(request, key, writer)
        await writer.drain()

    def _refusal(self, model: str, key: str) -> bytes | None:
        match model:
            case "busy-once" if self.server.count(model) == 1:
                return _error("429 Too Many Requests", "slow down", "Retry-After: 0")
            case "busy":
                return _error("429 Too Many Requests", "slow down", "Retry-After: 3600")
            case "broken":
                return _error("500 Internal Server Error", "out of order\x1b[31m\r\nX-Injected: 1")
            case "forbidden":
                return _error("401 Unauthorized", f"bad key: {key}")
            case "moved":
                return ok(b"", "Location: http://169.254.169.254/", status="307 Temporary Redirect")
        return None

    def _text(self, request: dict[str, Any], key: str) -> str:
        match request["model"]:
            case "count":
                return str(self.server.count("count"))
            case "leaky":
                return f"the key is {key} indeed"
        return f"echo: {request['messages'][-1]['content']}"

    async def _whole(self, request: dict[str, Any], key: str, writer: asyncio.StreamWriter) -> None:
        if request["model"] == "garbled":
            writer.write(ok(b"<html>not JSON</html>"))
            return
        if request["model"] == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
        words, reason, usage = _cut(self._text(request, key), request)
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": request["model"],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": reason}
            ],
            **({} if request["model"] == "silent" else {"usage": usage}),
        }
        writer.write(ok(json.dumps(answer).encode(), "Content-Type: application/json"))

    async def _stream(self, request: dict[str, Any], key: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        model = request["model"]
        words, reason, usage = _cut(self._text(request, key), request)
        if model == "endless":
            while True:
                writer.write(_event(_delta("on and ")))
                await writer.drain()
                await asyncio.sleep(ENDLESS_PAUSE_S)
        if model == "garbled":
            writer.write(b"data: <html>\n\n")
            return
        if model in {"abrupt", "overloaded"}:
            writer.write(_event(_delta("half of ")))
            if model == "overloaded":
                writer.write(_event({"error": {"message": f"overloaded {key}"}}))
            return
        writer.write(b": welcome\n\n")
        for number, word in enumerate(words):
            writer.write(_event(_delta(word if number == 0 else f" {word}")))
            await writer.drain()
        writer.write(_event({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
        if model != "silent" and request.get("stream_options", {}).get("include_usage"):
            writer.write(_event({"model": model, "choices": [], "usage": usage}))
        writer.write(b"data: [DONE]\n\n")


def _cut(text: str, request: dict[str, Any]) -> tuple[list[str], str, dict[str, int]]:
    words = text.split(" ")
    kept = words[: request.get("max_tokens", request.get("max_completion_tokens"))]
    asked = sum(len(each["content"].split()) for each in request["messages"])
    usage = {"prompt_tokens": asked, "completion_tokens": len(kept), "total_tokens": asked + len(kept)}
    return kept, "stop" if kept == words else "length", usage


def _delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _error(status: str, message: str, *headers: str) -> bytes:
    return ok(json.dumps({"error": {"message": message}}).encode(), *headers, status=status)


@asynccontextmanager
async def llm_server(
    *, tls: ServerTls | None = None, host: str = "localhost", port: int = 0
) -> AsyncIterator[LlmServer]:
    """Serve on loopback; ``host`` is what it calls itself."""
    models = _Models()
    async with http_server(models.handle, tls=tls, host=host, port=port) as http:
        models.server = LlmServer(http=http)
        yield models.server


@contextmanager
def threaded_llm_server(*, tls: ServerTls | None = None, host: str = "localhost") -> Iterator[LlmServer]:
    """`llm_server` in a thread of its own, for tests that block."""
    models = _Models()
    with threaded_http_server(models.handle, tls=tls, host=host) as http:
        models.server = LlmServer(http=http)
        yield models.server


async def _by_hand(port: int) -> None:
    async with llm_server(host="127.0.0.1", port=port) as server:
        sys.stderr.write(f"{server.base_url} speaks as {', '.join(CALM)}; stop it with Ctrl-C\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.llm_server", description="A language model that echoes.")
    parser.add_argument("--port", type=int, default=8080)
    with suppress(KeyboardInterrupt):
        asyncio.run(_by_hand(parser.parse_args().port))
