"""The one door to the node. In a sandbox it is the image's own adapter, in a test a ``testing.FakeHost``."""

from typing import Protocol


class Host(Protocol):
    """What a node offers to one invocation. Every method may raise a ``HostError``."""

    def config(self) -> str: ...

    def invocation_id(self) -> str: ...

    def budget(self) -> str: ...

    def log(self, level: str, message: str) -> None: ...

    def kv_get(self, key: str) -> tuple[str, int] | None: ...

    def kv_put(self, key: str, value: str, expected: int | None, ttl_s: int | None) -> int: ...

    def kv_delete(self, key: str, expected: int | None) -> None: ...

    def kv_list(self, prefix: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]: ...

    def llm_complete(self, binding: str, request: str) -> str: ...

    def llm_open(self, binding: str, request: str) -> int: ...

    def llm_next(self, number: int) -> str | None: ...

    def llm_close(self, number: int) -> None: ...

    def http_fetch(self, binding: str, request: str) -> str: ...

    def agents_invoke(self, template: str, text: str) -> str: ...


_current: list[Host] = []


def current() -> Host:
    """The host of this invocation.

    Raises:
        RuntimeError: outside a sandbox and outside ``testing``.
    """
    if not _current:
        raise RuntimeError("expected to run in a sandbox, got plain Python: use agentfactory_sdk.testing in tests")
    return _current[-1]


def install(host: Host) -> None:
    """Make ``host`` the current one; the image does this while it is built, ``testing`` for one call."""
    _current.append(host)


def uninstall() -> None:
    """Return to the host before the last ``install``."""
    _current.pop()
