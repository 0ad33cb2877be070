"""The agents where they live: worker, CPython image and engine, inside the limits that their templates state."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandbox.compiler import compile_module
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind, Outcome
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import compiled_image
from tests.unit.catalog.conftest import CATALOG, describe
from tests.unit.catalog.hardware_command import ROOT
from tests.unit.catalog.test_superviseur import CPUINFO, LSCPU, REAL, SOURCE
from tests.unit.catalog.test_templates import document

pytestmark = pytest.mark.toolchain
AGENTS_INTERFACE = "agentfactory:runtime/agents@0.1.0"


class Neighbours:
    """Carries out ``agents.invoke`` with the three agents; everything else is denied."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        if (interface, function) != ("agents", "invoke"):
            return b'{"error": {"kind": "denied", "message": "expected a grant, got none"}}'
        asked = json.loads(argument)
        return json.dumps({"ok": {"output": REAL[asked["template"]](asked["input"])}}).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings())
    await started.load("cpython", compiled_image())
    module = (ROOT / "build" / "catalog" / "hardware.wasm").read_bytes()
    await started.load("hardware", await compile_module(module))
    yield started
    await started.stop()


async def invoke(worker: Worker, name: str, text: str) -> Outcome:
    template = document(name)
    source = CATALOG / name / "agent.py"
    request = InvocationRequest(
        code_id="cpython" if source.exists() else "hardware",
        abi="image" if source.exists() else "command",
        source=source.read_bytes() if source.exists() else None,
        input=text.encode(),
        config=json.dumps(template.default_config).encode(),
        limits=SandboxLimits(**template.limits),
        granted=frozenset({AGENTS_INTERFACE}) if template.grants.agents else frozenset(),
    )
    return await worker.invoke(request, Neighbours())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "name",
    ["documentation/documentaliste", "infrastructure/hardware", "orchestration/superviseur", "software/genie_logiciel"],
)
async def test_examples_come_out_of_the_sandbox_as_they_stand(worker: Worker, name: str) -> None:
    for example in document(name).examples or ():
        text = example.input if isinstance(example.input, str) else json.dumps(example.input)
        outcome = await invoke(worker, name, text)
        assert outcome.failure is None
        assert json.loads(outcome.output or b"null") == example.output


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["README.md", "docs/catalog.md"])
async def test_real_documents_are_read_alike_inside_and_outside(worker: Worker, path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    outcome = await invoke(worker, "documentation/documentaliste", text)
    assert json.loads(outcome.output or b"null") == describe("documentation/documentaliste", text)


@pytest.mark.asyncio(loop_scope="module")
async def test_real_sources_are_read_alike_inside_and_outside(worker: Worker) -> None:
    for path in (Path(ROOT, "templates", "names.py"), CATALOG / "orchestration" / "superviseur" / "agent.py"):
        text = path.read_text(encoding="utf-8")
        outcome = await invoke(worker, "software/genie_logiciel", text)
        assert json.loads(outcome.output or b"null") == describe("software/genie_logiciel", text)


DEEP: dict[str, str] = {
    "brackets": "(" * 150 + ")" * 150,
    "open brackets": "[" * 5_000,
    "calls": "f(" * 190 + ")" * 190,
    "operators": "x = 1" + " + 1" * 20_000,
    "signs": "x = " + "-" * 20_000 + "1",
    "attributes": "x = a" + ".b" * 20_000,
    "elif": "if a:\n pass\n" + "elif b:\n pass\n" * 5_000,
    "blocks": "".join(" " * depth + "if x:\n" for depth in range(98)) + " " * 98 + "pass\n",
    "nested functions": "".join(" " * depth + f"def f{depth}():\n" for depth in range(90)) + " " * 90 + "pass\n",
    "lambdas": "x = " + "lambda: " * 5_000 + "1",
    "f-strings": "f'{" * 100,
    "at the limit": "x = " + "(" * 60 + "1" + ")" * 60 + "\ny = 1" + " + 1" * 400,
    "dictionaries": "x = " + "{'a': [" * 33 + "1" + "]}" * 33,
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", DEEP)
async def test_deep_sources_are_answered_and_do_not_trap(worker: Worker, case: str) -> None:
    given = json.dumps({"text": DEEP[case], "filename": "deep.py"})
    outcome = await invoke(worker, "software/genie_logiciel", given)
    assert outcome.failure is None
    answer: Any = json.loads(outcome.output or b"null")
    assert answer["language"] == "python"


@pytest.mark.asyncio(loop_scope="module")
async def test_unusable_machine_text_is_the_guests_error_with_its_reason_in_the_log(worker: Worker) -> None:
    outcome = await invoke(worker, "infrastructure/hardware", "no machine")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert any("unrecognised_input" in line.message for line in outcome.logs)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_supervisor_merges_what_its_neighbours_answer(worker: Worker) -> None:
    job = {"files": {"note.md": "# Note\n\nA short note.\n", "shop.py": SOURCE, "cpuinfo": CPUINFO, "lscpu": LSCPU}}
    outcome = await invoke(worker, "orchestration/superviseur", json.dumps(job))
    answer = json.loads(outcome.output or b"null")
    assert answer["summary"]["succeeded"] == 4
    assert outcome.usage.host_calls == 4
