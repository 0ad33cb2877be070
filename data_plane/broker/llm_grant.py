"""The llm grant: what a guest may ask of a language model, which model answers, and what is sent to the endpoint.

A request is JSON of a guest: refused while it is still text when building it would hold the node up. What the guest
leaves out is chosen here; what it may not choose (endpoint, key, amounts) is not in the request at all.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from data_plane.agents.json_text import parse_json
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.broker.llm_budget import Price
from templates.canonical import JsonObject, JsonValue, NotCanonicalError, canonical_bytes
from templates.grants import LlmGrant

MESSAGES_MAX: Final = 256
STOPS_MAX: Final = 4
STOP_CHARACTERS_MAX: Final = 128
TEMPERATURE_MAX: Final = 2.0
MAX_TOKENS_MAX: Final = 10_000_000
ROLES: Final = frozenset({"system", "user", "assistant"})
NAMES: Final = ("model", "messages", "max_tokens", "temperature", "stop", "response_format", "cache")

BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
"""English text has about four bytes to a token; what the endpoint counts is what is charged."""

_MARKS_MAX: Final = 20_000
_BOUNDED: Final = re.compile(
    rf'(?:[^"\[\]{{}},]*+(?:"(?:[^"\\]++|\\.)*+"|[\[\]{{}},])){{0,{_MARKS_MAX}}}+[^"\[\]{{}},]*+', re.DOTALL
)
"""At most so many texts, brackets and commas: long texts cost nothing to read, a million small things do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmRequest:
    """None: the guest left it out. ``cache`` None: only what is deterministic is answered from the cache."""

    model: str | None
    messages: tuple[Message, ...]
    max_tokens: int | None
    temperature: float | None
    stop: tuple[str, ...]
    response_format: JsonObject | None
    cache: bool | None

    @property
    def is_cached(self) -> bool:
        """Temperature 0 is; another, or the endpoint's own default, only on demand."""
        return self.temperature == 0 if self.cache is None else self.cache

    @property
    def input_tokens(self) -> int:
        """An estimate, for the budget; what the endpoint reports is charged afterwards."""
        texts = sum(len(each.content.encode()) for each in self.messages)
        if self.response_format is not None:
            texts += len(canonical_bytes(self.response_format))
        return -(-texts // BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmBinding:
    """An endpoint as the node's operator offers it. ``models`` in the operator's order, with prices where known."""

    name: str
    models: Mapping[str, Price | None]
    output_tokens_max: int
    streaming: bool


def read_llm_request(text: str) -> LlmRequest:
    """Check one request of a guest.

    Raises:
        HostRefusal: kind ``invalid``.
    """
    if not _BOUNDED.fullmatch(text):
        raise _invalid(f"expected JSON of at most {_MARKS_MAX} texts, brackets and commas")
    try:
        value = parse_json(text)
        if not isinstance(value, dict):
            raise _invalid("expected a JSON object")
        canonical_bytes(value)
    except (ValueError, NotCanonicalError) as error:
        raise _invalid(str(error)[:200]) from None
    if strange := sorted(value.keys() - set(NAMES)):
        raise _invalid(f"expected only {', '.join(NAMES)}, got {strange[0][:40]!r}")
    members = Members(value)
    return LlmRequest(
        model=members.text("model") if value.get("model") is not None else None,
        messages=_messages(value.get("messages")),
        max_tokens=_max_tokens(members),
        temperature=_temperature(value.get("temperature")),
        stop=_stop(value.get("stop")),
        response_format=_response_format(value.get("response_format")),
        cache=_flag(value.get("cache")),
    )


def require_grant(grants: Iterable[LlmGrant], binding: str) -> LlmGrant:
    """Return the template's grant for ``binding``.

    Raises:
        HostRefusal: kind ``denied``, before it is known whether this node has such a binding.
    """
    for grant in grants:
        if grant.binding == binding:
            return grant
    raise HostRefusal(ErrorKind.DENIED, f"llm was not granted for the binding {binding[:60]!r}")


def choose_model(grant: LlmGrant, binding: LlmBinding, wanted: str | None) -> str:
    """Return the model that answers: the one asked for, else the first of the operator's that the grant permits.

    Raises:
        HostRefusal: kind ``denied``: outside of the grant, or not offered here.
    """
    if wanted is None:
        for model in binding.models:
            if model in grant.models:
                return model
        raise HostRefusal(ErrorKind.DENIED, f"this node offers no granted model on the binding {binding.name!r}")
    if wanted not in grant.models:
        granted = ", ".join(sorted(grant.models))
        raise HostRefusal(ErrorKind.DENIED, f"expected a granted model ({granted[:400]}), got {wanted[:100]!r}")
    if wanted not in binding.models:
        raise HostRefusal(ErrorKind.DENIED, f"this node does not offer {wanted} on the binding {binding.name!r}")
    return wanted


def request_body(
    request: LlmRequest, *, model: str, max_tokens: int, max_tokens_name: str, streaming: bool
) -> JsonObject:
    """Return what the endpoint gets. ``max_tokens_name``: newer models know it as ``max_completion_tokens``."""
    body = _effective(request, model)
    body[max_tokens_name] = max_tokens
    if streaming:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def cache_key(request: LlmRequest, *, binding: str, model: str) -> str:
    """Return the digest of everything that the answer depends on, RFC 8785.

    The guest's own ``max_tokens`` counts, not what its budget made of it: an answer that was cut is never kept.
    """
    whole: JsonObject = {"binding": binding, "request": _effective(request, model), "max_tokens": request.max_tokens}
    return hashlib.sha256(canonical_bytes(whole)).hexdigest()


def _effective(request: LlmRequest, model: str) -> JsonObject:
    body: JsonObject = {
        "model": model,
        "messages": [{"role": each.role, "content": each.content} for each in request.messages],
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop"] = list(request.stop)
    if request.response_format is not None:
        body["response_format"] = request.response_format
    return body


def _messages(value: JsonValue) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MESSAGES_MAX:
        raise _invalid(f"expected 1 to {MESSAGES_MAX} messages")
    return tuple(_message(each) for each in value)


def _message(value: JsonValue) -> Message:
    if not isinstance(value, dict) or value.keys() != {"role", "content"}:
        raise _invalid('expected each message to be {"role", "content"}')
    members = Members(value)
    role = members.text("role")
    if role not in ROLES:
        raise _invalid(f"expected a role of {', '.join(sorted(ROLES))}, got {role[:40]!r}")
    return Message(role=role, content=members.text("content"))


def _max_tokens(members: Members) -> int | None:
    count = members.count_or_none("max_tokens")
    if count is not None and not 0 < count <= MAX_TOKENS_MAX:
        raise _invalid(f"expected max_tokens from 1 to {MAX_TOKENS_MAX}, got {count}")
    return count


def _temperature(value: JsonValue) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= TEMPERATURE_MAX:
        raise _invalid(f"expected a temperature from 0 to {TEMPERATURE_MAX:g}")
    return float(value)


def _stop(value: JsonValue) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > STOPS_MAX:
        raise _invalid(f"expected at most {STOPS_MAX} texts in 'stop'")
    texts = tuple(Members({"stop": each}).text("stop") for each in stops)
    if any(not 0 < len(each) <= STOP_CHARACTERS_MAX for each in texts):
        raise _invalid(f"expected each text in 'stop' to have 1 to {STOP_CHARACTERS_MAX} characters")
    return texts


def _response_format(value: JsonValue) -> JsonObject | None:
    if value is None:
        return None
    kinds = ("text", "json_object", "json_schema")  # no set: what a guest sends may have no hash
    if not isinstance(value, dict) or value.get("type") not in kinds:
        raise _invalid("expected a response_format of type text, json_object or json_schema")
    return value


def _flag(value: JsonValue) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise _invalid("expected true or false in 'cache'")
    return value


def _invalid(message: str) -> HostRefusal:
    return HostRefusal(ErrorKind.INVALID, message)
