"""Run an agent in an ordinary Python, against a host made of dictionaries.

    >>> from agentfactory_sdk.testing import FakeHost, from_source
    >>> source = '''
    ... from agentfactory_sdk import config, log
    ... def process(text):
    ...     log.info("started", length=len(text))
    ...     return " ".join(text.split()[: config["words"]])
    ... '''
    >>> host = FakeHost(config={"words": 2})
    >>> from_source(source, host).process("One two three")
    'One two'
    >>> host.logs
    [('info', 'started length=13')]

This is for quick tests of logic: nothing is limited or isolated here. ``agentctl template test`` runs the real sandbox.
"""

import base64
import json
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import _host
from ._answer import answer_text
from .errors import ConflictError, DeniedError, FailedError, NotFoundError

Answer = Callable[[str], str]
BUDGET = {
    "fuel": 2_000_000_000,
    "wall_ms": 10_000,
    "memory_bytes": 134_217_728,
    "log_bytes": 262_144,
    "host_calls": 1_000,
}
"""What a template without limits of its own has."""
Model = Callable[[list[dict[str, str]]], str]
"""Answers a conversation: messages with ``role`` and ``content``."""
HttpAnswer = Callable[[dict[str, object]], tuple[int, object]]
"""Takes ``method``, ``path``, ``query`` … as the node gets them; returns a status and text, bytes, or JSON."""


