"""What an endpoint answers, read as from a stranger: text, why it ended, and what it counted.

Nothing of it is believed beyond its shape: amounts out of range count as not reported, and text becomes valid Unicode.
An endpoint's own words about an error are cleaned of secrets, cut and made printable by whoever passes them on.
"""

from dataclasses import dataclass
from typing import Final

from data_plane.agents.json_text import parse_json
from data_plane.broker.answers import ErrorKind, HostRefusal
from templates.canonical import JsonObject, JsonValue

TEXT_BYTES_MAX: Final = 1_048_576
"""Of one answer, whole or in pieces: what fits a guest's answer with every character escaped."""
REPORTED_TOKENS_MAX: Final = 1_000_000_000
ERROR_CHARACTERS_MAX: Final = 300
NAME_CHARACTERS_MAX: Final = 100
END_OF_STREAM: Final = "[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """As the endpoint counted."""

    input_tokens: int
    output_tokens: int

    def to_json(self) -> JsonObject:
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}


NO_USAGE: Final = TokenUsage(input_tokens=0, output_tokens=0)


class EndpointBrokeOffError(Exception):
    """The endpoint told of an error in the middle of a stream, in these words, which may hold anything."""

    def __init__(self, said: str) -> None:
        super().__init__("the endpoint broke off")
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmAnswer:
    """``usage`` is None where the endpoint said nothing that can be believed."""

    text: str
    model: str
    finish_reason: str
    usage: TokenUsage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event of a stream; whatever it does not say is empty or None."""

    delta: str = ""
    model: str = ""
    finish_reason: str = ""
    usage: TokenUsage | None = None


def read_answer(body: bytes, *, model: str) -> LlmAnswer:
    """Read the body of a whole answer; ``model`` is the one asked for.

    Raises:
        HostRefusal: kind ``failed``.
    """
    value = _object(body)
    choice = _first_choice(value)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _malformed("a message in its first choice")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise _malformed("text in its first choice")
    text = valid_text(content or "")
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise HostRefusal(ErrorKind.FAILED, f"expected an answer of at most {TEXT_BYTES_MAX} bytes")
    return LlmAnswer(
        text=text,
        model=_name(value.get("model")) or model,
        finish_reason=_name(choice.get("finish_reason")) or "stop",
        usage=read_usage(value.get("usage")),
    )


def read_chunk(data: str) -> Chunk:
    """Read the data of one event that is not ``END_OF_STREAM``.

    Raises:
        HostRefusal: kind ``failed``: this is no chunk.
        EndpointBrokeOffError: the endpoint tells of an error.
    """
    value = _object(data)
    if value.get("error") is not None:
        raise EndpointBrokeOffError(error_text(value))
    usage = read_usage(value.get("usage"))
    choices = value.get("choices")
    if choices is None or choices == []:
        return Chunk(model=_name(value.get("model")), usage=usage)
    choice = _first_choice(value)
    delta = choice.get("delta")
    content = delta.get("content") if isinstance(delta, dict) else None
    if content is not None and not isinstance(content, str):
        raise _malformed("text in its stream")
    return Chunk(
        delta=valid_text(content or ""),
        model=_name(value.get("model")),
        finish_reason=_name(choice.get("finish_reason")),
        usage=usage,
    )


def read_usage(value: JsonValue) -> TokenUsage | None:
    """Return the amounts, None where they are missing or cannot be."""
    if not isinstance(value, dict):
        return None
    amounts = [value.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [each for each in amounts if isinstance(each, int) and not isinstance(each, bool)]
    if len(counts) != len(amounts) or not all(0 <= each <= REPORTED_TOKENS_MAX for each in counts):
        return None
    return TokenUsage(input_tokens=counts[0], output_tokens=counts[1])


def error_text(value: JsonValue) -> str:
    """Return an endpoint's own words about an error as they are: scrub them, then make them `printable`."""
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else "no reason given"


def printable(text: str) -> str:
    """Return ``text`` on one line, without what steers a terminal, cut."""
    kept = "".join(each if each.isprintable() else " " for each in text[: 4 * ERROR_CHARACTERS_MAX])
    return " ".join(kept.split())[:ERROR_CHARACTERS_MAX]


def valid_text(text: str) -> str:
    """Return ``text`` with lone surrogates, which JSON can say and UTF-8 cannot, replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _object(text: str | bytes) -> JsonObject:
    try:
        value = parse_json(text)
    except ValueError:
        raise _malformed("JSON") from None
    if not isinstance(value, dict):
        raise _malformed("a JSON object")
    return value


def _first_choice(value: JsonObject) -> JsonObject:
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _malformed("choices")
    return choices[0]


def _name(value: JsonValue) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= NAME_CHARACTERS_MAX else ""


def _malformed(expected: str) -> HostRefusal:
    return HostRefusal(ErrorKind.FAILED, f"expected {expected} from the endpoint, got something else")
