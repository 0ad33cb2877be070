"""Promises, async functions and timers in the QuickJS image: what settles, what waits, and what fails."""

import json
from textwrap import dedent

import pytest

from sandbox.component import ComponentProgram
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from tests.images import compiled_image
from tests.unit.sandbox.in_process import Ended, World

pytestmark = pytest.mark.toolchain

ALL = frozenset(f"agentfactory:runtime/{name}@0.1.0" for name in ("kv", "agents"))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def image(world: World) -> ComponentProgram:
    return world.program(compiled_image("quickjs"), abi="image")


def run(world: World, image: ComponentProgram, source: str, text: bytes = b"hi", **limits: int) -> Ended:
    return world.run(image, text, source=dedent(source).encode(), granted=ALL, limits=SandboxLimits(**limits))


def output(world: World, image: ComponentProgram, source: str) -> object:
    ended = run(world, image, source)
    assert ended.failure is None, ended.said
    return json.loads(ended.output or b"null")


def test_an_async_process_is_awaited(world: World, image: ComponentProgram) -> None:
    source = """
        const twice = async (text) => text + text;
        export async function process(text) {
          const parts = await Promise.all([twice(text), Promise.resolve("!"), "?"]);
          return parts.concat(await Promise.race([twice("x"), new Promise(() => {})]));
        }
        """
    assert output(world, image, source) == ["hihi", "!", "?", "xx"]


def test_what_is_thenable_is_awaited_too(world: World, image: ComponentProgram) -> None:
    assert output(world, image, "export function process() { return { then(done) { done([1]); } }; }") == [1]


def test_jobs_run_in_the_order_of_the_language(world: World, image: ComponentProgram) -> None:
    source = """
        export async function process() {
          const said = [];
          setTimeout(() => said.push("timer"), 0);
          queueMicrotask(() => said.push("microtask"));
          Promise.resolve().then(() => said.push("then")).finally(() => said.push("finally"));
          said.push("first");
          await null;
          said.push("await");
          await new Promise((resolve) => setTimeout(resolve, 1));
          return said;
        }
        """
    assert output(world, image, source) == ["first", "microtask", "then", "await", "finally", "timer"]


def test_async_functions_keep_this_arguments_and_the_rest_of_the_language(
    world: World, image: ComponentProgram
) -> None:
    source = """
        class Base { async name() { return "base"; } }
        class Agent extends Base {
          #secret = 7;
          static async made() { return new Agent(); }
          async name() { return `${await super.name()}+`; }
          async #hidden({ by = 1 } = {}, ...more) { return this.#secret * by + more.length + arguments.length; }
          async sum(...args) { return this.#hidden(...args); }
          field = async () => this.#secret;
          async "quoted name"(a /* ) */, b = (2)) { var a; return [a, b]; }
          async 42() { return new.target === undefined; }
          async get() { return "get"; }
        }
        async function* counted() { yield 1; yield 2; }
        const object = { async method(x) { return [this === object, x]; }, plain: async x => x };
        export async function process() {
          const agent = await Agent.made();
          const seen = [];
          for await (const one of counted()) seen.push(one);
          const recursive = async function again(n) { return n === 0 ? "end" : again(n - 1); };
          return [await agent.name(), await agent.sum({ by: 2 }, 1, 1), await agent.field(),
                  await agent["quoted name"](5), await agent[42](), await agent.get(), seen,
                  await object.method(3), await object.plain(4),
                  await (async () => ({ a: 1 }))(), await recursive(3), await Array.fromAsync(counted())];
        }
        """
    expected = ["base+", 19, 7, [5, 2], True, "get", [1, 2], [True, 3], 4, {"a": 1}, "end", [1, 2]]
    assert output(world, image, source) == expected


def test_an_await_at_the_top_of_the_file_is_waited_for(world: World, image: ComponentProgram) -> None:
    source = """
        const table = await new Promise((resolve) => setTimeout(() => resolve({ hi: 1 }), 5));
        export function process(text) { return [table[text]]; }
        """
    assert output(world, image, source) == [1]


def test_timers_wait_through_the_clock_of_the_host_and_in_order(image: ComponentProgram, world: World) -> None:
    source = """
        export async function process() {
          const began = Date.now(), said = [];
          const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
          setTimeout((a, b) => said.push(a + b), 20, "twen", "ty");
          const gone = setTimeout(() => said.push("never"), 15);
          const every = setInterval(() => { said.push("tick"); if (said.length === 3) clearInterval(every); }, 10);
          clearTimeout(gone);
          clearTimeout(undefined);
          await wait(50);
          return said;
        }
        """
    before = world.clock.now_ns
    assert output(world, image, source) == ["tick", "twenty", "tick"]
    assert 0.05e9 <= world.clock.now_ns - before < 0.2e9


def test_a_timer_ends_at_the_deadline_and_a_loop_of_jobs_at_its_fuel(world: World, image: ComponentProgram) -> None:
    late = run(
        world, image, "export const process = () => new Promise((done) => setTimeout(done, 60_000));", wall_ms=100
    )
    assert late.failure is not None
    assert late.failure.kind == FailureKind.DEADLINE
    spin = run(world, image, "export async function process() { for (;;) await null; }", fuel=50_000_000)
    assert spin.failure is not None
    assert spin.failure.kind == FailureKind.FUEL