class FakeHost:
    """A node of dictionaries with the real one's answers; ``granted`` names the interfaces of the template's grants.

    ``now_s`` is its clock, which a test moves to let entries with a time to live expire.
    """

    def __init__(
        self,
        *,
        config: dict[str, object] | None = None,
        granted: frozenset[str] = frozenset({"kv", "http", "llm", "agents"}),
        agents: dict[str, Answer] | None = None,
        http: dict[str, HttpAnswer] | None = None,
        models: dict[str, Model] | None = None,
        invocation_id: str = "test",
        budget: dict[str, int] | None = None,
    ) -> None:
        self.logs: list[tuple[str, str]] = []
        self.stored: dict[str, tuple[str, int]] = {}
        self.now_s = 0.0
        self._expires_s: dict[str, float] = {}
        self._config = json.dumps(config or {})
        self._granted = granted
        self._agents = agents or {}
        self._models = models or {}
        self._streams: list[list[str]] = []
        self._http = http or {}
        self._invocation_id = invocation_id
        self._budget = json.dumps(BUDGET | (budget or {}))

    def config(self) -> str:
        return self._config

    def invocation_id(self) -> str:
        return self._invocation_id

    def budget(self) -> str:
        return self._budget

    def log(self, level: str, message: str) -> None:
        self.logs.append((level, message))

    def kv_get(self, key: str) -> tuple[str, int] | None:
        self._must_be_granted("kv")
        return self.stored.get(key)

    def kv_put(self, key: str, value: str, expected: int | None, ttl_s: int | None) -> int:
        version = self._expect(key, expected)
        self.stored[key] = (value, version + 1)
        self._expires_s[key] = float("inf") if ttl_s is None else self.now_s + ttl_s
        return version + 1

    def kv_delete(self, key: str, expected: int | None) -> None:
        self._expect(key, expected)
        self.stored.pop(key, None)

    def kv_list(self, prefix: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        self._must_be_granted("kv")
        keys = sorted(key for key in self.stored if key.startswith(prefix) and (cursor is None or key > cursor))
        return keys[:limit], keys[limit - 1] if len(keys) > limit else None

    def llm_complete(self, binding: str, request: str) -> str:
        """The answer of the model of that binding; a token is a word here."""
        self._must_be_granted("llm")
        model = self._models.get(binding)
        if model is None:
            raise DeniedError(f"expected a known binding, got {binding}")
        given = json.loads(request)
        words = model(given["messages"]).split(" ")
        kept = words[: given.get("max_tokens")]
        asked = sum(len(each["content"].split()) for each in given["messages"])
        return json.dumps(
            {
                "text": " ".join(kept),
                "model": given.get("model", binding),
                "finish_reason": "stop" if kept == words else "length",
                "usage": {"input_tokens": asked, "output_tokens": len(kept)},
                "cached": False,
            }
        )

    def llm_open(self, binding: str, request: str) -> int:
        answer = json.loads(self.llm_complete(binding, request))
        words = answer.pop("text").split(" ")
        deltas = [word if number == 0 else f" {word}" for number, word in enumerate(words)]
        self._streams.append([json.dumps({"delta": each}) for each in deltas] + [json.dumps({"delta": "", **answer})])
        return len(self._streams)

    def llm_next(self, number: int) -> str | None:
        pieces = self._stream(number)
        return pieces.pop(0) if pieces else None

    def llm_close(self, number: int) -> None:
        self._stream(number).clear()

    def _stream(self, number: int) -> list[str]:
        if not 0 < number <= len(self._streams):
            raise NotFoundError(f"expected the number of an open stream, got {number}")
        return self._streams[number - 1]

    def http_fetch(self, binding: str, request: str) -> str:
        self._must_be_granted("http")
        answer = self._http.get(binding)
        if answer is None:
            raise DeniedError(f"expected a binding that was granted, got {binding}")
        status, body = answer(json.loads(request))
        found: dict[str, object] = {"status": status, "headers": {}}
        if isinstance(body, bytes):
            found["body_base64"] = base64.b64encode(body).decode()
        else:
            found["body"] = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        return json.dumps(found, ensure_ascii=False)

    def agents_invoke(self, template: str, text: str) -> str:
        self._must_be_granted("agents")
        answer = self._agents.get(template)
        if answer is None:
            raise NotFoundError(f"expected a known template, got {template}")
        try:
            return answer(text)
        except Exception as failure:
            raise FailedError(f"{template}: {failure}") from failure

    def _must_be_granted(self, interface: str) -> None:
        for key in [key for key, at_s in self._expires_s.items() if at_s <= self.now_s]:
            del self._expires_s[key]
            self.stored.pop(key, None)
        if interface not in self._granted:
            raise DeniedError(f"expected a grant for {interface}, got none")

    def _expect(self, key: str, expected: int | None) -> int:
        self._must_be_granted("kv")
        version = self.stored[key][1] if key in self.stored else 0
        if expected is not None and expected != version:
            raise ConflictError(f"expected version {expected} of {key}, got {version}")
        return version


class LoadedAgent:
    """An author's source, executed with a fake host in place; ``process`` runs it like the image does."""

    def __init__(self, module: types.ModuleType, host: FakeHost) -> None:
        self.module = module
        self.host = host

    def process(self, text: str) -> str:
        """The agent's answer as text: a dictionary or list becomes its JSON text.

        Raises:
            TypeError: ``process`` returned something else.
        """
        with hosted(self.host):
            return answer_text(self.module.process(text))


@contextmanager
def hosted(host: FakeHost) -> Iterator[None]:
    """Make ``host`` the node for the ``with`` block."""
    _host.install(host)
    try:
        yield
    finally:
        _host.uninstall()


def load(path: str | Path, host: FakeHost | None = None) -> LoadedAgent:
    """Execute the source at ``path`` in a fresh module, as the image's ``load`` does."""
    return from_source(Path(path).read_text(encoding="utf-8"), host, name=str(path))


def from_source(source: str, host: FakeHost | None = None, *, name: str = "agent.py") -> LoadedAgent:
    """``load`` of text."""
    host = host or FakeHost()
    module = types.ModuleType("agent")
    module.__file__ = name
    code = compile(source, name, "exec", dont_inherit=True)
    with hosted(host):
        exec(code, module.__dict__)  # noqa: S102 - running the author's source is what this is for
    return LoadedAgent(module, host)
