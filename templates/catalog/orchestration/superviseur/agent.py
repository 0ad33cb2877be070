"""superviseur: gives the parts of a job to the agents that fit them and merges their answers.

Input is a JSON object: ``{"tasks": [{"name", "text", "agent", "options"}, …]}``, ``{"files": {name: text, …}}``, or
both. A part without ``agent`` is looked at: machine texts, source files, documents. A part that fails is an entry that
says how; the others are answered all the same. docs/catalog.md describes the answer.
"""

import json
import re

from agentfactory_sdk import BudgetError, HostError, agents, config, log

DOCUMENTALISTE = "documentation/documentaliste"
GENIE_LOGICIEL = "software/genie_logiciel"
HARDWARE = "infrastructure/hardware"
AGENTS = {name.partition("/")[2]: name for name in (DOCUMENTALISTE, GENIE_LOGICIEL, HARDWARE)}
OPTIONS = {
    DOCUMENTALISTE: frozenset({"sentences", "keywords", "language"}),
    GENIE_LOGICIEL: frozenset({"filename", "language"}),
    HARDWARE: frozenset(),
}
SOURCE_SUFFIXES = frozenset(
    {
        "py", "pyi", "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "cs", "java", "js", "mjs", "cjs", "jsx", "ts", "tsx",
        "mts", "go", "rs",
    }
)  # fmt: skip
DOCUMENT_SUFFIXES = frozenset({"md", "markdown", "rst", "adoc", "tex", "htm", "html"})
MACHINE = re.compile(
    r"^processor\s*:\s*\d+\s*$[\s\S]{0,4000}?^(?:vendor_id|model name|BogoMIPS|bogomips|CPU implementer|isa|cpu)\s*:|"
    r"^Architecture:\s+\S[\s\S]{0,2000}?^CPU\(s\):|^# dmidecode \d|^Handle 0x[0-9A-Fa-f]+, DMI type \d+|"
    r'\A\s*\{\s*"lscpu"\s*:',
    re.MULTILINE,
)
SOURCE_LINE = re.compile(
    r"^(?:\s*(?:async\s+)?def\s+\w+\s*\(.*|class\s+\w+[^.]*[:{]\s*|from\s+[\w.]+\s+import\s.*|import\s+[\w., ]+;?|"
    r"#include\s*[<\"].*|package\s+[\w.]+;?|func\s+.*\{|\s*(?:pub\s+)?fn\s+\w+.*|(?:const|let|var)\s+\w+\s*=.*|"
    r"(?:export\s+)?(?:async\s+)?function\b.*|(?:public|private|protected)\s+.*[{;]|use\s+[\w:]+.*;|\s*return\b.*;?|"
    r".*[;{]\s*|\s*\}\s*[;,)]*)$"
)
SEVERITIES = ("error", "warning", "info")
MERGED_FINDINGS_MAX = 100
MERGED_KEYWORDS_MAX = 20


class Part:
    """One piece of the job; ``chosen_by`` says how its agent was found: request, name or content."""

    __slots__ = ("agent", "chosen_by", "name", "options", "text")

    def __init__(self, name: str, text: str, agent: str, chosen_by: str, options: dict[str, object]) -> None:
        self.name, self.text, self.agent, self.chosen_by, self.options = name, text, agent, chosen_by, options


class PartError(Exception):
    """A part that cannot be given to any agent."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def chosen(name: str, text: str) -> tuple[str, str]:
    """The agent that fits a part and what told so."""
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if suffix in SOURCE_SUFFIXES:
        return GENIE_LOGICIEL, "name"
    if suffix in DOCUMENT_SUFFIXES:
        return DOCUMENTALISTE, "name"
    if MACHINE.search(text):
        return HARDWARE, "content"
    if text.startswith("#!") and re.match(r"#!.*\b(?:python|node)", text):
        return GENIE_LOGICIEL, "content"
    lines = [
        line for line in text.split("\n")[:400] if line.strip() and not line.lstrip().startswith(("#", "//", "*", "/*"))
    ]
    code = sum(SOURCE_LINE.match(line) is not None for line in lines)
    if suffix != "txt" and lines and code * 4 >= len(lines) and code >= min(2, len(lines)):
        return GENIE_LOGICIEL, "content"
    return DOCUMENTALISTE, "content"


def utf8(value: object) -> str:
    """Text that can travel: JSON may spell halves of surrogate pairs."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def part_of(name: str, task: dict[str, object]) -> Part:
    """Read one task.

    Raises:
        PartError: it has no text, names an unknown agent, or has options that its agent does not take.
    """
    text = task.get("text")
    if not isinstance(text, str):
        raise PartError("invalid", f'expected a string in "text", got {type(text).__name__}')
    if not text.strip():
        raise PartError("empty", "expected text, got nothing but white space")
    text, filename = utf8(text), utf8(task.get("filename"))
    wanted = task.get("agent")
    if wanted is None:
        agent, chosen_by = chosen(filename or name, text)
    else:
        agent, chosen_by = AGENTS.get(str(wanted).rpartition("/")[2], ""), "request"
        if str(wanted) not in {agent, agent.partition("/")[2]} or not agent:
            raise PartError("unknown_agent", f"expected one of {', '.join(AGENTS.values())}, got {wanted}")
    options = task.get("options", {})
    if not isinstance(options, dict) or not set(options) <= OPTIONS[agent]:
        raise PartError(
            "invalid", f"expected options among {', '.join(sorted(OPTIONS[agent])) or 'none'}, got {options!r}"
        )
    if agent == GENIE_LOGICIEL:
        options = {"filename": filename or name, **options}
    return Part(name, text, agent, chosen_by, options)