def test_timers_that_are_left_when_the_answer_is_there_never_fire(world: World, image: ComponentProgram) -> None:
    source = """
        export async function process() {
          setTimeout(() => { throw new Error("too late"); }, 10);
          return "done";
        }
        """
    assert run(world, image, source).output == b"done"


def test_a_rejected_process_fails_with_the_authors_lines(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        """
        async function inner(x) {
          await null;
          return x.missing.deep;
        }
        export async function process(text) { await null; return await inner(text); }
        """,
    )
    assert ended.failure is not None
    assert ended.failure.message == "TypeError: cannot read property 'deep' of undefined (line 4)"
    assert [said for _, said in ended.said] == [
        "TypeError: cannot read property 'deep' of undefined",
        "    at async inner (agent.js:4:10)",
        "        return x.missing.deep;",
    ]


def test_before_its_first_await_an_async_function_has_its_callers(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        "export async function process(t) { return one(t); }\nconst one = async (t) => { return two(t); };\n"
        "function two(t) { return t.x.y; }",
    )
    assert [said for _, said in ended.said if "at " in said] == [
        "    at two (agent.js:3:26)",
        "    at async one (agent.js:2:39)",
        "    at async process (agent.js:1:47)",
    ]


@pytest.mark.parametrize(
    "floating",
    [
        "late();",
        "late().then(() => 1);",
        "[1].forEach(async () => { await null; throw new Error('lost'); });",
        "new Promise((_, reject) => reject(new Error('lost')));",
        "Promise.reject(new Error('lost'));",
        "const kept = late();",
        "setTimeout(late);\n  await new Promise((done) => setTimeout(done, 1));",
    ],
)
@pytest.mark.parametrize("word", ["async ", ""])
def test_a_rejection_that_nobody_sees_is_a_failure(
    world: World, image: ComponentProgram, floating: str, word: str
) -> None:
    if not word and "await new" in floating:
        return
    source = (
        "const late = async () => {\n  await null;\n  throw new Error('lost');\n};\n"
        f"export {word}function process() {{\n  {floating}\n  return 'done';\n}}"
    )
    ended = run(world, image, source)
    assert ended.failure is not None
    assert ended.failure.message.startswith("unhandled rejection: Error: lost (line ")
    assert any("agent.js:" in said for _, said in ended.said)


def test_a_rejection_that_somebody_sees_is_none(world: World, image: ComponentProgram) -> None:
    source = """
        const fails = async () => { throw new Error("seen"); };
        export async function process() {
          const one = fails(), two = fails(), three = fails();
          const all = await Promise.allSettled([one, Promise.reject(1), fails().catch((e) => { throw e; })]);
          try { await two; } catch (e) { all.push(e.message); }
          three.catch(() => {});
          fails().then(undefined, () => {});
          await fails().finally(() => {}).catch(() => {});
          await Promise.any([fails(), Promise.resolve(1)]);
          return [all.length, all[3],
                  await (async () => { try { return await fails(); } catch { return "caught"; } })()];
        }
        """
    assert output(world, image, source) == [4, "seen", "caught"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("export function process() {\n  queueMicrotask(() => { null.x; });\n  return '';\n}", "of null (line 2)"),
        (
            "export async function process() {\n  setTimeout(() => { null.x; });\n  await new Promise(() => {});\n}",
            "of null (line 2)",
        ),
        ("export function process() { setTimeout('x'); }", "expected setTimeout to be given a function, got string"),
        ("export async function process() { return 5; }", "text or an object, got number"),
        ("export async function process() { throw 'text'; }", "thrown: text"),
        ("export async function process() { Promise.reject(1); }", "unhandled rejection: thrown: 1"),
    ],
)
def test_what_goes_wrong_in_a_turn_is_told(world: World, image: ComponentProgram, source: str, message: str) -> None:
    ended = run(world, image, source)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.GUEST_ERROR
    assert message in ended.failure.message


def test_a_promise_that_nothing_can_settle_is_told_with_its_places(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        """
        const never = async () => {
          await new Promise(() => {});
        };
        export async function process() {
          await never();
        }
        """,
    )
    assert ended.failure is not None
    assert ended.failure.message == (
        "Error: waits for a promise that nothing can settle any more: no timer and no callback is left; "
        "still waiting: never (agent.js:2), process (agent.js:5)"
    )


def test_what_cannot_be_parsed_for_watching_still_says_its_own_mistake(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, "export async function process(t) {\n  let x = ;\n}")
    assert ended.failure is not None
    assert "SyntaxError" in ended.failure.message
    assert ended.failure.message.endswith("(line 2)")


def test_text_of_hundreds_of_kilobytes_runs_unwatched(world: World, image: ComponentProgram) -> None:
    source = f"const filler = '{'x' * 300_000}';\nexport async function process(t) {{ await null; return t; }}"
    assert run(world, image, source).output == b"hi"


def test_a_turn_costs_the_same_each_time() -> None:
    world = World()
    image = world.program(compiled_image("quickjs"), abi="image")
    source = "export async function process(t) { await null; return t + t; }"
    first, second = (run(world, image, source, b"x") for _ in range(2))
    assert (first.output, first.usage.fuel) == (second.output, second.usage.fuel)
