"""Fuzz targets of what crosses the broker: guests' requests of it, and what endpoints answer; see `targets`."""

import json
import posixpath
import re
from contextlib import suppress
from urllib.parse import unquote

from data_plane.agent_messages import read_page_token
from data_plane.agents.refusals import InvalidRequestError
from data_plane.broker.agents_grant import read_child_request
from data_plane.broker.answers import HostRefusal, Members
from data_plane.broker.http_grant import HEADERS_OF_EVERY_AGENT, OutgoingRequest, outgoing, read_http_request
from data_plane.broker.llm_answer import (
    NAME_CHARACTERS_MAX,
    REPORTED_TOKENS_MAX,
    TEXT_BYTES_MAX,
    EndpointBrokeOffError,
    LlmAnswer,
    printable,
    read_answer,
    read_chunk,
)
from data_plane.broker.llm_answer_stream import AnswerStream, Scrubbing
from data_plane.broker.llm_grant import cache_key, read_llm_request
from data_plane.broker.llm_stream import EventParser, StreamLimits
from data_plane.broker.scrub import Scrubber
from service.identity import Identity, InvalidIdentityError
from templates.grants import Grants, HttpGrant

KEY = "sk-fuzz-0123456789"
HTTP = HttpGrant(
    binding="api",
    origin="https://api.example.org",
    methods=("GET", "POST"),
    path_prefixes=("/v1", "/v2/things/"),
    headers=("x-trace",),
)
STREAM = StreamLimits(line_bytes_max=512, bytes_max=8_192, lines_max=64)
_PIECES = (1, 2, 3, 7, 64)
_SCRUBBER = Scrubber([KEY])
_TARGET = re.compile(r"/[!-~]*")


async def _scrub_long(text: str) -> str:
    return _SCRUBBER.scrub_text(text)


_SCRUBBING = Scrubbing(scrub=_SCRUBBER.scrub_text, scrub_long=_scrub_long, reach=3 * len(KEY))


def llm_streams(data: bytes) -> None:
    """Server-sent events: what a naive reader finds, however they are cut; an answer never holds the key."""
    piece, data = _PIECES[data[0] % len(_PIECES)] if data else 1, data[1:]
    whole = _events(data, max(1, len(data)), STREAM)
    cut = _events(data, piece, STREAM)
    assert (whole is None) is (cut is None), "a limit that depends on how the bytes arrive"
    assert whole == cut
    if whole is not None:
        assert whole == _naive_events(data)
    texts = {_answered(data, each, _SCRUBBING) for each in (piece, max(1, len(data)))}
    for text in texts:
        text.encode()
        assert KEY not in text, "the key came back"


def _events(data: bytes, piece: int, limits: StreamLimits) -> list[str] | None:
    parser = EventParser(limits)
    found: list[str] = []
    try:
        for start in range(0, len(data), piece):
            found += parser.feed(data[start : start + piece])
    except HostRefusal:
        return None
    return found


def _naive_events(data: bytes) -> list[str]:
    """The HTML standard, section 9.2.6, over the whole text at once."""
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    events: list[str] = []
    held: list[bytes] = []
    for line in lines:
        if not line and held:
            events.append(b"\n".join(held).decode())
            held = []
        elif line == b"data":
            held.append(b"")
        elif line.startswith(b"data:"):
            held.append(line[5:].removeprefix(b" "))
    return events


def _answered(data: bytes, piece: int, scrubbing: Scrubbing) -> str:
    stream = AnswerStream(model="asked", scrubbing=scrubbing, limits=STREAM)
    texts: list[str] = []
    try:
        for start in range(0, len(data), piece):
            texts.append(stream.feed(data[start : start + piece]))
            if stream.is_done:
                break
        texts.append(stream.end())
    except HostRefusal as refusal:
        assert refusal.message.isprintable()
        return "".join(texts) + refusal.message
    answer = stream.answer("".join(texts))
    _check(answer)
    return answer.text + answer.model + answer.finish_reason


def llm_answers(data: bytes) -> None:
    """A whole answer, and one event: a refusal or amounts and names that can be believed, in valid Unicode."""
    with suppress(HostRefusal):
        answer = read_answer(data, model="asked")
        _check(answer)
        assert len(answer.text.encode()) <= TEXT_BYTES_MAX
    try:
        chunk = read_chunk(data.decode("utf-8", "replace"))
    except HostRefusal:
        return
    except EndpointBrokeOffError as error:
        assert printable(error.said).isprintable()
        return
    _check(LlmAnswer(text=chunk.delta, model=chunk.model, finish_reason=chunk.finish_reason, usage=chunk.usage))


def _check(answer: LlmAnswer) -> None:
    answer.text.encode()
    for name in (answer.model, answer.finish_reason):
        assert name.isprintable()
        assert len(name) <= NAME_CHARACTERS_MAX + len("[secret]") * NAME_CHARACTERS_MAX
    if answer.usage is not None:
        for amount in (answer.usage.input_tokens, answer.usage.output_tokens):
            assert 0 <= amount <= REPORTED_TOKENS_MAX


def http_requests(data: bytes) -> None:
    """The binding rules against a model: whatever leaves lies below a prefix, however a server reads its path."""
    text = data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _is_text(data) else ""
    try:
        request = read_http_request("fetch", Members({"binding": "api", "request": text}))
        leaving = outgoing(Grants(http=(HTTP,)), request)
    except HostRefusal:
        return
    _check_leaving(leaving)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _check_leaving(leaving: OutgoingRequest) -> None:
    assert leaving.method in HTTP.methods
    assert _TARGET.fullmatch(leaving.target), "more than one token in a request line"
    assert "#" not in leaving.target
    path = leaving.target.partition("?")[0]
    for _ in range(10):  # a server may decode as often as it likes
        for reading in (path, path.replace("\\", "/")):
            resolved = posixpath.normpath(reading)
            assert resolved == "/v1" or resolved.startswith(("/v1/", "/v2/things")), f"{leaving.target} is outside"
            assert not reading.startswith("//")
        path = unquote(path)
    for name, value in leaving.headers:
        assert name in HEADERS_OF_EVERY_AGENT or name in HTTP.headers
        assert value.isascii()
        assert value.isprintable() or "\t" in value
        assert not set(value) & set("\r\n\0")


def guest_requests(data: bytes) -> None:
    """What guests ask of models and of other agents, as JSON: `HostRefusal` and nothing else; one meaning, one key."""
    with suppress(HostRefusal):
        request = read_child_request("invoke", Members.parse(data))
        assert str(request.template).count("/") == 1
        request.input.encode()
    if not _is_text(data):
        return
    with suppress(HostRefusal):
        asked = read_llm_request(data.decode("utf-8", "surrogatepass"))
        assert cache_key(asked, binding="b", model="m") == cache_key(asked, binding="b", model="m")
        json.dumps([each.content for each in asked.messages]).encode()


def names_of_callers(data: bytes) -> None:
    """Identities and page tokens, as callers write them: typed refusals, and one spelling of each identity."""
    text = data.decode("utf-8", "replace")
    with suppress(InvalidIdentityError):
        assert Identity.parse(text).uri == text, "one identity, two spellings"
    with suppress(InvalidRequestError):
        read_page_token(text)
