import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates import names
from templates.names import InvalidNameError, TemplateName, TemplatePattern, TemplateRef, Version, nearest
from tests.unit.templates.documents import patterns, words


@pytest.mark.parametrize("text", ["documentation/documentaliste", "ab/cd", "a1/b-_2"])
def test_a_name_is_read_and_written_unchanged(text: str) -> None:
    assert str(TemplateName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "/", "a/b", "ab/", "/cd", "ab/cd/ef", "Ab/cd", "ab/cd ", " ab/cd", "ab/cd\n", "1b/cd", "ab/ç1",
        "ab/" + "c" * 42, "../etc/passwd", "ab/..", "ab/*", "ab/cd@1.0.0", "ab\x00/cd", "аb/cd",
    ],
)  # fmt: skip
def test_what_is_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError, match="expected a template name domain/name, got"):
        TemplateName.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1.0",
        "01.0.0",
        "1.0.0+build",
        "1.0.0-",
        "1.0.0-01",
        "v1.0.0",
        "1.0.0\n",
        "1.0.-1",
        "1.0.0-a..b",
        "9999999999.0.0",
    ],
)
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Version.parse(text)
    with pytest.raises(InvalidNameError, match="reference"):
        TemplateRef.parse(f"ab/cd@{text}")


def test_versions_are_ordered_as_semantic_versioning_section_11_says() -> None:
    ascending = [
        "0.9.0", "1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
        "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0",
    ]  # fmt: skip
    assert [str(version) for version in sorted(map(Version.parse, reversed(ascending)))] == ascending


def test_references_are_ordered_by_name_and_then_by_version() -> None:
    ordered = ["ab/cd@1.9.0", "ab/cd@1.10.0", "ab/ce@0.1.0", "b1/aa@0.1.0"]
    assert [str(ref) for ref in sorted(map(TemplateRef.parse, reversed(ordered)))] == ordered
    assert TemplateName("ab", "cd").at(Version.parse("1.9.0")) == TemplateRef.parse(ordered[0])
    assert TemplateRef.parse(ordered[0]).template_name == TemplateName("ab", "cd")


@pytest.mark.parametrize("text", ["*", "*/cd", "ab/", "ab/c*", "**/*", "ab/*/*", "a*/cd", "AB/*"])
def test_what_is_not_a_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError, match="pattern"):
        TemplatePattern.parse(text)


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("ab/cd", ["ab/cd"], ["ab/ce", "ax/cd"]),
        ("ab/*", ["ab/cd", "ab/ce"], ["abc/cd"]),
        ("*/*", ["ab/cd", "xy/zz"], []),
    ],
)
def test_a_pattern_matches_what_it_stands_for(pattern: str, matched: list[str], unmatched: list[str]) -> None:
    parsed = TemplatePattern.parse(pattern)
    assert str(parsed) == pattern
    assert all(parsed.matches(TemplateName.parse(name)) for name in matched)
    assert not any(parsed.matches(TemplateName.parse(name)) for name in unmatched)


@given(patterns, patterns, words, words)
def test_what_a_covered_pattern_matches_its_cover_matches(
    ours: TemplatePattern, theirs: TemplatePattern, domain: str, name: str
) -> None:
    for template in (TemplateName(domain, name), TemplateName("docs", "base"), TemplateName("docs", name)):
        if ours.covers(theirs) and theirs.matches(template):
            assert ours.matches(template)


@given(st.text(max_size=60))
def test_no_text_is_both_refused_and_read(text: str) -> None:
    for kind in (TemplateName, TemplateRef, TemplatePattern, Version):
        try:
            assert str(kind.parse(text)) == text
        except InvalidNameError as error:
            assert error.reason == "INVALID_NAME"  # noqa: PT017 - both outcomes are right


def test_the_nearest_names_come_best_first() -> None:
    known = ["documentation/documentaliste", "documentation/base", "infrastructure/hardware"]
    assert nearest("documentation/documentalist", known)[0] == "documentation/documentaliste"
    assert nearest("zzz", known) == ()
    assert nearest("x" * 100_000, known) == ()


def test_the_published_schema_has_the_grammar_of_this_module() -> None:
    schema = json.loads(Path("templates/template.schema.json").read_text(encoding="utf-8"))["$defs"]
    assert schema["word"]["pattern"] == f"^{names.WORD_PATTERN}$"
    assert schema["templateName"]["pattern"] == f"^{names.WORD_PATTERN}/{names.WORD_PATTERN}$"
    version = schema["version"]["pattern"]
    assert version.replace("(", "(?:") == f"^{names.VERSION_PATTERN}$"
    assert schema["reference"]["pattern"] == f"^{names.WORD_PATTERN}/{names.WORD_PATTERN}@{version[1:]}"
