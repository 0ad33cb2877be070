"""The template documents: valid, within their parent, true in their examples, and schemas that the answers fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from templates.canonical import JsonObject
from templates.document import Template, read_template
from templates.grants import NO_GRANTS
from templates.limits import Limits
from templates.names import TemplateName
from templates.schemas import compile_schema
from tests.unit.catalog.conftest import CATALOG, SOURCES, describe
from tests.unit.catalog.hardware_command import run_hardware
from tests.unit.catalog.test_superviseur import node, run

DOCUMENTS = sorted(CATALOG.glob("*/*/template.json"))
CORPUS = Path(__file__).parent / "corpus"


def document(name: str) -> Template:
    return read_template((CATALOG / name / "template.json").read_bytes())


def answered(name: str, text: str) -> Any:
    if name == "infrastructure/hardware":
        code, output, _ = run_hardware(text.encode())
        assert code == 0
        return json.loads(output)
    if name == "orchestration/superviseur":
        return run(json.loads(text))
    return describe(name, text)


AGENTS = [str(path.parent.relative_to(CATALOG)) for path in DOCUMENTS if read_template(path.read_bytes()).parent]


def test_the_catalogue_is_complete() -> None:
    assert [str(path.parent.relative_to(CATALOG)) for path in DOCUMENTS] == [
        "documentation/base",
        "documentation/documentaliste",
        "images/cpython",
        "images/quickjs",
        "infrastructure/hardware",
        "orchestration/superviseur",
        "software/genie_logiciel",
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.parent.name)
def test_a_document_is_valid_and_lies_where_its_name_says(path: Path) -> None:
    template = read_template(path.read_bytes())
    assert (template.ref.domain, template.ref.name) == path.parts[-3:-1]
    assert template.description
    assert len(template.description) > 100


@pytest.mark.parametrize("name", AGENTS)
def test_a_child_stays_within_the_base(name: str) -> None:
    child, base = document(name), document("documentation/base")
    assert str(child.parent) == "documentation/base"
    assert base.grants.covers(child.grants)
    assert Limits.from_json(child.limits).is_within(Limits.from_json(base.limits))
    assert set(child.limits) == set(base.limits)  # every limit is stated, none left to a default


def test_only_the_supervisor_reaches_anything_and_only_the_three() -> None:
    assert {name: document(name).grants for name in AGENTS if name != "orchestration/superviseur"} == {
        name: NO_GRANTS for name in AGENTS if name != "orchestration/superviseur"
    }
    reach = document("orchestration/superviseur").grants
    assert sorted(map(str, reach.agents)) == [name for name in sorted(AGENTS) if name != "orchestration/superviseur"]
    assert (reach.kv, reach.http, reach.llm, reach.files) == (None, (), (), ())


def test_the_three_let_the_supervisor_call_them() -> None:
    supervisor = TemplateName("orchestration", "superviseur")
    for name in AGENTS:
        if name != str(supervisor):
            assert any(pattern.matches(supervisor) for pattern in document(name).callers)


@pytest.mark.parametrize("name", AGENTS)
def test_examples_are_what_the_agent_answers(name: str) -> None:
    examples = document(name).examples or ()
    assert examples
    for example in examples:
        assert example.has_output
        text = example.input if isinstance(example.input, str) else json.dumps(example.input)
        assert answered(name, text) == example.output


@pytest.mark.parametrize("name", AGENTS)
def test_default_configuration_and_examples_fit_the_schemas(name: str) -> None:
    template = document(name)
    if template.config_schema is not None:
        compile_schema(template.config_schema).require(template.default_config)
    assert template.output_schema is not None
    for example in template.examples or ():
        compile_schema(template.output_schema).require(example.output)
        if template.input_schema is not None:
            compile_schema(template.input_schema).require(example.input)


SAMPLES = {
    "documentation/documentaliste": [
        "",
        "# T",
        *[path.read_text("utf-8") for path in (CORPUS / "documents").glob("*")],
    ],
    "software/genie_logiciel": [
        "",
        "def f(:",
        "nothing known",
        *[
            json.dumps({"text": path.read_text("utf-8"), "filename": path.name})
            for path in (CORPUS / "sources").glob("*")
        ],
        *[(CATALOG / name / "agent.py").read_text("utf-8") for name in SOURCES],
    ],
    "infrastructure/hardware": [path.read_text("utf-8") for path in (CORPUS / "hardware").glob("*")],
    "orchestration/superviseur": [
        json.dumps({"files": {path.name: path.read_text("utf-8") for path in CORPUS.glob("*/*")}}),
        json.dumps({"tasks": [{"text": ""}, {"text": "x", "agent": "nobody"}]}),
    ],
}


@pytest.mark.parametrize("name", AGENTS)
def test_real_answers_fit_the_output_schema(name: str) -> None:
    schema = document(name).output_schema
    assert schema is not None
    compiled = compile_schema(schema)
    for sample in SAMPLES[name]:
        assert compiled.violations(answered(name, sample)) == ()


def test_configuration_that_does_not_fit_is_refused() -> None:
    schema = document("documentation/documentaliste").config_schema
    assert schema is not None
    cases: list[JsonObject] = [{"sentences": 51}, {"sentences": "5"}, {"sentence": 5}]
    for wrong in cases:
        assert compile_schema(schema).violations(wrong)


def test_the_supervisor_takes_the_default_number_of_parts_that_its_node_is_told() -> None:
    config: dict[str, Any] = dict(document("orchestration/superviseur").default_config)
    files = {f"{number}.md": "text" for number in range(40)}
    answer = run({"files": files}, node(**config))
    assert answer["summary"]["succeeded"] == config["parts_max"]
