"""superviseur over the real three agents: which part goes where, what is merged, and what a failure leaves whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agentfactory_sdk import BudgetError, DeniedError
from agentfactory_sdk.testing import FakeHost, load
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.catalog.conftest import CATALOG, source_agent
from tests.unit.catalog.hardware_command import run_hardware

CORPUS = Path(__file__).parent / "corpus"
DOCUMENTALISTE, GENIE, HARDWARE = "documentation/documentaliste", "software/genie_logiciel", "infrastructure/hardware"
CPUINFO = (CORPUS / "hardware" / "raspberry_cpuinfo.txt").read_text(encoding="utf-8")
LSCPU = (CORPUS / "hardware" / "lscpu_sections.txt").read_text(encoding="utf-8")
DMIDECODE = (CORPUS / "hardware" / "dmidecode_server.txt").read_text(encoding="utf-8")
ARTICLE = (CORPUS / "documents" / "lighthouse.md").read_text(encoding="utf-8")
SOURCE = '"""Doc."""\n\n\ndef f(a):\n    """Doc."""\n    return eval(a)\n'


def hardware(text: str) -> str:
    code, output, errors = run_hardware(text.encode())
    if code != 0:
        raise ValueError(errors)
    return output


REAL: dict[str, Callable[[str], str]] = {
    DOCUMENTALISTE: source_agent(DOCUMENTALISTE).process,
    GENIE: source_agent(GENIE).process,
    HARDWARE: hardware,
}


class Node(FakeHost):
    """A node whose refusals reach the caller as what they are."""

    def __init__(self, agents: dict[str, Callable[[str], str]], config: dict[str, Any]) -> None:
        super().__init__(config=config)
        self.answers = agents
        self.asked: list[tuple[str, str]] = []

    def agents_invoke(self, template: str, text: str) -> str:
        self.asked.append((template, text))
        if self.answers is REAL:
            return REAL[template](text)
        return self.answers[template](text)


def node(agents: dict[str, Callable[[str], str]] | None = None, **config: Any) -> Node:
    return Node(REAL if agents is None else agents, config)


def run(job: dict[str, Any], host: Node | None = None) -> Any:
    agent = load(CATALOG / "orchestration" / "superviseur" / "agent.py", host or node())
    return json.loads(agent.process(json.dumps(job)))


@pytest.mark.parametrize(
    ("name", "text", "agent", "chosen_by"),
    [
        ("README.md", ARTICLE, DOCUMENTALISTE, "name"),
        ("notes.txt", ARTICLE, DOCUMENTALISTE, "content"),
        ("notes", "Just a few words, nothing else.", DOCUMENTALISTE, "content"),
        ("shop.py", SOURCE, GENIE, "name"),
        ("ring.c", "int x;", GENIE, "name"),
        ("script", "#!/usr/bin/env python3\nprint(1)\n", GENIE, "content"),
        ("part", SOURCE, GENIE, "content"),
        ("part", (CORPUS / "sources" / "pool.go").read_text(encoding="utf-8"), GENIE, "content"),
        ("part", (CORPUS / "sources" / "shop.js").read_text(encoding="utf-8"), GENIE, "content"),
        ("cpuinfo", CPUINFO, HARDWARE, "content"),
        ("machine.txt", LSCPU, HARDWARE, "content"),
        ("dmi", DMIDECODE, HARDWARE, "content"),
        ("lscpu.json", '{\n   "lscpu": [{"field": "CPU(s):", "data": "2"}]}', HARDWARE, "content"),
        ("how-to.md", "Look at this:\n\n```\n" + CPUINFO + "```\n", DOCUMENTALISTE, "name"),
    ],
)
def test_each_part_goes_to_the_agent_that_fits(name: str, text: str, agent: str, chosen_by: str) -> None:
    (part,) = run({"files": {name: text}})["parts"]
    assert (part["agent"], part["chosen_by"], part["status"]) == (agent, chosen_by, "ok")


def test_a_mixed_bundle_is_merged() -> None:
    answer = run({"files": {"a.md": ARTICLE, "b.md": ARTICLE, "shop.py": SOURCE, "cpuinfo": CPUINFO}})
    assert answer["summary"] == {
        "parts": 4,
        "succeeded": 4,
        "failed": 0,
        "by_agent": {DOCUMENTALISTE: 2, GENIE: 1, HARDWARE: 1},
    }
    merged = answer["merged"]
    assert [item["title"] for item in merged["documents"]] == ["The lighthouse at Grey Point"] * 2
    assert merged["machines"][0]["model"] == "Cortex-A72"
    assert merged["findings"] == [
        {
            "part": "shop.py",
            "severity": "error",
            "code": "eval-used",
            "line": 6,
            "column": 12,
            "message": "eval() runs whatever text it is given",
            "symbol": "eval",
        }
    ]
    words = [part["result"]["counts"]["words"] for part in answer["parts"][:2]]
    assert merged["totals"]["words"] == sum(words)
    assert (merged["totals"]["functions"], merged["totals"]["errors"], merged["totals"]["threads"]) == (1, 1, 4)
    assert all(keyword["parts"] == ["a.md", "b.md"] for keyword in merged["keywords"])


def test_results_are_what_the_agents_answered() -> None:
    answer = run(
        {"tasks": [{"text": ARTICLE, "name": "story", "agent": "documentaliste", "options": {"sentences": 1}}]}
    )
    (part,) = answer["parts"]
    assert part["result"] == json.loads(REAL[DOCUMENTALISTE](json.dumps({"text": ARTICLE, "sentences": 1})))
    assert (part["name"], part["chosen_by"]) == ("story", "request")


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ({"text": 5}, "invalid"),
        ({}, "invalid"),
        ("text", "invalid"),
        ({"text": " \n"}, "empty"),
        ({"text": "a", "agent": "librarian"}, "unknown_agent"),
        ({"text": "a", "agent": "evil/hardware"}, "unknown_agent"),
        ({"text": "a", "agent": ""}, "unknown_agent"),
        ({"text": "a", "agent": HARDWARE}, "failed"),
        ({"text": "a", "agent": DOCUMENTALISTE, "options": {"colour": 1}}, "invalid"),
        ({"text": "a", "agent": DOCUMENTALISTE, "options": {"sentences": -1}}, "failed"),
        ({"text": CPUINFO, "options": {"sentences": 1}}, "invalid"),
    ],
)
def test_a_part_that_fails_leaves_the_others_whole(task: Any, kind: str) -> None:
    def failing(name: str) -> Callable[[str], str]:
        return lambda text: _typed(REAL[name], text)

    host = node({name: failing(name) for name in REAL})
    answer = run({"tasks": [task], "files": {"shop.py": SOURCE}}, host)
    bad, good = answer["parts"]
    assert (bad["status"], bad["result"], bad["failure"]["kind"]) == ("failed", None, kind)
    assert good["status"] == "ok"
    assert (answer["summary"]["succeeded"], answer["summary"]["failed"]) == (1, 1)


def _typed(agent: Callable[[str], str], text: str) -> str:
    from agentfactory_sdk import FailedError

    try:
        return agent(text)
    except (ValueError, TypeError) as error:
        raise FailedError(str(error)) from error


def test_a_spent_budget_ends_the_asking_and_not_the_job() -> None:
    calls: list[str] = []

    def spent(text: str) -> str:
        calls.append(text)
        if len(calls) == 2:
            raise BudgetError("expected fuel to remain, got none")
        return "{}"

    host = node(dict.fromkeys(REAL, spent))
    answer = run({"files": {f"{number}.md": "text" for number in range(5)}}, host)
    assert [part["status"] for part in answer["parts"]] == ["ok", "failed", "failed", "failed", "failed"]
    assert {part["failure"]["kind"] for part in answer["parts"][1:]} == {"budget"}
    assert len(calls) == 2


def test_a_denied_call_is_a_typed_entry() -> None:
    def denied(_: str) -> str:
        raise DeniedError("expected a grant, got none")

    (part,) = run({"files": {"a.md": "text"}}, node(dict.fromkeys(REAL, denied)))["parts"]
    assert part["failure"] == {"kind": "denied", "message": "expected a grant, got none"}


@pytest.mark.parametrize("answer", ["not json", "[1]", '"text"'])
def test_an_answer_that_is_no_object_is_a_failure(answer: str) -> None:
    (part,) = run({"files": {"a.md": "text"}}, node(dict.fromkeys(REAL, lambda _: answer)))["parts"]
    assert part["failure"]["kind"] == "invalid_answer"


def test_parts_and_bytes_are_bounded() -> None:
    answer = run({"files": {f"{number}.md": "text" for number in range(4)}}, node(parts_max=3))
    assert [part["status"] for part in answer["parts"]] == ["ok", "ok", "ok", "failed"]
    assert answer["parts"][3]["failure"]["kind"] == "budget"
    small = run({"files": {"a.md": ARTICLE, "b.md": "text"}}, node(output_bytes_max=900))
    assert [part["failure"] and part["failure"]["kind"] for part in small["parts"]] == ["output", None]


def test_texts_arrive_unchanged() -> None:
    host = node()
    run({"files": {"note.md": '# É ü 日\n\n"quoted" \\ text\n', "cpuinfo": CPUINFO}}, host)
    assert json.loads(host.asked[0][1]) == {"text": '# É ü 日\n\n"quoted" \\ text\n'}
    assert host.asked[1] == (HARDWARE, CPUINFO)


def test_halves_of_surrogate_pairs_do_not_travel() -> None:
    host = node()
    answer = run({"files": {"a\ud800.md": "b\ud800 c"}}, host)
    assert answer["parts"][0]["name"] == "a?.md"
    assert json.loads(host.asked[0][1])["text"] == "b? c"


@pytest.mark.parametrize("job", ["", "text", "[]", "{}", '{"tasks": 1}', '{"files": []}', "[" * 10_000])
def test_a_job_that_is_none_is_refused(job: str) -> None:
    agent = load(CATALOG / "orchestration" / "superviseur" / "agent.py", node())
    with pytest.raises((TypeError, ValueError), match="expected"):
        agent.process(job)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.text(max_size=120), max_size=4))
def test_every_part_has_its_entry(files: dict[str, str]) -> None:
    host = node(dict.fromkeys(REAL, lambda _: '{"counts": {"words": 1}, "keywords": [{}], "findings": [1, {}]}'))
    answer = run({"files": files}, host)
    assert len(answer["parts"]) == len(files)
    assert {part["status"] for part in answer["parts"]} <= {"ok", "failed"}
