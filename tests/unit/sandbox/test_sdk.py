"""The guest SDK outside a sandbox: its documented examples run, and the fake node answers like the real one."""

import doctest
import json
import re
from pathlib import Path
from types import ModuleType

import agentfactory_sdk
import pytest
from agentfactory_sdk import (
    ConflictError,
    DeniedError,
    FailedError,
    HostError,
    NotFoundError,
    agents,
    budgets,
    errors,
    http,
    kv,
    llm,
    log,
    testing,
)
from agentfactory_sdk._answer import answer_text
from agentfactory_sdk.testing import FakeHost, from_source, hosted, load


def crossref(request: dict[str, object]) -> tuple[int, object]:
    """An origin for the documented examples."""
    if request["path"] != "/works":
        return 404, "no such work"
    return (201, "") if request["method"] == "POST" else (200, {"count": int(request["query"]["rows"])})  # type: ignore[index]


@pytest.mark.parametrize("module", [agents, budgets, http, kv, llm, log, testing], ids=lambda module: module.__name__)
def test_documented_examples_run(module: ModuleType) -> None:
    host = FakeHost(
        agents={"documentation/documentaliste": lambda text: f"an outline of {text}"},
        http={"crossref": crossref},
        models={"default": lambda _messages: "Paris."},
    )
    with hosted(host):
        result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_without_a_node_the_remedy_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"agentfactory_sdk\.testing"):
        kv.get("a")
    with pytest.raises(RuntimeError, match="expected to run in a sandbox"):
        _ = agentfactory_sdk.config


def test_configuration_and_name_are_those_of_the_invocation() -> None:
    for name, sentences in (("one", 1), ("two", 2)):
        with hosted(FakeHost(config={"sentences": sentences}, invocation_id=name)):
            assert agentfactory_sdk.config == {"sentences": sentences}
            assert agentfactory_sdk.invocation_id == name
    with pytest.raises(AttributeError, match="has no attribute 'secrets'"):
        _ = agentfactory_sdk.secrets


def test_what_is_not_granted_is_denied() -> None:
    with hosted(FakeHost(granted=frozenset())):
        for attempt in (
            lambda: kv.get("a"),
            lambda: kv.put("a", "b"),
            lambda: kv.delete("a"),
            kv.list,
            lambda: agents.invoke("docs/one", "x"),
            lambda: http.get("crossref", "/works"),
        ):
            with pytest.raises(DeniedError, match="expected a grant"):
                attempt()


def test_versions_guard_writes_and_deletions() -> None:
    with hosted(FakeHost()):
        version = kv.put("k", "1", expected=kv.MUST_NOT_EXIST)
        with pytest.raises(ConflictError):
            kv.put("k", "2", expected=kv.MUST_NOT_EXIST)
        with pytest.raises(ConflictError):
            kv.delete("k", expected=version + 1)
        kv.delete("k", expected=version)
        assert kv.get("k") is None
        kv.delete("k")


def test_keys_come_in_order_page_by_page() -> None:
    with hosted(FakeHost()):
        for number in range(250):
            kv.put(f"n{number:03}", "x")
        kv.put("other", "x")
        page = kv.list("n", limit=2)
        assert page == kv.Page(("n000", "n001"), "n001")
        assert kv.list("n", cursor="n247", limit=2) == kv.Page(("n248", "n249"), None)
        assert list(kv.keys("n")) == [f"n{number:03}" for number in range(250)]


