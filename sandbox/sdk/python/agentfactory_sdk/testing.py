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

import json
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import _host
from ._answer import answer_text
from .errors import ConflictError, DeniedError, FailedError, NotFoundError

Answer = Callable[[str], str]


class FakeHost:
    """A node of dictionaries with the real one's answers; ``granted`` names the interfaces of the template's grants.

    ``now_s`` is its clock, which a test moves to let entries with a time to live expire.
    """

    def __init__(
        self,
        *,
        config: dict[str, object] | None = None,
        granted: frozenset[str] = frozenset({"kv", "agents"}),
        agents: dict[str, Answer] | None = None,
        invocation_id: str = "test",
    ) -> None:
        self.logs: list[tuple[str, str]] = []
        self.stored: dict[str, tuple[str, int]] = {}
        self.now_s = 0.0
        self._expires_s: dict[str, float] = {}
        self._config = json.dumps(config or {})
        self._granted = granted
        self._agents = agents or {}
        self._invocation_id = invocation_id

    def config(self) -> str:
        return self._config

    def invocation_id(self) -> str:
        return self._invocation_id

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
