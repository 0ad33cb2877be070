"""What Python agents print, return and raise: cut, typed and printable, whatever they try."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker
from tests.isolation.python_agents import answer, is_healthy, python_worker, run

pytestmark = [pytest.mark.toolchain, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    async with python_worker() as started:
        yield started


async def test_a_flood_of_prints_is_cut_and_marked(worker: Worker) -> None:
    source = "def process(text):\n    for n in range(2_000): print('x' * 100)\n    return 'done'"
    outcome = await run(worker, source, log_bytes=10_000)
    assert outcome.output == b"done"
    assert outcome.logs_cut
    assert outcome.usage.log_bytes <= 10_000
    assert sum(len(line.message) for line in outcome.logs) <= 10_000


async def test_an_endless_flood_of_prints_ends_at_a_limit(worker: Worker) -> None:
    source = """
        def process(text):
            while True:
                try: print("x" * 1000, flush=True)
                except BaseException: pass
        """
    outcome = await run(worker, source, fuel=10**12, wasi_calls=20_000)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.logs_cut
    assert await is_healthy(worker)


async def test_prints_become_lines_with_their_level(worker: Worker) -> None:
    source = """
        import sys
        from agentfactory_sdk import log
        def process(text):
            print("one\\ntwo")
            print("err", file=sys.stderr)
            log.debug("detail", count=3, name="a b")
            print("no end", end="")
            return ""
        """
    outcome = await run(worker, source)
    lines = [(line.level, line.message) for line in outcome.logs]
    assert lines == [
        ("info", "one"),
        ("info", "two"),
        ("warning", "err"),
        ("debug", 'detail count=3 name="a b"'),
        ("info", "no end"),
    ]


async def test_a_log_line_cannot_steer_a_terminal_or_forge_another_line(worker: Worker) -> None:
    source = """
        from agentfactory_sdk import log
        def process(text):
            print("\\x1b[2J\\r\\x9b31m")
            log.info("real\\n2026-01-01 ERROR forged")
            return ""
        """
    outcome = await run(worker, source)
    assert all(line.message.isprintable() for line in outcome.logs)
    assert [line.level for line in outcome.logs] == ["info"] * 3, (
        "what looks like another line is one, with its own level"
    )


async def test_output_at_the_limit_passes_and_one_byte_more_does_not(worker: Worker) -> None:
    source = "def process(text): return 'x' * int(text)"
    assert (await run(worker, source, "1000", output_bytes=1000)).output == b"x" * 1000
    outcome = await run(worker, source, "1001", output_bytes=1000)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.OUTPUT


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 3", "TypeError: expected process() to return text, a dict or a list, got int"),
        ("return None", "TypeError: expected process() to return text"),
        ("return b'bytes'", "TypeError"),
        ("return '\\ud800'", "UnicodeEncodeError"),
        ("return {'a': float('nan')}", "ValueError"),
        ("return {'a': object()}", "TypeError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("raise BaseException('base')", "BaseException: base"),
        ("import sys; sys.exit(3)", "the agent called sys.exit(3)"),
        ("import os; os._exit(3)", "the agent exited"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "Odd"),
        ("import sys; sys.stdout = None; 1 / 0", "ZeroDivisionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise Exception('\\ud800\\x1b[0m')", "Exception"),
    ],
)
async def test_whatever_is_not_an_answer_is_a_guest_error(worker: Worker, body: str, says: str) -> None:
    outcome = await run(worker, f"def process(text):\n    {body}")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert says in outcome.failure.message
    assert outcome.failure.message.isprintable()


async def test_a_guest_error_tells_the_line_and_logs_the_traceback(worker: Worker) -> None:
    outcome = await run(worker, "import json\ndef process(text):\n    return json.loads(text)", "{")
    assert outcome.failure is not None
    assert outcome.failure.message.endswith("(line 3)")
    assert any('File "agent.py", line 3, in process' in line.message for line in outcome.logs)
    assert not any("entry.py" in line.message for line in outcome.logs)


async def test_a_huge_exception_is_cut(worker: Worker) -> None:
    outcome = await run(worker, "def process(text): raise ValueError('x' * 10_000_000)", log_bytes=5_000)
    assert outcome.failure is not None
    assert len(outcome.failure.message) < 5_000


async def test_a_syntax_error_names_its_line(worker: Worker) -> None:
    outcome = await run(worker, "x = 1\ndef process(text)\n    return text")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert outcome.failure.message == "SyntaxError: expected ':' (line 2)"


async def test_a_source_without_process_is_refused(worker: Worker) -> None:
    outcome = await run(worker, "answer = 42")
    assert outcome.failure is not None
    assert outcome.failure.message == "TypeError: expected agent.py to define process(text), got NoneType"


async def test_a_dry_run_loads_and_does_not_process(worker: Worker) -> None:
    source = "print('loaded')\ndef process(text): print('processed')"
    outcome = await run(worker, source, process=False)
    assert outcome.output == b""
    assert [line.message for line in outcome.logs] == ["loaded"]
    broken = await run(worker, "import nothing_like_this\ndef process(text): return text", process=False)
    assert broken.failure is not None
    assert broken.failure.kind is FailureKind.GUEST_ERROR


async def test_input_that_is_not_utf_8_never_reaches_the_engine(worker: Worker) -> None:
    outcome = await run(worker, "def process(text): return text", b"\xff\xfe")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.INPUT
    assert await is_healthy(worker)


async def test_text_travels_unchanged(worker: Worker) -> None:
    text = "Zoë \u0000 \U0001f600 \u2028 é\n"
    assert (await run(worker, "def process(text): return text", text)).output == text.encode()


async def test_a_dictionary_is_its_json(worker: Worker) -> None:
    outcome = await run(worker, "def process(text): return {'given': text, 'n': [1, 2.5, None]}", "é")
    assert answer(outcome) == {"given": "é", "n": [1, 2.5, None]}
    assert outcome.output == json.dumps({"given": "é", "n": [1, 2.5, None]}, ensure_ascii=False).encode()
