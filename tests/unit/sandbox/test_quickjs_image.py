"""The QuickJS image under the real scheduler in this process: interfaces, errors in the author's lines, randomness."""

import json
import secrets
from textwrap import dedent
from typing import Any

import pytest

from sandbox.component import ComponentProgram
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from tests.images import compiled_image
from tests.unit.sandbox.in_process import Ended, Handler, World

pytestmark = pytest.mark.toolchain

ALL = frozenset(f"agentfactory:runtime/{name}@0.1.0" for name in ("kv", "agents"))


@pytest.fixture(scope="module")
def world() -> World:
    return World(random=secrets.token_bytes)


@pytest.fixture(scope="module")
def image(world: World) -> ComponentProgram:
    return world.program(compiled_image("quickjs"), abi="image")


def run(
    world: World,
    image: ComponentProgram,
    source: str,
    text: bytes = b"",
    *,
    answer: Handler | None = None,
    granted: frozenset[str] = ALL,
    config: bytes = b"{}",
    **limits: int,
) -> Ended:
    return world.run(
        image,
        text,
        source=dedent(source).encode(),
        granted=granted,
        answer=answer,
        config=config,
        limits=SandboxLimits(**limits),
    )


def test_every_host_call_travels_and_returns(world: World, image: ComponentProgram) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def answer(interface: str, function: str, argument: dict[str, Any]) -> object:
        calls.append((f"{interface}.{function}", argument))
        return {
            "kv.get": {"ok": {"value": "é", "version": 7}},
            "kv.put": {"ok": {"version": 8}},
            "kv.delete": {"ok": {}},
            "kv.list": {"ok": {"keys": ["a", "é"], "cursor": None}},
            "agents.invoke": {"ok": {"output": "done"}},
        }[f"{interface}.{function}"]

    ended = run(
        world,
        image,
        """
        import { agents, kv } from "agentfactory";
        export function process(text) {
          kv.delete("gone");
          return [kv.get("k").value, kv.put("k", "v", { expected: kv.MUST_NOT_EXIST }), [...kv.keys("p")],
                  agents.invoke("docs/one@1.0.0", { a: "é" })];
        }
        """,
        answer=answer,
    )
    assert ended.failure is None
    assert json.loads(ended.output or b"") == ["é", 8, ["a", "é"], "done"]
    assert calls == [
        ("kv.delete", {"key": "gone"}),
        ("kv.get", {"key": "k"}),
        ("kv.put", {"key": "k", "value": "v", "expected": 0}),
        ("kv.list", {"prefix": "p", "cursor": None, "limit": 100}),
        ("agents.invoke", {"template": "docs/one@1.0.0", "input": '{"a":"é"}'}),
    ]


def test_configuration_budget_log_and_name_are_those_of_the_invocation(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        """
        import { budget, config, invocationId, log } from "agentfactory";
        export function process(text) {
          log.warning("so far", { words: 2, title: "a b" });
          console.log("and", { x: 1 });
          const left = budget();
          return [text, config.words, Object.keys(config), invocationId().startsWith("invocation-"),
                  left.host_calls, left.memory_bytes, left.fuel > 0 && left.fuel < 100000000, left.wall_ms > 0];
        }
        """,
        b"hi",
        config=b'{"words": 3}',
        fuel=100_000_000,
        host_calls=7,
    )
    assert json.loads(ended.output or b"null") == ["hi", 3, ["words"], True, 7, 128 << 20, True, True]
    assert ended.said == [("warning", 'so far words=2 title="a b"'), ("info", 'and {"x":1}')]


def test_every_instance_draws_other_numbers(world: World, image: ComponentProgram) -> None:
    source = "export function process() { return [Math.random(), Math.random(), crypto.randomUUID()]; }"
    drawn = [json.loads(run(world, image, source).output or b"") for _ in range(3)]
    assert len({number for one in drawn for number in one}) == 9
    assert all(0 <= number < 1 for one in drawn for number in one[:2])