class Contended(FakeHost):
    """Somebody else writes before each of the first writes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def kv_put(self, key: str, value: str, expected: int | None, ttl_s: int | None) -> int:
        if self.times:
            self.times -= 1
            super().kv_put(key, "theirs", None, None)
        return super().kv_put(key, value, expected, ttl_s)


def test_update_tries_again_and_gives_up_at_last() -> None:
    with hosted(Contended(times=3)):
        assert kv.update("k", lambda value: f"{value}, ours").value == "theirs, ours"
    with hosted(Contended(times=kv.UPDATE_ATTEMPTS_MAX)), pytest.raises(ConflictError):
        kv.update("k", lambda value: f"{value}, ours")


def test_other_agents_answer_or_fail_typed() -> None:
    def broken(_text: str) -> str:
        raise ValueError("no")

    with hosted(FakeHost(agents={"docs/shout": str.upper, "docs/broken": broken})):
        assert agents.invoke("docs/shout", {"a": "é"}) == '{"A": "É"}'
        with pytest.raises(FailedError, match="docs/broken: no"):
            agents.invoke("docs/broken", "x")
        with pytest.raises(NotFoundError):
            agents.invoke("docs/unknown", "x")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_lines_carry_fields_as_text(level: str) -> None:
    host = FakeHost()
    with hosted(host):
        getattr(log, level)("done \ud800", count=3, name="two words", plain="word", other={1})
    assert host.logs == [(level, 'done \\ud800 count=3 name="two words" plain=word other="{1}"')]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("denied", errors.DeniedError),
        ("conflict", errors.ConflictError),
        ("quota", errors.QuotaError),
        ("not_found", errors.NotFoundError),
        ("invalid", errors.InvalidError),
        ("failed", errors.FailedError),
        ("budget", errors.BudgetError),
        ("of tomorrow", errors.FailedError),
    ],
)
def test_every_kind_of_refusal_is_an_exception_of_its_own(kind: str, error: type[HostError]) -> None:
    found = errors.host_error(kind, "why")
    assert type(found) is error
    assert found.message == str(found) == "why"


@pytest.mark.parametrize(
    ("answer", "text"),
    [("é", "é"), ("", ""), ({"a": "é"}, '{"a": "é"}'), ([1, None], "[1, null]"), ({}, "{}")],
)
def test_answers_are_text_or_json(answer: object, text: str) -> None:
    assert answer_text(answer) == text


@pytest.mark.parametrize(
    ("answer", "error"),
    [(None, TypeError), (3, TypeError), (b"x", TypeError), ("\ud800", ValueError), ({"a": float("inf")}, ValueError)],
)
def test_anything_else_is_not_an_answer(answer: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        answer_text(answer)


def test_a_source_runs_like_in_the_image(tmp_path: Path) -> None:
    path = tmp_path / "agent.py"
    path.write_text(
        "from agentfactory_sdk import config, kv\n"
        "STEP = config['step']\n"
        "def process(text):\n"
        "    return {'count': int(kv.update('n', lambda old: str(int(old or 0) + STEP)).value)}\n",
        encoding="utf-8",
    )
    host = FakeHost(config={"step": 2})
    agent = load(path, host)
    assert [json.loads(agent.process("")) for _ in range(2)] == [{"count": 2}, {"count": 4}]
    assert host.stored == {"n": ("4", 2)}


def test_a_source_has_a_module_of_its_own() -> None:
    first, second = (
        from_source("seen = []\ndef process(text):\n    seen.append(text)\n    return str(len(seen))") for _ in range(2)
    )
    assert (first.process("a"), first.process("b"), second.process("c")) == ("1", "2", "1")


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(agentfactory_sdk.__file__).parent.parent / "README.md"
    agent, test = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "agent.py").write_text(agent, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(test, "README.md", "exec"), {})


def test_a_request_is_told_to_the_node_as_the_interface_says() -> None:
    seen: list[dict[str, object]] = []

    def answer(request: dict[str, object]) -> tuple[int, object]:
        seen.append(request)
        return 200, b"\xff\x00" if len(seen) == 1 else {"é": 1}

    with hosted(FakeHost(http={"api": answer})):
        binary = http.post("api", "/a", body=b"\x00\xff", headers={"Accept": "*/*"})
        listed = http.get("api", "/a", query={"q": "é", "n": [1, 2.5], "b": True, "left out": None})
        http.put("api", "/a", json={"é": None})
        http.patch("api", "/a", json=[], headers={"Content-Type": "application/json-patch+json"})
        http.post("api", "/a", body="text")
        http.delete("api", "/a")
        http.head("api", "/a")
    assert (binary.ok, binary.content, binary.text) == (True, b"\xff\x00", "\ufffd\x00")
    assert listed.json() == {"é": 1}
    assert seen == [
        {"method": "POST", "path": "/a", "headers": {"Accept": "*/*"}, "body_base64": "AP8="},
        {"method": "GET", "path": "/a", "query": {"q": "é", "n": ["1", "2.5"], "b": "true"}},
        {"method": "PUT", "path": "/a", "headers": {"content-type": "application/json"}, "body": '{"é": null}'},
        {"method": "PATCH", "path": "/a", "headers": {"Content-Type": "application/json-patch+json"}, "body": "[]"},
        {"method": "POST", "path": "/a", "body": "text"},
        {"method": "DELETE", "path": "/a"},
        {"method": "HEAD", "path": "/a"},
    ]


def test_a_status_is_an_answer_until_the_agent_makes_it_an_error() -> None:
    with hosted(FakeHost(http={"api": lambda _request: (503, "later")})):
        found = http.get("api", "/a")
        assert (found.ok, found.status, found.text) == (False, 503, "later")
        with pytest.raises(http.StatusError, match="got 503") as caught:
            found.raise_for_status()
        assert isinstance(caught.value, HostError)
        assert caught.value.response is found


def test_a_request_that_says_two_things_is_refused() -> None:
    with hosted(FakeHost(http={"api": lambda _request: (200, "")})):
        with pytest.raises(TypeError, match="body or json"):
            http.post("api", "/a", body="x", json={})
        with pytest.raises(ValueError, match="not JSON compliant"):
            http.post("api", "/a", json=float("nan"))
        with pytest.raises(DeniedError, match="other"):
            http.get("other", "/a")


def test_a_path_keeps_its_parts_apart() -> None:
    assert http.path("works", "a/../b", "é ?#") == "/works/a%2F..%2Fb/%C3%A9%20%3F%23"


# Language models


def echo(messages: list[dict[str, str]]) -> str:
    return f"{messages[-1]['role']} said {messages[-1]['content']}"


def test_conversations_are_texts_messages_or_dictionaries() -> None:
    with hosted(FakeHost(models={"default": echo})):
        assert llm.complete("default", "hello").text == "user said hello"
        assert llm.complete("default", [llm.system("be"), llm.assistant("well")]).text == "assistant said well"
        assert llm.complete("default", [{"role": "user", "content": "é"}], model="big").model == "big"
        assert llm.complete("default", "{}", response_format={"type": "json_object"}).finish_reason == "stop"
        with pytest.raises(ValueError, match="Expecting value"):
            llm.complete("default", "no").json()
        with pytest.raises(DeniedError):
            llm.complete("other", "hello")


def test_only_what_is_given_is_sent() -> None:
    sent: list[str] = []

    class Host(FakeHost):
        def llm_complete(self, binding: str, request: str) -> str:
            sent.append(request)
            return super().llm_complete(binding, request)

    with hosted(Host(models={"default": echo})):
        llm.complete("default", "hello")
        llm.complete("default", "hello", temperature=0, max_tokens=5, stop=("a", "b"), cache=False)
    assert [json.loads(each) for each in sent] == [
        {"messages": [{"role": "user", "content": "hello"}]},
        {
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0,
            "max_tokens": 5,
            "stop": ["a", "b"],
            "cache": False,
        },
    ]


def test_a_stream_is_read_once_and_closes_itself() -> None:
    host = FakeHost(models={"default": echo})
    with hosted(host):
        stream = llm.stream("default", "hello there", max_tokens=3)
        with pytest.raises(RuntimeError, match="every piece"):
            _ = stream.answer
        assert list(stream) == ["user", " said", " hello"]
        assert (stream.answer.text, stream.answer.finish_reason) == ("user said hello", "length")
        assert list(stream) == []
        with llm.stream("default", "hello") as early:
            assert next(iter(early)) == "user"
        assert list(early) == []
        with pytest.raises(NotFoundError):
            host.llm_next(99)
