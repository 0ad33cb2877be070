"""What a Python agent can reach: nothing of the host, and of the node only what was granted."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker
from tests.isolation.python_agents import AGENTS, HTTP, KV, Broker, answer, is_healthy, python_worker, run

pytestmark = [pytest.mark.toolchain, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    async with python_worker() as started:
        yield started


ATTEMPTS = [
    "open('/etc/passwd').read()",
    "open('../../../etc/passwd').read()",
    "open('/proc/self/environ').read()",
    "open('/dev/urandom', 'rb').read(4)",
    "open('/tmp/x', 'w')",
    "__import__('os').listdir('/')",
    "__import__('os').mkdir('/x')",
    "__import__('os').symlink('/etc', '/x')",
    "__import__('os').system('id')",
    "__import__('os').fork()",
    "__import__('os').open('/', 0)",
    "__import__('os').dup(3)",
    "__import__('os').read(5, 100)",
    "__import__('os').kill(1, 9)",
    "__import__('subprocess').run(['id'])",
    "__import__('socket').create_connection(('127.0.0.1', 80))",
    "__import__('socket').getaddrinfo('localhost', 80)",
    "__import__('socket').socket()",
    "__import__('urllib.request').request.urlopen('http://169.254.169.254/')",
    "__import__('ctypes')",
    "__import__('threading').Thread(target=print).start()",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_the_host_is_out_of_reach(worker: Worker, attempt: str) -> None:
    outcome = await run(worker, f"def process(text):\n    {attempt}\n    return 'reached'")
    assert outcome.failure is not None, "it reached something"
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert await is_healthy(worker)


async def test_environment_arguments_and_input_are_empty(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFACTORY_CANARY", "canary-in-the-environment")
    source = """
        import os, sys
        def process(text):
            return {"environ": dict(os.environ), "argv": sys.argv, "stdin": sys.stdin.read()}
        """
    assert answer(await run(worker, source)) == {"environ": {}, "argv": [], "stdin": ""}


async def test_what_was_not_granted_is_denied_and_asks_nobody(worker: Worker) -> None:
    host = Broker()
    source = """
        from agentfactory_sdk import agents, http, kv, DeniedError
        def attempt(call, *arguments):
            try:
                return repr(call(*arguments))
            except DeniedError as error:
                return error.kind
        def process(text):
            return [attempt(kv.get, "a"), attempt(kv.put, "a", "b"), attempt(kv.delete, "a"),
                    attempt(kv.list), attempt(agents.invoke, "a/b", "c"), attempt(http.get, "api", "/")]
        """
    outcome = await run(worker, source, host=host)
    assert answer(outcome) == ["denied"] * 6
    assert host.calls == []
    assert outcome.usage.host_calls == 6


async def test_state_is_kept_by_the_node_with_versions(worker: Worker) -> None:
    stored: dict[str, tuple[str, int]] = {}

    def get(argument: dict[str, str]) -> object:
        found = stored.get(argument["key"])
        return None if found is None else {"value": found[0], "version": found[1]}

    def put(argument: dict[str, str]) -> object:
        _, version = stored.get(argument["key"], ("", 0))
        if argument.get("expected", version) != version:
            return b'{"error":{"kind":"conflict","message":"expected another version"}}'
        stored[argument["key"]] = (argument["value"], version + 1)
        return {"version": version + 1}

    source = """
        from agentfactory_sdk import kv, ConflictError
        def process(text):
            entry = kv.update("visits", lambda value: str(int(value or 0) + 1))
            try:
                kv.put("visits", "0", expected=entry.version + 7)
            except ConflictError:
                return [entry.value, entry.version]
        """
    host = Broker({"kv.get": get, "kv.put": put})
    assert answer(await run(worker, source, host=host, granted=frozenset({KV}))) == ["1", 1]
    assert answer(await run(worker, source, host=host, granted=frozenset({KV}))) == ["2", 2]


async def test_pages_of_keys_and_deletion(worker: Worker) -> None:
    def list_(argument: dict[str, object]) -> object:
        assert argument["prefix"] == "n"
        return (
            {"keys": ["n1", "n2"], "cursor": "n2"} if argument["cursor"] is None else {"keys": ["n3"], "cursor": None}
        )

    host = Broker({"kv.list": list_, "kv.delete": lambda _argument: {}})
    source = """
        from agentfactory_sdk import kv
        def process(text):
            for key in (found := list(kv.keys("n"))):
                kv.delete(key, expected=2**40)
            return found
        """
    assert answer(await run(worker, source, host=host, granted=frozenset({KV}))) == ["n1", "n2", "n3"]
    assert host.calls[-1] == ("kv.delete", {"key": "n3", "expected": 2**40})


async def test_a_request_goes_to_the_node_by_binding(worker: Worker) -> None:
    source = """
        from agentfactory_sdk import http
        def process(text):
            found = http.get("api", http.path("v1", text), query={"q": "é"})
            return {"status": found.status, "kind": found.headers["content-type"], "found": found.json()}
        """
    reply = {"status": 200, "headers": {"content-type": "application/json"}, "body": '{"é": ["\\u0000"]}'}
    host = Broker({"http.fetch": lambda _argument: reply})
    outcome = await run(worker, source, "a b", host=host, granted=frozenset({HTTP}))
    assert answer(outcome) == {"status": 200, "kind": "application/json", "found": {"é": ["\x00"]}}
    ((called, argument),) = host.calls
    assert (called, argument["binding"]) == ("http.fetch", "api")
    assert json.loads(str(argument["request"])) == {"method": "GET", "path": "/v1/a%20b", "query": {"q": "é"}}


@pytest.mark.parametrize("reply", ["text", [], {"status": "200"}, {"status": 200}])
async def test_an_answer_out_of_shape_is_the_nodes_failure(worker: Worker, reply: object) -> None:
    source = """
        from agentfactory_sdk import http, FailedError
        def process(text):
            try:
                http.get("api", "/")
            except FailedError as error:
                return error.kind
        """
    outcome = await run(worker, source, host=Broker({"http.fetch": lambda _a: reply}), granted=frozenset({HTTP}))
    assert outcome.output == b"failed"


async def test_another_agent_is_asked_and_its_error_is_an_exception(worker: Worker) -> None:
    host = Broker({"agents.invoke": lambda argument: {"output": argument["input"].upper() + " é"}})
    source = "from agentfactory_sdk import agents\ndef process(text): return agents.invoke('docs/shout', {'say': text})"
    outcome = await run(worker, source, "hi", host=host, granted=frozenset({AGENTS}))
    assert outcome.output == '{"SAY": "HI"} é'.encode()
    failing = await run(worker, source, "hi", granted=frozenset({AGENTS}))
    assert failing.failure is not None
    assert failing.failure.message.startswith("agentfactory_sdk.errors.NotFoundError")


@pytest.mark.parametrize(
    "reply",
    [
        b"not json",
        b"{}",
        b"[]",
        b'{"ok": 3}',
        b'{"ok": {"value": 3, "version": 1}}',
        b'{"ok": {"value": "x", "version": -1}}',
        b'{"ok": {"value": "\\ud800", "version": 1}}',
        b'{"error": {"kind": "unheard-of", "message": "m"}}',
        b'{"error": 3}',
    ],
)
async def test_an_answer_out_of_shape_is_an_ordinary_failure_to_the_guest(worker: Worker, reply: bytes) -> None:
    source = """
        from agentfactory_sdk import kv, FailedError
        def process(text):
            try:
                return repr(kv.get("k"))
            except FailedError:
                return "failed"
        """
    host = Broker({"kv.get": lambda _argument: reply})
    assert (await run(worker, source, host=host, granted=frozenset({KV}))).output == b"failed"


async def test_a_host_call_that_is_too_large_is_refused_before_it_is_converted(worker: Worker) -> None:
    host = Broker()
    source = """
        from agentfactory_sdk import kv, InvalidError
        def process(text):
            try:
                kv.put("k", "x" * 5_000_000)
            except InvalidError as error:
                return "refused"
        """
    assert (await run(worker, source, host=host, granted=frozenset({KV}))).output == b"refused"
    assert host.calls == []


async def test_hammering_host_calls_runs_out_of_them(worker: Worker) -> None:
    source = """
        from agentfactory_sdk import kv
        def process(text):
            while True:
                try: kv.get("k")
                except BaseException: pass
        """
    outcome = await run(worker, source, granted=frozenset({KV}), host_calls=20)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.usage.host_calls == 20


async def test_configuration_and_name_belong_to_the_invocation(worker: Worker) -> None:
    source = "from agentfactory_sdk import config, invocation_id\ndef process(text): return [config, invocation_id]"
    outcome = await run(worker, source, config={"sentences": 5, "é": [1]}, invocation_id="inv-42")
    assert answer(outcome) == [{"sentences": 5, "é": [1]}, "inv-42"]


async def test_odd_arguments_to_the_sdk_are_the_agents_own_errors(worker: Worker) -> None:
    source = """
        from agentfactory_sdk import kv, agents
        def attempt(call, *arguments, **named):
            try:
                call(*arguments, **named)
            except (TypeError, UnicodeEncodeError) as error:
                return type(error).__name__
        def process(text):
            return [attempt(kv.get, 3), attempt(kv.get, "\\ud800"), attempt(kv.put, "k", b"x"),
                    attempt(kv.put, "k", "v", expected=-1), attempt(kv.put, "k", "v", expected=2**64),
                    attempt(kv.list, limit=2**32), attempt(agents.invoke, "t", "\\udfff")]
        """
    found = answer(await run(worker, source, granted=frozenset({KV, AGENTS})))
    assert found == ["TypeError", "UnicodeEncodeError", *["TypeError"] * 4, "UnicodeEncodeError"]
