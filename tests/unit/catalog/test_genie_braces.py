"""genie_logiciel on languages with braces: figures counted by hand, and lizard's where it reads the files alike."""

from pathlib import Path
from typing import Any

import lizard  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.catalog.conftest import Describe, describe

NAME = "software/genie_logiciel"
CORPUS = Path(__file__).parent / "corpus" / "sources"

# qualified name: (line, end line, arguments, complexity, extended complexity), counted by hand
BY_HAND: dict[str, dict[str, tuple[int, int, list[str], int, int]]] = {
    "ring.c": {
        "ring_used": (12, 14, ["r"], 1, 2),
        "ring_put": (17, 28, ["r", "bytes", "count"], 4, 4),
        "ring_kind": (31, 48, ["c"], 5, 7),
        "ring_name": (50, 54, ["out", "name"], 1, 1),
    },
    "Queue.java": {
        "Queue.Queue": (11, 12, [], 1, 1),
        "Queue.offer": (15, 23, ["item", "times"], 3, 4),
        "Queue.kind": (25, 34, ["name"], 3, 4),
        "Queue.drain": (36, 51, ["after"], 2, 2),
        "Queue.drain.(anonymous).run": (39, 43, [], 2, 2),
    },
    "shop.js": {
        "total": (5, 12, ["items", "rate"], 4, 6),
        "greet": (14, 16, ["name"], 1, 1),
        "find": (18, 23, ["id"], 2, 2),
        "Cart.constructor": (28, 31, ["owner"], 1, 2),
        "Cart.pages": (33, 37, ["size"], 2, 2),
        "Cart.of": (39, 43, ["items"], 1, 1),
        "Cart.of.(anonymous)": (40, 42, ["item"], 1, 1),
        "Cart.size": (45, 47, [], 1, 1),
        "open": (51, 58, ["event"], 3, 3),
        "close": (59, 61, [], 1, 1),
    },
    "store.ts": {
        "Store.constructor": (10, 10, ["name", "size"], 1, 1),
        "Store.find": (12, 15, ["id", "fallback"], 1, 2),
        "Store.load": (17, 22, ["url"], 2, 3),
        "isItem": (25, 27, ["value"], 1, 2),
        "double": (29, 31, ["n"], 1, 1),
    },
    "pool.go": {
        "New": (16, 22, ["size", "options"], 2, 2),
        "Pool.Run": (24, 44, ["names", "limit"], 5, 6),
        "Pool.Run.(anonymous)": (37, 41, [], 2, 2),
        "Any": (46, 52, [], 2, 2),
    },
    "parse.rs": {
        "Parser.new": (15, 17, ["rest"], 1, 1),
        "Parser.next": (19, 32, ["self"], 6, 7),
        "Token.fmt": (36, 39, ["self", "f"], 1, 1),
        "count": (42, 56, ["items", "keep"], 4, 5),
    },
    "shape.cpp": {
        "shapes.Shape.Shape": (8, 10, ["x", "y"], 2, 2),
        "shapes.Shape.area": (12, 12, [], 1, 1),
        "shapes.Shape.operator==": (13, 15, ["other"], 1, 2),
        "shapes.largest": (22, 32, ["items", "fallback"], 3, 4),
        "shapes::Shape::scaled": (36, 43, ["by"], 2, 3),
    },
    "Meter.cs": {
        "Metering.Meter.Meter": (11, 14, ["start"], 1, 1),
        "Metering.Meter.Add": (16, 27, ["amount", "path"], 3, 5),
    },
}
LANGUAGES = {
    "c": "c",
    "java": "java",
    "js": "javascript",
    "ts": "typescript",
    "go": "go",
    "rs": "rust",
    "cpp": "cpp",
    "cs": "csharp",
}


def answer_for(name: str) -> Any:
    return describe(NAME, {"text": (CORPUS / name).read_text(encoding="utf-8"), "filename": name})


@pytest.mark.parametrize("name", BY_HAND)
def test_functions_are_those_counted_by_hand(name: str) -> None:
    found = {
        item["qualified_name"]: (
            item["line"],
            item["end_line"],
            [argument["name"] for argument in item["arguments"]],
            item["complexity"],
            item["complexity_extended"],
        )
        for item in answer_for(name)["functions"]
    }
    assert found == BY_HAND[name]


@pytest.mark.parametrize("name", BY_HAND)
def test_the_language_is_told_by_the_name_and_by_the_text(name: str) -> None:
    text = (CORPUS / name).read_text(encoding="utf-8")
    expected = LANGUAGES[name.rpartition(".")[2]]
    assert answer_for(name)["language"] == expected
    assert describe(NAME, text)["language"] == expected


# Where lizard reads these files as people do; it loses ring_kind after #else, Rust's lifetimes, and int? of C#.
LIKE_LIZARD = {"Queue.java": 3, "pool.go": 4, "shop.js": 9, "store.ts": 5, "ring.c": 2, "shape.cpp": 5}


