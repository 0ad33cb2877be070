"""The CPython image under the real scheduler in this process: interfaces, errors and the translation of sources."""

import json
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from sandbox import component
from sandbox.component import ComponentProgram
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from tests.images import compiled_image
from tests.isolation.components import compiled
from tests.isolation.components import component as component_text
from tests.unit.sandbox.in_process import Ended, Handler, World

pytestmark = pytest.mark.toolchain

ALL = frozenset({"agentfactory:runtime/kv@0.1.0", "agentfactory:runtime/agents@0.1.0"})


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def image(world: World) -> ComponentProgram:
    return world.program(compiled_image(), abi="image")


def run(
    world: World,
    image: ComponentProgram,
    source: str,
    text: bytes = b"",
    *,
    answer: Handler | None = None,
    granted: frozenset[str] = ALL,
    config: bytes = b"{}",
    process: bool = True,
    **limits: int,
) -> Ended:
    return world.run(
        image,
        text,
        source=dedent(source).encode(),
        granted=granted,
        answer=answer,
        config=config,
        process=process,
        limits=SandboxLimits(**limits),
    )


def test_every_host_call_travels_and_returns(world: World, image: ComponentProgram) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def answer(interface: str, function: str, argument: dict[str, Any]) -> object:
        name = f"{interface}.{function}"
        calls.append((name, argument))
        return {
            "kv.get": {"ok": {"value": "é", "version": 7}},
            "kv.put": {"ok": {"version": 8}},
            "kv.delete": {"ok": {}},
            "kv.list": {"ok": {"keys": ["a", "é"], "cursor": "é"}},
            "agents.invoke": {"ok": {"output": "done"}},
        }[name]

    ended = run(
        world,
        image,
        """
        from agentfactory_sdk import agents, kv
        def process(text):
            kv.delete("gone")
            page = kv.list("p", cursor="c", limit=2)
            return [kv.get("k").value, kv.put("k", "v", expected=0), list(page.keys), page.cursor,
                    agents.invoke("docs/one@1.0.0", "é")]
        """,
        answer=answer,
    )
    assert ended.failure is None
    assert json.loads(ended.output or b"") == ["é", 8, ["a", "é"], "é", "done"]
    assert calls == [
        ("kv.delete", {"key": "gone"}),
        ("kv.list", {"prefix": "p", "cursor": "c", "limit": 2}),
        ("kv.get", {"key": "k"}),
        ("kv.put", {"key": "k", "value": "v", "expected": 0}),
        ("agents.invoke", {"template": "docs/one@1.0.0", "input": "é"}),
    ]
    assert ended.usage.host_calls == 5


def test_language_models_are_asked_through_the_node(world: World, image: ComponentProgram) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    end = {"model": "m", "finish_reason": "stop", "usage": {"input_tokens": 1, "output_tokens": 2}, "cached": False}
    pieces = iter([{"delta": "é"}, {"delta": "a"}, {"delta": "", **end}])

    def answer(interface: str, function: str, argument: dict[str, Any]) -> object:
        calls.append((f"{interface}.{function}", argument))
        answers: dict[str, Callable[[], object]] = {
            "complete": lambda: {"ok": {"text": "é", **end}},
            "open": lambda: {"ok": 7},
            "next": lambda: {"ok": next(pieces)},
            "close": lambda: {"ok": None},
        }
        return answers[function]()

    ended = run(
        world,
        image,
        """
        from agentfactory_sdk import llm
        def process(text):
            whole = llm.complete("default", "é", max_tokens=5)
            with llm.stream("default", "x") as stream:
                pieces = list(stream)
            return [whole.text, whole.usage.output_tokens, pieces, stream.answer.text]
        """,
        answer=answer,
        granted=frozenset({"agentfactory:runtime/llm@0.1.0"}),
    )
    assert ended.failure is None
    assert json.loads(ended.output or b"") == ["é", 2, ["é", "a"], "éa"]
    assert [name for name, _ in calls] == ["llm.complete", "llm.open", *["llm.next"] * 3, "llm.close"]
    assert calls[0][1]["binding"] == "default"
    assert json.loads(calls[0][1]["request"]) == {"messages": [{"role": "user", "content": "é"}], "max_tokens": 5}
    assert calls[2][1] == calls[5][1] == {"number": 7}


@pytest.mark.parametrize(
    "reply", [{"ok": None}, {"ok": "text"}, {"ok": [1]}, {"ok": 7}, {"error": {"kind": "budget", "message": "m"}}]
)
def test_answers_of_models_out_of_shape_are_failures(world: World, image: ComponentProgram, reply: object) -> None:
    source = """
        from agentfactory_sdk import llm, HostError
        def process(text):
            try:
                llm.complete("default", "x")
            except HostError as error:
                return error.kind
        """
    granted = frozenset({"agentfactory:runtime/llm@0.1.0"})
    ended = run(world, image, source, answer=lambda *_: reply, granted=granted)
    assert (ended.output or b"").decode() in {"failed", "budget"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"ok": None}, None),
        ({"error": {"kind": "not_found", "message": "m"}}, "not_found"),
        ({"error": {"kind": "quota", "message": "m"}}, "quota"),
        ({"error": {"kind": "of tomorrow", "message": "m"}}, "failed"),
        ({"error": {}}, "failed"),
        ({"error": []}, "failed"),
        ({}, "failed"),
        ([], "failed"),
        (b"\xff", "failed"),
        ({"ok": {"value": 3, "version": 1}}, "failed"),
        ({"ok": {"value": "v", "version": 1 << 64}}, "failed"),
        ({"ok": {"value": "v", "version": True, "more": 1}}, None),
    ],
)
def test_answers_and_refusals_are_values_or_exceptions(
    world: World, image: ComponentProgram, reply: object, kind: str | None
) -> None:
    source = """
        from agentfactory_sdk import kv, HostError
        def process(text):
            try:
                kv.get("k")
            except HostError as error:
                return error.kind
            return "none"
        """
    ended = run(world, image, source, answer=lambda *_: reply)
    assert (ended.output or b"").decode() == (kind or "none")