def read_job(source: str) -> list[tuple[str, dict[str, object]]]:
    """The parts as they were given, each with its name."""
    try:
        job = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object with tasks or files, got: {error}") from None
    if not isinstance(job, dict) or not ("tasks" in job or "files" in job):
        raise ValueError('expected a JSON object with "tasks" or "files", got something else')
    tasks, files = job.get("tasks", []), job.get("files", {})
    if not isinstance(tasks, list) or not isinstance(files, dict):
        raise TypeError('expected a list in "tasks" and an object in "files"')
    named: list[tuple[str, dict[str, object]]] = []
    for number, task in enumerate(tasks, start=1):
        if not isinstance(task, dict):
            named.append((f"task {number}", {"text": None}))
            continue
        name = task.get("name", task.get("filename"))
        named.append((utf8(name) or f"task {number}", task))
    named.extend((utf8(name), {"text": text, "filename": name}) for name, text in files.items())
    return named


def asked(part: Part) -> dict[str, object]:
    """One answer, as data.

    Raises:
        HostError: the node refused, or the agent failed.
        PartError: the answer is not the JSON object that was promised.
    """
    if part.agent == HARDWARE:
        answer = agents.invoke(part.agent, part.text)
    else:
        answer = agents.invoke(part.agent, {"text": part.text, **part.options})
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise PartError("invalid_answer", f"expected JSON from {part.agent}, got: {error}") from None
    if not isinstance(value, dict):
        raise PartError("invalid_answer", f"expected an object from {part.agent}, got {type(value).__name__}")
    return value


def failed(name: str, agent: str | None, kind: str, message: str) -> dict[str, object]:
    return {
        "name": name,
        "agent": agent,
        "chosen_by": None,
        "status": "failed",
        "result": None,
        "failure": {"kind": kind, "message": message[:500]},
    }


class Job:
    """Works through the parts inside what remains of the budget, and keeps count of the answer's size."""

    def __init__(self, parts_max: int, output_bytes_max: int) -> None:
        self.entries: list[dict[str, object]] = []
        self.parts_max, self.room = parts_max, output_bytes_max
        self.spent: str | None = None

    def run(self, named: list[tuple[str, dict[str, object]]]) -> None:
        for number, (name, task) in enumerate(named):
            if number >= self.parts_max:
                self.entries.append(failed(name, None, "budget", f"expected at most {self.parts_max} parts"))
            else:
                self.entries.append(self._entry(name, task))

    def _entry(self, name: str, task: dict[str, object]) -> dict[str, object]:
        try:
            part = part_of(name, task)
        except PartError as error:
            return failed(name, None, error.kind, error.message)
        if self.spent is not None:
            return failed(name, part.agent, "budget", self.spent)
        try:
            result = asked(part)
        except BudgetError as error:
            self.spent = error.message
            return failed(name, part.agent, error.kind, error.message)
        except (HostError, PartError) as error:
            log.warning("part failed", part=name, agent=part.agent, kind=error.kind)
            return failed(name, part.agent, error.kind, error.message)
        size = len(json.dumps(result, ensure_ascii=False).encode("utf-8", "replace"))
        if size > self.room:
            return failed(name, part.agent, "output", f"expected {self.room} bytes at most to remain, got {size}")
        self.room -= size
        return {
            "name": name,
            "agent": part.agent,
            "chosen_by": part.chosen_by,
            "status": "ok",
            "result": result,
            "failure": None,
        }


# --- merging ----------------------------------------------------------------------------------------------------------

Answers = list[tuple[str, dict[str, object]]]


