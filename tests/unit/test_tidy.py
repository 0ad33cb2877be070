"""What linters cannot say. It reads the files that git tracks, so a file that is not committed yet is not judged yet.

Each rule is a function from text to findings, and has a test that it finds what it is there to find.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from service.settings import ServiceSettings, settings_table
from service.status import STATUS
from service.telemetry import METRICS, Field, SpanName
from templates.reasons import Reason

ROOT = Path(__file__).parents[2]
PACKAGES = ("templates", "control_plane", "data_plane", "sandbox", "service", "client")
LINES_MAX = 600
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "core", "misc", "base", "shared", "lib"}
# Guest-side and generated code is written to other rules.
GENERATED = ("proto/gen/", "build/")

# Assembled, so that this file does not find itself.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("proxy", "golang", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("conda", "anaconda", "org"),
        ("deb", "debian", "org"),
        ("repo", "maven", "apache", "org"),
    )
)
REGISTRY_FLAVOURS = ("artifact" + "ory", "nex" + "us/repository", "dev" + "pi", "code" + "artifact")
MACHINE_PATHS = tuple("/" + name + "/" for name in ("work", "root", "home/[a-z]+", "Users/[A-Za-z]+", "tmp/br" + "ief"))
LEFTOVERS = tuple("".join(parts) for parts in (("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("HA", "CK:")))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


FILES = tracked()


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def python_files() -> list[str]:
    return [name for name in FILES if name.endswith(".py") and not name.startswith(GENERATED)]


def product_files() -> list[str]:
    return [name for name in python_files() if name.startswith(tuple(f"{package}/" for package in PACKAGES))]


def text_files() -> Iterator[tuple[str, str]]:
    for name in FILES:
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            yield name, data.decode("utf-8", errors="replace")


# ---------------------------------------------------------------- rules


def banned_names(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).with_suffix("").parts if part in BANNED_NAMES]


def assertions(source: str) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def leftovers(text: str) -> list[str]:
    found = [word for word in LEFTOVERS if re.search(rf"\b{re.escape(word)}", text)]
    stubs = re.findall(r"raise NotImplementedError", text)
    return found + stubs[:1]


def addresses(text: str) -> list[str]:
    lowered = text.lower()
    hosts = [host for host in REGISTRY_HOSTS if re.search(rf"(?<![a-z0-9-]){re.escape(host)}(?![a-z0-9-])", lowered)]
    return hosts + [word for word in REGISTRY_FLAVOURS if word in lowered]


def machine_paths(text: str) -> list[str]:
    return [path for path in MACHINE_PATHS if re.search(rf"(?<![\w.])(?<!\w/){path}", text)]


def events(source: str) -> Iterator[tuple[int, str]]:
    """Yield what is logged as a literal and is not snake_case."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in {"debug", "info", "warning", "error", "critical"} or not node.args:
            continue
        owner = ast.unparse(node.func.value)
        first = node.args[0]
        if owner.endswith("log") and isinstance(first, ast.Constant | ast.JoinedStr):
            literal = first.value if isinstance(first, ast.Constant) else ast.unparse(first)
            if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", str(literal)):
                yield node.lineno, str(literal)


# ---------------------------------------------------------------- the repository against them


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name in python_files() if banned_names(name)] == []


def test_no_module_has_more_than_600_lines() -> None:
    # A catalogue agent is one source file by its nature: that file is what reviewers read and sign.
    judged = [name for name in python_files() if not name.startswith("templates/catalog/")]
    long = {name: count for name in judged if (count := text_of(name).count("\n")) > LINES_MAX}
    assert long == {}


def test_no_assert_statement_outside_tests() -> None:
    found = {
        name: lines
        for name in product_files()
        if not name.startswith("sandbox/images/") and (lines := assertions(text_of(name)))
    }
    assert found == {}


def test_nothing_is_left_over() -> None:
    # A guest that inspects source code may speak of such words, and generated stubs raise what they raise.
    subjects = ("templates/catalog/", "tests/", *GENERATED)
    found = {name: words for name, text in text_files() if not name.startswith(subjects) and (words := leftovers(text))}
    assert found == {}


def test_no_registry_is_named() -> None:
    assert {name: hosts for name, text in text_files() if (hosts := addresses(text))} == {}


def test_no_path_of_a_machine_is_named() -> None:
    assert {name: paths for name, text in text_files() if (paths := machine_paths(text))} == {}


def test_no_compiled_module_is_committed() -> None:
    assert [name for name in FILES if name.endswith((".wasm", ".cwasm", ".pem", ".key", ".so", ".pyc", ".db"))] == []


