"""Language models. Needs a grant ``llm`` that names the binding and its models; the node's operator names the endpoint.

    >>> from agentfactory_sdk import llm
    >>> answer = llm.complete("default", "What is the capital of France?")
    >>> answer.text
    'Paris.'
    >>> answer.usage.output_tokens
    1

Messages say more, and a stream gives the text as it comes:

    >>> question = [llm.system("Answer in one word."), llm.user("The capital of France?")]
    >>> with llm.stream("default", question, temperature=0, max_tokens=100) as pieces:
    ...     print("".join(pieces), pieces.answer.finish_reason)
    Paris. stop

Every call is charged to the grant's ``tokens_max``; an answer that the node has kept from an earlier call costs nothing
(``answer.cached``). At temperature 0 answers are kept; ``cache=True`` or ``False`` says otherwise.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from . import _host


@dataclass(frozen=True, slots=True)
class Message:
    """``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


def system(content: str) -> Message:
    """What the model is to be."""
    return Message("system", content)


def user(content: str) -> Message:
    """What it is asked."""
    return Message("user", content)


def assistant(content: str) -> Message:
    """What it answered before."""
    return Message("assistant", content)


Messages = str | Sequence["Message | dict[str, str]"]
"""A text is one message of the user; dictionaries have the keys ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the call was charged; nothing for an answer from the cache."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """``finish_reason`` is ``stop`` for an answer that ended by itself, ``length`` for one that was cut."""

    text: str
    model: str
    finish_reason: str
    usage: Usage
    cached: bool

    def json(self) -> object:
        """The text as JSON, for an answer that was asked for with ``response_format``.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.text)


def complete(
    binding: str,
    messages: Messages,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    stop: str | Sequence[str] | None = None,
    response_format: dict[str, object] | None = None,
    cache: bool | None = None,
) -> Answer:
    """The whole answer.

    Args:
        binding: the name in the grant.
        messages: a text, or the conversation so far.
        model: one of the grant's models; by default the first that the node offers.
        max_tokens: most that the answer may have; never more than the grant leaves.
        temperature: from 0 to 2; by default the endpoint's own.
        stop: texts before which the answer ends, at most four.
        response_format: ``{"type": "json_object"}``, or a ``json_schema``, where the endpoint knows them.
        cache: whether an answer may be an earlier one; by default only at temperature 0.

    Raises:
        DeniedError: the binding or the model was not granted, or this node does not offer it.
        BudgetError: what is left of the grant, of the limits or of the time does not suffice.
        QuotaError: the agent or its tenant has used up today's amount, or too many streams are open.
        FailedError: the endpoint failed; the message says how.
    """
    text = _request(messages, model, max_tokens, temperature, stop, response_format, cache)
    value = json.loads(_host.current().llm_complete(binding, text))
    return _answer(value["text"], value)


class Stream:
    """The pieces of an answer, as text; ``answer`` is whole after the last. Leaving the ``with`` block closes it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pieces: list[str] = []
        self._answer: Answer | None = None
        self._is_open = True

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            RuntimeError: there are more pieces to come.
        """
        if self._answer is None:
            raise RuntimeError("expected every piece to have been read, got a question for the whole answer")
        return self._answer

    def __iter__(self) -> Iterator[str]:
        while self._is_open:
            piece = _host.current().llm_next(self._number)
            if piece is None:
                self.close()
                return
            value = json.loads(piece)
            if "finish_reason" in value:
                self._answer = _answer("".join(self._pieces), value)
                self.close()
            elif value["delta"]:
                self._pieces.append(value["delta"])
                yield value["delta"]

    def close(self) -> None:
        """Say that the rest is not wanted."""
        if self._is_open:
            self._is_open = False
            _host.current().llm_close(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def stream(
    binding: str,
    messages: Messages,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    stop: str | Sequence[str] | None = None,
    response_format: dict[str, object] | None = None,
    cache: bool | None = None,
) -> Stream:
    """``complete`` in pieces: ``for piece in llm.stream("default", "Tell me a story"): …``. Raises the same."""
    text = _request(messages, model, max_tokens, temperature, stop, response_format, cache)
    return Stream(_host.current().llm_open(binding, text))


def _request(
    messages: Messages,
    model: str | None,
    max_tokens: int | None,
    temperature: float | None,
    stop: str | Sequence[str] | None,
    response_format: dict[str, object] | None,
    cache: bool | None,  # noqa: FBT001 - passed on as it came
) -> str:
    conversation = [user(messages)] if isinstance(messages, str) else messages
    given = {
        "messages": [
            {"role": each.role, "content": each.content} if isinstance(each, Message) else each for each in conversation
        ],
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stop": stop if stop is None or isinstance(stop, str) else [*stop],
        "response_format": response_format,
        "cache": cache,
    }
    return json.dumps({name: value for name, value in given.items() if value is not None}, ensure_ascii=False)


def _answer(text: str, value: dict[str, object]) -> Answer:
    usage = value["usage"]
    if not isinstance(usage, dict):
        raise TypeError(f"expected usage to be an object, got {usage!r}")
    return Answer(
        text,
        str(value["model"]),
        str(value["finish_reason"]),
        Usage(usage["input_tokens"], usage["output_tokens"]),
        bool(value["cached"]),
    )