def test_a_refusal_is_a_typed_exception(world: World, image: ComponentProgram) -> None:
    source = """
        import { ConflictError, DeniedError, HostError, http, kv } from "agentfactory";
        function refusal(call) {
          try { call(); } catch (e) { return [e.name, e.kind, e instanceof HostError]; }
        }
        export function process() {
          return [refusal(() => kv.put("k", "v", { expected: 1 })), refusal(() => kv.get("k"))];
        }
        """

    def refuse(_interface: str, function: str, _argument: dict[str, Any]) -> object:
        return {"error": {"kind": "conflict" if function == "put" else "not_found", "message": "no"}}

    assert json.loads(run(world, image, source, answer=refuse).output or b"") == [
        ["ConflictError", "conflict", True],
        ["NotFoundError", "not_found", True],
    ]
    denied = json.loads(run(world, image, source, granted=frozenset()).output or b"")
    assert denied == [["DeniedError", "denied", True]] * 2


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("\n\nexport function process(t) {\n  return t.x.y;\n}", "cannot read property 'y' of undefined", 4),
        ("export function process(t) {\n  let x = ;\n}", "SyntaxError", 2),
        ("const a = 1;\nimport fs from 'fs';\n", 'got "fs": the image has no other modules', 2),
        ("\nexport default function (t) {}", "got export default", 2),
        ("\nexport function process(t) { return import('x'); }", "import() does not exist here", 2),
        ("import { nope } from 'agentfactory';", '"agentfactory" has no nope', 1),
        ("const a = 1;", "expected agent.js to export function process(text)", None),
        ("export function process(t) { return 5; }", "text or an object, got number", None),
        ("export function process(t) { return '\\ud800'; }", "lone surrogate", None),
        ("export function process(t) {\n return fetch(t); }", "use http.fetch(binding", 2),
        ("export function process(t) {\n return require(t); }", "the image has no require", 2),
        ("export function process(t) {\n return setImmediate(t); }", "use setTimeout(callback)", 2),
        ("export function process(t) {\n return new WebSocket(t); }", "there are no sockets here", 2),
        ("export function process(t) {\n return new TextEncoder(); }", "the image has no TextEncoder", 2),
        ("export function process(t) {\n throw { a: 1 }; }", 'thrown: {"a":1}', None),
    ],
)
def test_a_mistake_is_told_in_the_authors_lines(
    world: World, image: ComponentProgram, source: str, message: str, line: int | None
) -> None:
    ended = run(world, image, source)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.GUEST_ERROR
    assert message in ended.failure.message
    assert ended.failure.message.endswith(f" (line {line})") is (line is not None)
    assert not any("entry.js" in said or "<input>" in said for _, said in ended.said)


def test_a_recursion_without_an_end_is_called_one(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, "function f() { return 1 + f(); }\nexport function process() { return f(); }")
    assert ended.failure is not None
    assert ended.failure.kind is FailureKind.TRAP
    assert ended.failure.message.startswith("call stack exhausted: calls are nested too deeply")


def test_a_traceback_shows_frames_and_source(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        """
        import {
          log,
          kv as store,
        } from "agentfactory";
        const inner = (x) => {
          return x.missing.deep;
        };
        export { run as process };
        function run(text) {
          return inner({});
        }
        """,
    )
    assert [said for _, said in ended.said] == [
        "TypeError: cannot read property 'deep' of undefined",
        "    at inner (agent.js:7:10)",
        "        return x.missing.deep;",
        "    at run (agent.js:11:10)",
        "        return inner({});",
    ]


def test_the_first_line_has_the_authors_columns(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, "export function process(t) { return t.x.y; }")
    assert ended.said[1][1] == "    at process (agent.js:1:37)"


def test_memory_and_endless_recursion_end_typed(world: World, image: ComponentProgram) -> None:
    hog = "export function process() { const kept = []; for (;;) kept.push('x'.repeat(1e5) + kept.length); }"
    ended = run(world, image, hog, memory_bytes=16 << 20)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.MEMORY
    deep = run(world, image, "export function process(t) { return process(t) + 1; }")
    assert deep.failure is not None
    assert deep.failure.kind in {FailureKind.GUEST_ERROR, FailureKind.TRAP}
    spin = run(world, image, "export function process() { for (;;); }", fuel=50_000_000)
    assert spin.failure is not None
    assert spin.failure.kind == FailureKind.FUEL


def test_a_source_that_was_translated_before_costs_the_same() -> None:
    world = World()  # the same randomness each time, of which fuel depends a little
    image = world.program(compiled_image("quickjs"), abi="image")
    source = "export function process(t) { return t + t; }"
    first, second = (run(world, image, source, b"x") for _ in range(2))
    assert (first.output, first.usage.fuel) == (second.output, second.usage.fuel)


def test_a_zip_is_not_javascript(world: World, image: ComponentProgram) -> None:
    ended = world.run(image, b"", source=b"PK\x03\x04\xff\xfe", granted=ALL)
    assert ended.failure is not None
    assert "expected agent.js, got a zip" in ended.failure.message
