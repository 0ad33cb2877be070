"""genie_logiciel on Python: the standard library as ast, ruff and lizard read it; each finding and its near misses."""

import ast
import json
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import Any

import lizard  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.catalog.conftest import Describe, describe

NAME = "software/genie_logiciel"
MODULES = (
    "argparse", "ast", "asyncio/base_events", "bdb", "codeop", "collections/__init__", "configparser", "csv",
    "dataclasses", "datetime", "difflib", "dis", "doctest", "email/message", "enum", "fractions", "ftplib",
    "http/client", "http/server", "imaplib", "inspect", "json/decoder", "logging/__init__", "mailbox", "optparse",
    "os", "pathlib", "pdb", "pickle", "pydoc", "shutil", "smtplib", "socket", "subprocess", "tarfile", "tempfile",
    "textwrap", "threading", "tokenize", "traceback", "turtle", "typing", "unittest/mock", "urllib/request", "warnings",
    "zipfile",
)  # fmt: skip
PATHS = [Path(sysconfig.get_path("stdlib"), f"{name}.py") for name in MODULES]


@pytest.fixture(scope="module")
def answers() -> dict[Path, Any]:
    return {path: describe(NAME, {"text": source(path), "filename": str(path)}) for path in PATHS}


def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def ruff(codes: str, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--ignore-noqa", "--select", codes]
    command += [*options, "--output-format", "json", *map(str, PATHS)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(finished.stdout)
    return found


def test_every_function_and_class_stands_where_ast_says(answers: dict[Path, Any]) -> None:
    for path, answer in answers.items():
        tree = ast.parse(source(path))
        functions = {
            (
                node.name,
                node.lineno,
                node.end_lineno,
                isinstance(node, ast.AsyncFunctionDef),
                bool(ast.get_docstring(node)),
            )
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        classes = {
            (node.name, node.lineno, node.end_lineno) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
        }
        keys = ("name", "line", "end_line", "async", "docstring")
        assert {tuple(item[key] for key in keys) for item in answer["functions"]} == functions, path
        assert {tuple(item[key] for key in keys[:3]) for item in answer["classes"]} == classes, path


def test_qualified_names_are_those_of_the_interpreter() -> None:
    text = "class A:\n class B:\n  def m(self):\n   def inner(): pass\n   class C:\n    def n(self): pass\n"
    space: dict[str, Any] = {}
    exec(compile(text, "x", "exec"), space)
    names = {item["qualified_name"] for item in describe(NAME, {"text": text, "filename": "x.py"})["functions"]}
    assert names == {space["A"].B.m.__qualname__, "A.B.m.<locals>.inner", "A.B.m.<locals>.C.n"}


def test_complexity_is_that_of_mccabe(answers: dict[Path, Any]) -> None:
    expected = {
        (finding["filename"], finding["location"]["row"]): int(re.findall(r"\((\d+) >", finding["message"])[0])
        for finding in ruff("C901", "--config", "lint.mccabe.max-complexity=0")
    }
    got = {
        (str(path), item["line"]): item["complexity"]
        for path, answer in answers.items()
        for item in answer["functions"]
    }
    assert len(got) > 2_500
    assert got == expected


def test_extended_complexity_is_that_of_lizard(answers: dict[Path, Any]) -> None:
    compared = 0
    for path, answer in answers.items():
        analysed = lizard.analyze_file.analyze_source_code(str(path), source(path))
        expected = {item.start_line: item.cyclomatic_complexity for item in analysed.function_list}
        for item in answer["functions"]:
            if item["line"] in expected:  # lizard loses a few functions that are written in one line
                assert item["complexity_extended"] == expected[item["line"]], (path, item["qualified_name"])
                compared += 1
    assert compared > 2_400


SAME_AS_RUFF = {
    "unused-import": "F401",
    "unused-variable": "F841",
    "bare-except": "E722",
    "mutable-default": "B006",
    "star-import": "F403",
    "exec-used": "S102",
    "eval-used": "S307",
    "exception-ignored": "S110",
    "shadowed-builtin": "A001,A002,A004",
    "none-comparison": "E711",
    "return-in-finally": "B012",
    "weak-hash": "S324",
    "self-comparison": "PLR0124",
}


def test_findings_in_the_standard_library_are_ones_that_ruff_has_too(answers: dict[Path, Any]) -> None:
    theirs: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for finding in ruff(",".join(SAME_AS_RUFF.values())):
        code = next(ours for ours, codes in SAME_AS_RUFF.items() if finding["code"] in codes.split(","))
        theirs[code].add((finding["filename"], finding["location"]["row"]))
    ours: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for path, answer in answers.items():
        for finding in answer["findings"]:
            ours[finding["code"]].add((str(path), finding["line"]))
    extra = {code: ours[code] - theirs[code] for code in SAME_AS_RUFF if ours[code] - theirs[code]}
    assert sum(map(len, extra.values())) <= 4, extra  # of hundreds: the line of one binding among several
    found, total = (sum(len(side[code] & theirs[code]) for code in SAME_AS_RUFF) for side in (ours, theirs))
    assert found > 250
    assert found >= 0.9 * total


def codes(text: str, filename: str = "pkg/shop.py", **config: Any) -> list[tuple[str, int]]:
    answer = describe(NAME, {"text": text, "filename": filename}, **config)
    return [(item["code"], item["line"]) for item in answer["findings"] if item["code"] != "missing-docstring"]


FOUND = [
    ("eval-used", "x = eval(input())"),
    ("exec-used", "exec('1')"),
    ("eval-used", "import builtins\nbuiltins.eval('1')"),
    ("shell-command", "import os\nos.system('ls ' + name)"),
    ("shell-command", "from os import system as run\nrun('ls')"),
    ("shell-command", "import subprocess as sp\nsp.run('ls', shell=True)"),
    ("unsafe-deserialisation", "import pickle\npickle.loads(data)"),
    ("unsafe-deserialisation", "from marshal import loads\nloads(data)"),
    ("unsafe-yaml-load", "import yaml\nyaml.load(text)"),
    ("hardcoded-secret", "db_password = 'hunter2!'"),
    ("hardcoded-secret", "settings = {'apiKey': 'k9f8e7'}"),
    ("hardcoded-secret", "connect(token='f00dfeed')"),
    ("hardcoded-secret", "key = 'AKIA" + "ABCDEFGHIJKLMNOP'"),
    ("sql-from-strings", "q = f'SELECT * FROM t WHERE id = {key}'"),
    ("sql-from-strings", "q = 'DELETE FROM t WHERE id = ' + key"),
    ("sql-from-strings", "q = 'SELECT a FROM t WHERE id = %s' % key"),
    ("sql-from-strings", "q = 'UPDATE t SET a = {}'.format(key)"),
    ("tls-verification-off", "import requests\nrequests.get(url, verify=False)"),
    ("weak-hash", "import hashlib\nhashlib.md5(data)"),
    ("insecure-temporary-file", "import tempfile\ntempfile.mktemp()"),
    ("assert-for-security", "assert user.is_admin"),
    ("assert-on-tuple", "assert (x, 'message')"),
    ("mutable-default", "def f(a=[]): return a"),
    ("mutable-default", "def f(*, a=dict()): return a"),
    ("bare-except", "try:\n    f()\nexcept:\n    g()"),
    ("exception-ignored", "try:\n    f()\nexcept Exception:\n    pass"),
    ("return-in-finally", "def f():\n    try:\n        g()\n    finally:\n        return 1"),
    ("none-comparison", "if x == None: pass"),
    ("none-comparison", "if None != x: pass"),
    ("bool-comparison", "if x == True: pass"),
    ("literal-identity", "if x is 'a': pass"),
    ("self-comparison", "if x.y == x.y: pass"),
    ("duplicate-key", "d = {'a': 1, 'a': 2}"),
    ("unreachable-code", "def f():\n    return 1\n    g()"),
    ("unreachable-code", "while True:\n    break\n    g()"),
    ("unreachable-code", "def f():\n    if x:\n        raise E\n        g()"),
    ("star-import", "from os.path import *"),
    ("unused-import", "import json"),
    ("unused-import", "from a import b as c"),
    ("unused-variable", "def f():\n    x = g()"),
    ("unused-variable", "def f():\n    with g() as x:\n        pass"),
    ("unused-variable", "def f():\n    try:\n        g()\n    except E as e:\n        h()"),
    ("shadowed-builtin", "list = [1]"),
    ("shadowed-builtin", "def f(id): return id"),
    ("redefined", "def f(): pass\ndef f(): pass"),
    ("invalid-escape", "x = '\\d'"),
    ("too-complex", "def f(a):\n" + "    if a: pass\n" * 10),
    ("deep-nesting", "def f(a):\n" + "".join("    " * n + "if a:\n" for n in range(1, 7)) + "    " * 7 + "pass"),
    ("too-many-arguments", "def f(a, b, c, d, e, f, g, h, i): pass"),
    ("long-function", "def f():\n" + "    g()\n" * 100),
]


@pytest.mark.parametrize(("code", "text"), FOUND, ids=[f"{code}-{number}" for number, (code, _) in enumerate(FOUND)])
def test_a_suspicious_construct_is_found(code: str, text: str) -> None:
    assert code in {found for found, _ in codes(text)}


FINE = [
    "model.eval()",
    "import subprocess\nsubprocess.run(['ls'], shell=False)",
    "system('ls')",
    "loads(data)",
    "import json\njson.loads(data)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "password = ''",
    "password = os_password()",
    "PASSWORD = 'password'",
    "token_url = 'https://example.org/token'",
    "password = 'please enter it'",
    "key = settings['api_key']",
    "q = 'SELECT * FROM t WHERE id = ?'",
    "q = 'SELECT a FROM t' + ' WHERE b'",
    "message = 'please select one from ' + name",
    "import hashlib\nhashlib.md5(data, usedforsecurity=False)",
    "assert len(items) == 3",
    "def f(a=()): return a",
    "def f(a=None): return a",
    "try:\n    f()\nexcept:\n    raise",
    "try:\n    f()\nexcept ValueError:\n    pass",
    "def f():\n    for x in y:\n        try:\n            g()\n        finally:\n            h()",
    "def f():\n    try:\n        g()\n    finally:\n        for x in y:\n            break",
    "if x is None: pass",
    "if x is ...: pass",
    "if x.y == x.z: pass",
    "d = {'a': 1, 'b': 2, 1: 1, True: 3}",
    "def f():\n    return\n    yield",
    "def f():\n    if x:\n        return 1\n    g()",
    "import json\nprint(json)",
    "import json as json",
    "__all__ = ['a']\nfrom b import a",
    "try:\n    import json\nexcept ImportError:\n    json = None",
    "from __future__ import annotations",
    "import a\ndef f(x: 'a.B'): return x",
    "import a.b\nprint(a)",
    "def f():\n    x = g()\n    return lambda: x",
    "def f():\n    x = 1\n    return locals()",
    "def f():\n    global x\n    x = 1",
    "def f():\n    x, y = g()\n    return y",
    "def f():\n    _ = g()",
    "def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2\n    return g",
    "class A:\n    id = 1\n    def list(self): return 1",
    "@overload\ndef f(x): ...\n@overload\ndef f(y): ...\ndef f(z): return z",
    "if a:\n    def f(): pass\nelse:\n    def f(): pass",
    "x = r'\\d'",
    "",
]


@pytest.mark.parametrize("text", FINE, ids=range(len(FINE)))
def test_what_is_fine_is_not_found(text: str) -> None:
    assert codes(text) == []


def test_a_function_of_the_same_name_is_not_the_builtin() -> None:
    assert codes("def eval(x): return x\neval('1')") == [("shadowed-builtin", 1)]


def test_an_import_in_a_package_is_an_export() -> None:
    assert codes("from .a import b", "pkg/__init__.py") == []


def test_asserts_belong_into_tests() -> None:
    assert codes("assert user.is_admin", "tests/test_users.py") == []


def test_missing_docstrings_are_those_that_users_miss() -> None:
    text = (
        "class A:\n    def m(self):\n        def inner(): pass\n    def _p(self): pass\n"
        "    def __len__(self): return 1\n"
        "    @property\n    def q(self):\n        'doc'\n    @q.setter\n    def q(self, v): pass\n"
        "def f(): pass\ndef _g(): pass\n"
    )
    answer = describe(NAME, {"text": text, "filename": "a.py"})
    found = [(item["line"], item["symbol"]) for item in answer["findings"] if item["code"] == "missing-docstring"]
    assert found == [(1, None), (1, "A"), (2, "A.m"), (11, "f")]
    exported = describe(NAME, {"text": "__all__ = ['g']\ndef f(): pass\ndef g(): pass\n", "filename": "a.py"})
    assert [item["symbol"] for item in exported["findings"] if item["symbol"]] == ["g"]


def test_noqa_marks_a_finding_and_does_not_hide_it() -> None:
    text = "x = eval(y)  # noqa: S307\nz = eval(y)  # noqa: F401\nw = eval(y)  # noqa\n"
    answer = describe(NAME, {"text": text, "filename": "_a.py"})
    assert [item["suppressed"] for item in answer["findings"]] == [True, False, True]
    assert answer["totals"]["errors"] == 1


def test_positions_are_in_characters() -> None:
    answer = describe(NAME, {"text": "é = 'ü'; x = eval(y)\n", "filename": "_a.py"})
    assert [(item["line"], item["column"]) for item in answer["findings"]] == [(1, 14)]


def test_a_function_is_described_whole() -> None:
    text = (
        "@cache\n@app.get('/x')\nasync def f(a, /, b: int = 1, *c, d: 'T' = g(2), **e) -> dict[str, int]:\n    'doc'\n"
    )
    answer = describe(NAME, {"text": text, "filename": "a.py"})["functions"][0]
    argument = dict.fromkeys(("name", "kind", "annotation", "default"))
    assert answer == {
        "name": "f",
        "qualified_name": "f",
        "kind": "function",
        "line": 3,
        "end_line": 4,
        "column": 1,
        "async": True,
        "decorators": ["cache", "app.get('/x')"],
        "arguments": [
            argument | {"name": "a", "kind": "positional_only"},
            argument | {"name": "b", "kind": "positional", "annotation": "int", "default": "1"},
            argument | {"name": "c", "kind": "varargs"},
            argument | {"name": "d", "kind": "keyword_only", "annotation": "'T'", "default": "g(2)"},
            argument | {"name": "e", "kind": "kwargs"},
        ],
        "returns": "dict[str, int]",
        "docstring": True,
        "complexity": 1,
        "complexity_extended": 1,
        "nesting": 0,
    }


@pytest.mark.parametrize(
    ("body", "complexity", "extended", "nesting"),
    [
        ("pass", 1, 1, 0),
        ("if a and b or c: pass", 2, 4, 1),
        ("if a: pass\n elif b: pass\n else: pass", 3, 3, 1),
        ("for x in y:\n  while z:\n   with w: pass", 3, 3, 3),
        ("try: a()\n except B: pass\n except C: pass\n else: d()\n finally: e()", 4, 4, 1),
        ("return [x for x in y if x if z]", 1, 4, 0),
        ("return a if b else c", 1, 2, 0),
        ("match a:\n  case 1: pass\n  case [x, y] if x: pass\n  case _: pass", 3, 5, 1),
        ("def g():\n  if a: pass\n return g", 3, 1, 0),
    ],
)
def test_complexity_by_hand(body: str, complexity: int, extended: int, nesting: int) -> None:
    item = describe(NAME, {"text": f"def f():\n {body}\n", "filename": "a.py"})["functions"]
    first = next(function for function in item if function["name"] == "f")
    assert (first["complexity"], first["complexity_extended"], first["nesting"]) == (complexity, extended, nesting)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def f(:\n    pass\n", 1),
        ("x = 1\nif x\n    y\n", 2),
        ("print 'old'\n", 1),
        ("x = (1,\n", 1),
        ("a\0b", 1),
        ("  x\n y\n", 1),
    ],
)
def test_a_syntax_error_is_a_finding_with_its_place(text: str, line: int) -> None:
    answer = describe(NAME, {"text": text, "filename": "a.py"})
    assert [item["code"] for item in answer["findings"]] == ["syntax-error"]
    assert answer["findings"][0]["line"] in {line, line + 1}
    assert (answer["method"], answer["functions"]) == (None, [])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 150 + ")" * 150,
        "x = " + "-" * 5_000 + "1",
        "x = 1" + " + 1" * 5_000,
        "x = a" + ".b" * 5_000,
        "if a:\n pass\n" + "elif b:\n pass\n" * 5_000,
        "x = " + "lambda: " * 5_000 + "1",
        "x = f" + "()" * 5_000,
        "[" * 5_000,
    ],
)
def test_what_would_exhaust_the_sandbox_parser_is_a_finding(text: str) -> None:
    assert [code for code, _ in codes(text)] == ["nested-too-deeply"]