def members(value: object, *path: str) -> object:
    """What stands at ``path`` in nested objects; None where the path ends early."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def items(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def merged_keywords(documents: Answers) -> list[dict[str, object]]:
    """Keywords of all documents: those of several documents first, then the best."""
    found: dict[str, dict[str, object]] = {}
    for name, result in documents:
        for keyword in items(result.get("keywords")):
            text, score = str(keyword.get("text")), keyword.get("score")
            entry = found.setdefault(text.lower(), {"text": text, "score": 0.0, "parts": []})
            parts, best = entry["parts"], entry["score"]
            if isinstance(parts, list) and name not in parts:
                parts.append(name)
            if isinstance(score, (int, float)) and isinstance(best, (int, float)):
                entry["score"] = max(best, score)

    def rank(entry: dict[str, object]) -> tuple[int, float, str]:
        parts, score = entry["parts"], entry["score"]
        count = len(parts) if isinstance(parts, list) else 0
        return -count, -(score if isinstance(score, (int, float)) else 0.0), str(entry["text"])

    return sorted(found.values(), key=rank)[:MERGED_KEYWORDS_MAX]


def merged_findings(sources: Answers) -> list[dict[str, object]]:
    """Findings of all sources, the gravest first, each with the part it is in."""
    found = [
        {"part": name, **{key: finding.get(key) for key in ("severity", "code", "line", "column", "message", "symbol")}}
        for name, result in sources
        for finding in items(result.get("findings"))
        if finding.get("severity") in SEVERITIES and not finding.get("suppressed")
    ]
    found.sort(key=lambda finding: SEVERITIES.index(str(finding["severity"])))
    return found[:MERGED_FINDINGS_MAX]


def machine_of(name: str, result: dict[str, object]) -> dict[str, object]:
    return {
        "part": name,
        "model": members(result, "cpu", "model"),
        "sockets": members(result, "cpu", "sockets"),
        "cores": members(result, "cpu", "cores"),
        "threads": members(result, "cpu", "threads"),
        "memory_bytes": members(result, "memory", "bytes_total"),
        "product": members(result, "system", "product"),
    }


def merged(answers: dict[str, Answers]) -> dict[str, object]:
    documents, sources, machines = answers[DOCUMENTALISTE], answers[GENIE_LOGICIEL], answers[HARDWARE]
    return {
        "documents": [
            {
                "part": name,
                "title": result.get("title"),
                "language": members(result, "language", "code"),
                "words": members(result, "counts", "words"),
            }
            for name, result in documents
        ],
        "sources": [
            {
                "part": name,
                "language": result.get("language"),
                "functions": members(result, "totals", "functions"),
                "complexity_max": members(result, "totals", "complexity_max"),
                "maintainability": members(result, "totals", "maintainability"),
            }
            for name, result in sources
        ],
        "machines": [machine_of(name, result) for name, result in machines],
        "keywords": merged_keywords(documents),
        "findings": merged_findings(sources),
        "totals": {
            "words": sum(whole(members(result, "counts", "words")) for _, result in documents),
            "functions": sum(whole(members(result, "totals", "functions")) for _, result in sources),
            "classes": sum(whole(members(result, "totals", "classes")) for _, result in sources),
            "complexity": sum(whole(members(result, "totals", "complexity")) for _, result in sources),
            "errors": sum(whole(members(result, "totals", "errors")) for _, result in sources),
            "warnings": sum(whole(members(result, "totals", "warnings")) for _, result in sources),
            "threads": sum(whole(members(result, "cpu", "threads")) for _, result in machines),
        },
    }


def setting(name: str, default: int) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'expected a whole number of at least 1 in "{name}", got {value!r}')
    return value


def process(source: str) -> str:
    """Carry out one job; the output's shape is the template's ``output_schema``."""
    named = read_job(source)
    job = Job(setting("parts_max", 32), setting("output_bytes_max", 600_000))
    job.run(named)
    answers: dict[str, Answers] = {name: [] for name in AGENTS.values()}
    for entry in job.entries:
        result = entry["result"]
        if isinstance(result, dict):
            answers[str(entry["agent"])].append((str(entry["name"]), result))
    succeeded = sum(entry["status"] == "ok" for entry in job.entries)
    log.info("job done", parts=len(job.entries), succeeded=succeeded)
    output = {
        "summary": {
            "parts": len(job.entries),
            "succeeded": succeeded,
            "failed": len(job.entries) - succeeded,
            "by_agent": {name: len(found) for name, found in answers.items()},
        },
        "merged": merged(answers),
        "parts": job.entries,
    }
    return json.dumps(output, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