def test_a_call_that_is_too_large_or_not_granted_never_leaves(world: World, image: ComponentProgram) -> None:
    source = """
        from agentfactory_sdk import agents, kv, HostError
        def attempt(call, *arguments):
            try:
                call(*arguments)
            except HostError as error:
                return error.kind
        def process(text):
            return [attempt(kv.put, "k", "x" * 2_000_000), attempt(kv.put, "k", "\\0" * 500_000),
                    attempt(agents.invoke, "a/b", "x")]
        """

    def nobody(interface: str, function: str, argument: dict[str, Any]) -> object:
        raise AssertionError((interface, function, argument))

    ended = run(world, image, source, answer=nobody, granted=frozenset({"agentfactory:runtime/kv@0.1.0"}))
    assert json.loads(ended.output or b"") == ["invalid", "invalid", "denied"]


def test_the_first_invocation_of_a_source_costs_what_every_other_costs(world: World, image: ComponentProgram) -> None:
    source = "import json\nTABLE = {n: n * n for n in range(100)}\ndef process(text): return json.dumps(TABLE)"
    first, second, third = (run(world, image, source) for _ in range(3))
    assert first.output == second.output == third.output
    assert first.usage.wasi_calls == second.usage.wasi_calls == third.usage.wasi_calls
    assert abs(first.usage.fuel - second.usage.fuel) < 100, "the clock and randomness may differ, nothing else"


def test_a_dry_run_translates_and_loads(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, "print('loading')\ndef process(text): return 1 / 0", process=False)
    assert (ended.output, ended.failure, ended.said) == (b"", None, [("info", "loading")])


def test_a_source_that_does_not_translate_is_refused_every_time(world: World, image: ComponentProgram) -> None:
    for _ in range(2):
        ended = run(world, image, "def process(text:\n    return text")
        assert ended.failure is not None
        assert ended.failure.kind is FailureKind.GUEST_ERROR
        assert ended.failure.message == "SyntaxError: '(' was never closed (line 1)"


def test_a_translation_beyond_the_fuel_is_stopped(world: World, image: ComponentProgram) -> None:
    source = "def process(text): return text\n" + "x = [1, 2, 3]\n" * 20_000
    ended = run(world, image, source, fuel=10_000_000)
    assert ended.failure is not None
    assert ended.failure.kind is FailureKind.FUEL


def test_only_so_many_translations_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component, "PREPARED_MAX", 3)
    program = world.program(compiled_image(), abi="image")
    for number in range(6):
        assert run(world, program, f"def process(text): return '{number}'").output == str(number).encode()
    assert program._loader is not None
    assert len(program._loader._prepared) == 3
    assert run(world, program, "def process(text): return '0'").output == b"0"


def test_an_image_without_prepare_gets_load(world: World) -> None:
    text = component_text().replace(
        '(func (export "process") (param "input" string)',
        """(func (export "load") (param "source" string) (result (result (error string)))
            (canon lift (core func $main "process")
              (memory (core memory $memory "m")) (realloc (core func $memory "realloc"))))
        (func (export "process") (param "input" string)""",
    )
    program = world.program(compiled(text), abi="image")
    assert world.run(program, b"in", source=b"source").output == b"in"
    missing = world.run(program, b"in")
    assert missing.failure is not None
    assert missing.failure.kind is FailureKind.INPUT
    broken = world.run(program, b"in", source=b"\xff")
    assert broken.failure is not None
    assert broken.failure.kind is FailureKind.INPUT


def test_memory_used_up_is_told_from_other_errors(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, "def process(text): return len([bytes(1 << 20) for _ in range(200)])")
    assert ended.failure is not None
    assert ended.failure.kind is FailureKind.MEMORY


def test_configuration_is_the_invocations(world: World, image: ComponentProgram) -> None:
    source = (
        "from agentfactory_sdk import config, invocation_id\ndef process(text): return [config['a'], invocation_id]"
    )
    ended = run(world, image, source, config=b'{"a": "\xc3\xa9"}')
    assert json.loads(ended.output or b"")[0] == "é"


def test_the_virtual_machine_has_no_input_no_terminal_no_files_and_no_network(
    world: World, image: ComponentProgram
) -> None:
    source = """
        import os, socket, sys, time
        def attempt(call, *arguments):
            try:
                return repr(call(*arguments))
            except OSError as error:
                return type(error).__name__
        def process(text):
            print("out", flush=True)
            print("err", file=sys.stderr, flush=True)
            time.sleep(0.01)
            return [sys.stdin.read(), sys.stdout.isatty(), sys.stdin.isatty(), dict(os.environ), sys.argv,
                    attempt(open, "/etc/passwd"), attempt(socket.socket), attempt(socket.getaddrinfo, "localhost", 80)]
        """
    ended = run(world, image, source)
    assert json.loads(ended.output or b"") == [
        "", False, False, {}, [], "FileNotFoundError", "PermissionError", "PermissionError",
    ]  # fmt: skip
    assert ended.said == [("info", "out"), ("warning", "err")]