@pytest.mark.parametrize("name", LIKE_LIZARD)
def test_extended_complexity_agrees_with_lizard(name: str) -> None:
    analysed = lizard.analyze_file.analyze_source_code(name, (CORPUS / name).read_text(encoding="utf-8"))
    theirs = {(item.start_line, item.cyclomatic_complexity) for item in analysed.function_list}
    ours = {(item["line"], item["complexity_extended"]) for item in answer_for(name)["functions"]}
    assert len(ours & theirs) >= LIKE_LIZARD[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ring.c", [("unsafe-function", 52)]),
        ("Queue.java", [("hardcoded-secret", 8), ("exception-ignored", 47)]),
        ("shop.js", [("hardcoded-secret", 2), ("exception-ignored", 21), ("eval-used", 54)]),
        ("store.ts", []),
        ("pool.go", []),
        ("parse.rs", []),
        ("shape.cpp", []),
        ("Meter.cs", []),
    ],
)
def test_findings(name: str, expected: list[tuple[str, int]]) -> None:
    assert [(item["code"], item["line"]) for item in answer_for(name)["findings"]] == expected


@pytest.mark.parametrize(
    ("filename", "text", "code"),
    [
        ("a.c", 'int main(void) { system("ls"); }', "shell-command"),
        ("a.c", "int main(void) { gets(line); }", "unsafe-function"),
        ("a.js", "const f = new Function(body);", "eval-used"),
        ("a.js", "const o = { rejectUnauthorized: false };", "tls-verification-off"),
        ("a.go", "var c = &tls.Config{InsecureSkipVerify: true}", "tls-verification-off"),
        ("a.js", "q = `SELECT * FROM t WHERE id = ${id}`;", "sql-from-strings"),
        ("a.java", 'String q = "DELETE FROM t WHERE id = " + id;', "sql-from-strings"),
        ("a.ts", "const k = 'AKIA" + "ABCDEFGHIJKLMNOP';", "hardcoded-secret"),
        ("a.c", "int f(void) { return (1; }", "unbalanced-brackets"),
        ("a.c", "int f(int a) {" + "if (a) {}" * 10 + "}", "too-complex"),
    ],
)
def test_a_suspicious_construct_is_found(filename: str, text: str, code: str) -> None:
    assert code in {item["code"] for item in describe(NAME, {"text": text, "filename": filename})["findings"]}


@pytest.mark.parametrize(
    ("filename", "text"),
    [
        ("a.c", "void gets(char *line) { }"),
        ("a.c", 'const char *s = "gets(line)"; // system("x")'),
        ("a.js", "model.eval(x);"),
        ("a.js", "const password = readPassword();"),
        ("a.js", "const tokenUrl = 'https://example.org';"),
        ("a.go", "var c = &tls.Config{InsecureSkipVerify: false}"),
        ("a.java", 'String q = "SELECT a FROM t WHERE id = ?";'),
    ],
)
def test_what_is_fine_is_not_found(filename: str, text: str) -> None:
    assert describe(NAME, {"text": text, "filename": filename})["findings"] == []


@pytest.mark.parametrize(
    ("given_input", "language"),
    [
        ({"text": "MOVE A TO B.", "filename": "a.cob"}, None),
        ({"text": "hello there", "filename": ""}, None),
        ({"text": "x", "language": "Fortran"}, "fortran"),
    ],
)
def test_an_unsupported_language_is_said_to_be_one(
    genie: Describe, given_input: dict[str, str], language: str | None
) -> None:
    answer = genie(given_input)
    assert (answer["language"], answer["method"], answer["functions"]) == (language, None, [])
    assert [item["code"] for item in answer["findings"]] == ["unsupported-language"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("#!/usr/bin/env python3\nx", "python"),
        ("#!/usr/bin/env node\nx", "javascript"),
        ("def f(x):\n    return x\n", "python"),
        ("import os\nprint(os.name)\n", "python"),
    ],
)
def test_the_language_of_a_text_without_a_name(genie: Describe, text: str, language: str) -> None:
    assert genie(text)["language"] == language


def test_a_stated_language_wins(genie: Describe) -> None:
    assert genie({"text": "int f(void) { return 1; }", "language": "C++", "filename": "x.py"})["language"] == "cpp"


def test_lines_of_code_and_comments(genie: Describe) -> None:
    totals = genie({"text": "// one\n/* two\n three */\n\nint x; // note\n", "filename": "a.c"})["totals"]
    assert (totals["lines"], totals["code_lines"], totals["comment_lines"], totals["blank_lines"]) == (5, 1, 3, 1)


PIECES = st.sampled_from(
    [
        "{", "}", "(", ")", "[", "]", ";", "fn f", "func ", "if ", "=>", "class A", "'", '"', "`", "${", "/*", "*/",
        "//", "#if 0\n", "#else\n", "\n", "?", ":", "case ", "match x ", "new ", "operator", 'r#"', "a", " ", "impl ",
        "<", ">",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(LANGUAGES.values())),
    st.one_of(st.text(max_size=150), st.lists(PIECES, max_size=40).map("".join)),
)
def test_any_text_is_answered(language: str, text: str) -> None:
    answer = describe(NAME, {"text": text, "language": language})
    assert (answer["language"], answer["method"]) == (language, "tokens")
    assert all(item["line"] <= item["end_line"] for item in answer["functions"])