def test_no_private_key_is_committed() -> None:
    marker = "-----BEGIN" + " "
    kinds = "(RSA |EC |ENCRYPTED )?PRIVATE KEY-----\n[A-Za-z0-9+/]{20}"
    assert [name for name, text in text_files() if re.search(marker + kinds, text)] == []


def test_log_events_are_snake_case() -> None:
    guests = ("templates/catalog/", "sandbox/sdk/", "sandbox/images/")  # they log what they like
    judged = [name for name in product_files() if not name.startswith(guests)]
    found = {name: lines for name in judged if (lines := list(events(text_of(name))))}
    assert found == {}


def test_adrs_are_numbered_once_and_have_their_sections() -> None:
    names = [
        PurePosixPath(name).name for name in FILES if name.startswith("docs/adr/") and name != "docs/adr/README.md"
    ]
    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []
    assert [number for number, count in Counter(name[:4] for name in names).items() if count > 1] == []
    sections = ("Context", "Decision", "Consequences")
    lacking = {
        name: [
            section
            for section in sections
            if not re.search(rf"^(## |\*\*){section}", text_of(f"docs/adr/{name}"), re.MULTILINE)
        ]
        for name in names
    }
    assert {name: each for name, each in lacking.items() if each} == {}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status_and_a_section(reason: Reason) -> None:
    assert reason in STATUS, f"add Reason.{reason} to STATUS in service/status.py"
    sections = re.findall(r"^## (\S+)\n+(.*)", text_of("docs/errors.md"), re.MULTILINE)
    written = dict(sections)
    assert written.get(str(reason)), f"add '## {reason}' to docs/errors.md: what it means, what to do"


def test_reasons_and_their_sections_are_sorted_and_not_twice() -> None:
    titles = re.findall(r"^## (\S+)$", text_of("docs/errors.md"), re.MULTILINE)
    assert [title for title, count in Counter(titles).items() if count > 1] == []
    assert [title for title in titles if title not in Reason.__members__] == []
    assert all(name == member.value for name, member in Reason.__members__.items())
    assert list(Reason.__members__) == sorted(Reason.__members__)


def settings_classes() -> list[type[ServiceSettings]]:
    for name in FILES:
        if re.fullmatch(r"(control_plane|data_plane)/settings\.py", name):
            importlib.import_module(name.removesuffix(".py").replace("/", "."))
    known = [sys.modules[name] for name in ("control_plane.settings", "data_plane.settings") if name in sys.modules]
    return [
        value
        for module in known
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ServiceSettings)
        and value.__module__ == module.__name__
        and value.model_config.get("env_prefix")
    ]


def test_every_setting_is_documented() -> None:
    page = text_of("docs/settings.md")
    for settings in settings_classes():
        table = settings_table(settings)
        assert table in page, f"put this table of {settings.__name__} into docs/settings.md:\n\n{table}"
        assert all(field.description for field in settings.model_fields.values())


def test_every_metric_span_and_field_is_documented() -> None:
    page = text_of("docs/observability.md")
    names = [metric.name for metric in METRICS] + list(SpanName) + list(Field)
    assert [str(name) for name in names if f"`{name}`" not in page] == []


# ---------------------------------------------------------------- the rules against what they are there to find


@pytest.mark.parametrize(
    "name", ["service/utils.py", "client/helpers/x.py", "sandbox/core.py", "data_plane/manager.py"]
)
def test_a_banned_name_is_found(name: str) -> None:
    assert banned_names(name)


def test_an_assert_is_found_and_a_docstring_about_one_is_not() -> None:
    assert assertions("def f():\n    assert x, 'no'\n") == [2]
    assert assertions('"""assert x"""\n') == []


def test_leftovers_are_found() -> None:
    assert leftovers("# " + "TO" + "DO: later")
    assert leftovers("    raise " + "NotImplementedError")
    assert not leftovers("mastodon, todos and hacks")


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_registries_are_found(host: str) -> None:
    assert addresses(f"https://{host}/simple")
    assert addresses(f"see files.{host}.")
    assert not addresses(f"x{host}x")


@pytest.mark.parametrize("path", ["work/main", "root/x", "home/someone/x", "Users/Me/x"])
def test_paths_of_machines_are_found(path: str) -> None:
    assert machine_paths(f"cd /{path}/")


@pytest.mark.parametrize("path", ["/api/work/items", "a/work/b", "./work/x", "/workers/x", "https://h/home/x/y"])
def test_other_paths_are_left_alone(path: str) -> None:
    assert not machine_paths(path)


def test_a_sentence_as_event_is_found() -> None:
    assert list(events("self._log.info('Started the server')")) == [(1, "Started the server")]
    assert list(events("log.info(f'started {x}')"))
    assert not list(events("log.info('server_started', port=1)"))
    assert not list(events("click.echo('Hello World')"))