@pytest.mark.parametrize(
    "text", ["x = [" + "a + b, " * 5_000 + "]", "x = a" + " and a" * 5_000, "f(\n" * 40 + ")" * 40]
)
def test_long_is_not_deep(text: str) -> None:
    assert codes(text) == []


def test_totals_count_lines_as_people_do() -> None:
    text = '"""Doc\n\nstring."""\n\n# comment\nx = 1  # note\n\n\ndef f():\n    """D."""\n    return x\n'
    totals = describe(NAME, {"text": text, "filename": "a.py"})["totals"]
    assert (totals["lines"], totals["code_lines"], totals["comment_lines"], totals["blank_lines"]) == (11, 7, 1, 3)
    assert (totals["functions"], totals["docstring_coverage"], totals["complexity"]) == (1, 1.0, 1)
    assert totals["maintainability"] == 81.4  # (171 - 0.23 - 16.2 ln 7) / 1.71


def test_limits_and_ignored_codes_are_configuration(genie: Describe) -> None:
    text = {"text": "def f(a):\n    if a: pass\n    if a: pass\n", "filename": "a.py"}
    assert "too-complex" in {item["code"] for item in genie(text, complexity_max=2)["findings"]}
    assert "too-complex" not in {
        item["code"] for item in genie(text, complexity_max=2, ignore=["too-complex"])["findings"]
    }
    with pytest.raises(ValueError, match="complexity_max"):
        genie(text, complexity_max=0)


def test_many_findings_are_cut_and_said_to_be() -> None:
    findings = describe(NAME, {"text": "eval(x)\n" * 1_500, "filename": "_a.py"})["findings"]
    assert len(findings) == 1_001
    assert findings[-1]["code"] == "findings-cut"
    assert "500" in findings[-1]["message"]


PIECES = st.sampled_from(
    [
        "def f(",
        ")",
        ":",
        "\n",
        "    ",
        "class A",
        "if x",
        "eval(",
        "'",
        '"""',
        "\\",
        "#",
        "=",
        "[",
        "]",
        "{",
        "}",
        "f'{",
        "*",
        "lambda",
        "é",
        "\t",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)))
def test_any_text_as_python_is_answered(text: str) -> None:
    answer = describe(NAME, {"text": text, "filename": "x.py"})
    assert answer["language"] == "python"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    assert all(1 <= item["line"] <= lines for item in answer["findings"])
