"""documentaliste: CommonMark's own reading of headings, hand-checked texts, and any text at all."""

import json
import re
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.unit.catalog.conftest import Describe, describe, source_agent

CORPUS = Path(__file__).parent / "corpus" / "documents"
ROOT = Path(__file__).resolve().parents[3]
NAME = "documentation/documentaliste"


@pytest.fixture(scope="module")
def module() -> types.ModuleType:
    return source_agent(NAME).module


def outline(text: str) -> list[tuple[int, str, int]]:
    return [(item["level"], item["title"], item["line"]) for item in describe(NAME, text)["outline"]]


def headings_of_commonmark(text: str) -> list[tuple[int, int]]:
    """(level, line) of the headings that stand in no list or quotation, as an independent parser reads them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [
        (int(token.tag[1]), token.map[0] + 1)
        for token in tokens
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]


@pytest.mark.parametrize(
    "path",
    sorted([*CORPUS.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]),
    ids=lambda path: path.stem,
)
def test_headings_of_real_documents_are_those_of_commonmark(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.startswith("---"):
        text = "\n" * text[: text.index("\n---", 3) + 5].count("\n") + text[text.index("\n---", 3) + 5 :]
    assert [(level, line) for level, _, line in outline(text)] == headings_of_commonmark(text)


LINES = st.sampled_from(
    [
        "", "", "", "plain words here", "more words", "# One", "## Two ##", "### ", "#", "#no", "   # Three",
        "    # four", "===", "---", "- - -", "***", "  ===  ", "=", "-", "> quoted", "> # inside", ">", "- item",
        "- # inside", "  more", "    code", "```", "````", "~~~", "```py", "* star", "1. one", "2. two", "1) one",
        "| a | b |", "|---|---|", "<!-- comment -->", "<!--", "-->", "<div>", "</div>", "Title\\",
        "####### seven", "\tcode", "a | b", "--- x",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=14))
@example(["plain words here", "> quoted", "==="])
@example(["- item", "---"])
@example(["- item", "  more", "==="])
@example(["```", "# One", "````", "# One"])
@example(["> ```", "plain words here", "==="])
@example(["[ref]: /url", "==="])
@example(["[ref]: /url", "Title", "==="])
def test_headings_of_any_lines_are_those_of_commonmark(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if text.startswith(("---\n", "+++\n")):
        text = "\n" + text
    assert [(level, line) for level, _, line in outline(text)] == headings_of_commonmark(text)


def test_what_only_looks_like_a_heading_is_none() -> None:
    text = (CORPUS / "lookalikes.md").read_text(encoding="utf-8")
    assert outline(text) == [(1, "The real title", 6), (2, "Set in two lines", 8), (3, "Last", 49)]


def test_html_headings_are_headings() -> None:
    text = '<h1 align="center">Agent &amp; <b>Factory</b></h1>\n\nText.\n\n<div>\n<h2>Inside</h2>\n</div>\n'
    assert outline(text) == [(1, "Agent & Factory", 1), (2, "Inside", 6)]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# First\n\n# Second\n", "First"),
        ("## Small\n\n# Large\n", "Large"),
        ('---\ntitle: "From *front* matter"\nauthor: me\n---\n\n# Heading\n', "From *front* matter"),
        ("+++\ntitle = 'Toml'\n+++\n# Heading\n", "Toml"),
        ("A plain first line\n\nThen a paragraph of text.\n", "A plain first line"),
        ("This is simply a sentence.\n\nAnd another one.\n", None),
        ("One line\nthat goes on\n\nMore.\n", None),
        ("", None),
        ("[![Build](https://a.b/c.svg)](https://a.b)\n# Project `x`\n", "Project x"),
        ("---\n\nNo front matter: a rule.\n\n# Real\n", "Real"),
    ],
)
def test_title(text: str, title: str | None) -> None:
    assert describe(NAME, text)["title"] == title


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("en", "He said no. Then he left.", ["He said no.", "Then he left."]),
        ("en", "Dr. Smith met J. K. Rowling. It was fun.", ["Dr. Smith met J. K. Rowling.", "It was fun."]),
        ("en", "It grew 3.5 percent. See fig. 3 for more.", ["It grew 3.5 percent.", "See fig. 3 for more."]),
        ("en", "The U.S. economy grew. Good.", ["The U.S. economy grew.", "Good."]),
        ("en", "Apples, pears, etc. The end.", ["Apples, pears, etc.", "The end."]),
        ("en", "Use e.g. Python. Done.", ["Use e.g. Python.", "Done."]),
        ("en", '"Is it?" he asked. "Yes!" She left.', ['"Is it?" he asked.', '"Yes!"', "She left."]),
        ("en", "Call `a.b. C()` now. Then stop.", ["Call a.b. C() now.", "Then stop."]),
        ("en", "Wait... what? Yes.", ["Wait... what?", "Yes."]),
        ("en", "It was I. Then came version 1.2. Nice.", ["It was I.", "Then came version 1.2.", "Nice."]),
        ("fr", "« Ah ! » dit-il. « Vraiment ? » Elle part.", ["« Ah ! » dit-il.", "« Vraiment ? »", "Elle part."]),
        ("fr", "M. Durand et Mme. Petit, p. ex. Paul. Fin.", ["M. Durand et Mme. Petit, p. ex. Paul.", "Fin."]),
        ("de", "Am 3. Oktober war es z. B. sehr kalt. Gut.", ["Am 3. Oktober war es z. B. sehr kalt.", "Gut."]),
        ("ja", "今日は。明日は！", ["今日は。", "明日は！"]),
        ("en", "", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(
    module: types.ModuleType, language: str, text: str, sentences: list[str]
) -> None:
    found = [module.restored(piece) for _, piece in module.sentences_of(module.plain(text), language)]
    assert found == sentences


TEXTS = {
    "en": "The committee has not yet decided whether the new rules should apply to all of the members or only to those "
    "who joined after the first of March, but it will do so before the end of the year.",
    "fr": "Le comité n'a pas encore décidé si les nouvelles règles doivent s'appliquer à tous les membres ou seulement "
    "à ceux qui sont arrivés après le premier mars, mais il le fera avant la fin de l'année.",
    "de": "Der Ausschuss hat noch nicht entschieden, ob die neuen Regeln für alle Mitglieder gelten sollen oder nur "
    "für die, die nach dem ersten März dazugekommen sind, aber er wird es vor dem Ende des Jahres tun.",
    "es": "El comité todavía no ha decidido si las nuevas reglas se aplican a todos los miembros o solo a los que "
    "llegaron después del primero de marzo, pero lo hará antes de que termine el año.",
    "it": "Il comitato non ha ancora deciso se le nuove regole si applicano a tutti i membri o solo a quelli che sono "
    "arrivati dopo il primo marzo, ma lo farà prima della fine dell'anno.",
    "pt": "O comité ainda não decidiu se as novas regras se aplicam a todos os membros ou só aos que chegaram depois "
    "do primeiro de março, mas vai fazê-lo antes do fim do ano.",
    "nl": "De commissie heeft nog niet besloten of de nieuwe regels voor alle leden gelden of alleen voor degenen die "
    "na de eerste maart zijn gekomen, maar zij zal dat voor het einde van het jaar doen.",
    "sv": "Kommittén har ännu inte bestämt om de nya reglerna ska gälla för alla medlemmar eller bara för dem som kom "
    "efter den första mars, men den kommer att göra det före årets slut.",
    "da": "Udvalget har endnu ikke besluttet, om de nye regler skal gælde for alle medlemmer eller kun for dem, der "
    "kom efter den første marts, men det vil gøre det før årets udgang.",
    "pl": "Komitet jeszcze nie zdecydował, czy nowe zasady mają dotyczyć wszystkich członków, czy tylko tych, którzy "
    "przyszli po pierwszym marca, ale zrobi to przed końcem roku.",
    "ru": "Комитет ещё не решил, должны ли новые правила применяться ко всем членам.",
    "uk": "Комітет ще не вирішив, чи мають нові правила застосовуватися до всіх членів.",
    "el": "Η επιτροπή δεν έχει αποφασίσει ακόμη αν οι νέοι κανόνες ισχύουν για όλα τα μέλη.",
    "ja": "委員会は、新しい規則をすべての会員に適用するかどうかをまだ決めていません。",
    "zh": "委员会尚未决定新规则是否适用于所有成员。",
    "ko": "위원회는 새 규칙을 모든 회원에게 적용할지 아직 결정하지 않았다.",
    "und": "Lorem xyzzy plugh 12345 foobar quux.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_language(code: str) -> None:
    answer = describe(NAME, TEXTS[code])["language"]
    assert answer["code"] == code
    assert (answer["confidence"] > 0) == (code != "und")


def test_a_few_words_are_too_few_to_tell_a_language() -> None:
    assert describe(NAME, "# Installation\n\nHello.")["language"] == {"code": "und", "confidence": 0.0}


ENGLISH = """
    1 the cat through strength time make house one two there where loved walked pays ideas:3 queue
    2 water table little people business began being reading open under wanted needed create castle apple given
    2 rhythm method python server human problem silent process quiet useful houses boxes changes prism careful
    3 syllable beautiful computer example remember important several idea area banana created library:3 radio
    3 government family:3 develop document average:3 reliance piano
    4 information education development experience necessary operation community military evaluate identify
    5 university communication possibility electricity organisation imagination
    6 responsibility availability
"""


def annotated(table: str) -> list[tuple[str, int]]:
    pairs = []
    for line in table.strip().splitlines():
        count, *words = line.split()
        for word in words:
            name, _, own = word.partition(":")
            pairs.append((name, int(own or count)))
    return pairs


@pytest.mark.parametrize(("word", "count"), annotated(ENGLISH))
def test_english_syllables(module: types.ModuleType, word: str, count: int) -> None:
    assert module.syllables_en(word) == count


FRENCH = """
    1 le chat dans pain eau lune porte place quand temps monde nuit
    2 maison enfant jardin table:1 parler écrire:2 bateau musique:2 question cité pensée village:2
    3 ordinateur:4 animal document liberté président universel:4 exemple:2 cinéma
    4 université:5 information gouvernement
"""


@pytest.mark.parametrize(("word", "count"), annotated(FRENCH))
def test_french_syllables(module: types.ModuleType, word: str, count: int) -> None:
    assert module.syllables_fr(word) == count


def test_readability_follows_the_published_formula() -> None:
    text = (
        "The cat sat on the mat. The dog ran to the house. They had a good time there. All of them went to bed.\n" * 2
    )
    answer = describe(NAME, text)["readability"]
    words, sentences, syllables = 48, 8, 48  # counted by hand: every word has one syllable
    assert answer["formula"] == "flesch_reading_ease"
    assert answer["score"] == pytest.approx(206.835 - 1.015 * words / sentences - 84.6 * syllables / words, abs=0.05)
    assert answer["grade"] == pytest.approx(0.39 * words / sentences + 11.8 * syllables / words - 15.59, abs=0.05)
    assert (answer["lix"], answer["band"]) == (round(words / sentences, 1), "easy")


def test_readability_of_other_languages() -> None:
    assert describe(NAME, TEXTS["fr"])["readability"]["formula"] == "kandel_moles"
    german = describe(NAME, TEXTS["de"])["readability"]
    words = re.findall(r"\w+", TEXTS["de"])
    assert german["formula"] == "lix"
    assert german["score"] == pytest.approx(
        len(words) + 100 * sum(len(word) > 6 for word in words) / len(words), abs=0.1
    )
    assert describe(NAME, "Too short to tell.")["readability"] is None


ARTICLE = (CORPUS / "lighthouse.md").read_text(encoding="utf-8") if (CORPUS / "lighthouse.md").exists() else ""


def test_keywords_are_what_the_article_is_about(documentaliste: Describe) -> None:
    found = [item["text"].lower() for item in documentaliste(ARTICLE, keywords=8)["keywords"]]
    assert len(found) == 8
    assert "lighthouse" in " ".join(found)
    assert "lens" in " ".join(found)
    assert not {"the", "of", "and", "was", "with"} & {
        word for text in found for word in (text.split()[0], text.split()[-1])
    }


def test_keywords_count_and_scores_are_consistent(documentaliste: Describe) -> None:
    keywords = documentaliste(ARTICLE, keywords=20)["keywords"]
    scores = [item["score"] for item in keywords]
    assert scores == sorted(scores, reverse=True)
    for item in keywords:
        pattern = r"\b" + r"\W+".join(re.escape(word.rstrip("s")) + "s?" for word in item["text"].split()) + r"\b"
        assert len(re.findall(pattern, ARTICLE, re.IGNORECASE)) >= item["count"] > 0


def test_the_summary_quotes_the_text_in_its_order(documentaliste: Describe) -> None:
    summary = documentaliste(ARTICLE, sentences=4)["summary"]
    assert len(summary) == 4
    assert [item["line"] for item in summary] == sorted(item["line"] for item in summary)
    lines = ARTICLE.split("\n")
    for item in summary:
        first = " ".join(item["text"].split()[:4])
        here = " ".join(lines[item["line"] - 1 : item["line"] + 1])
        assert first in re.sub(r"[*_`]", "", " ".join(here.split()))


def test_the_summary_says_nothing_twice(documentaliste: Describe) -> None:
    text = "# T\n\n" + "\n\n".join(["The harbour master counts every ship that enters the harbour."] * 8)
    text += "\n\nEvery ship that leaves pays a fee to the town.\n"
    assert len(documentaliste(text, sentences=5)["summary"]) == 2


def test_a_central_sentence_beats_an_aside(documentaliste: Describe) -> None:
    text = (
        "Whales breathe air and dive for food. Whales dive deep because food is found in deep water. "
        "My neighbour bought a red bicycle yesterday. Deep water holds the food that whales eat when they dive. "
        "Air is what whales need between two dives for food."
    )
    assert all("bicycle" not in item["text"] for item in documentaliste(text, sentences=3)["summary"])


def test_counts(documentaliste: Describe) -> None:
    text = (
        "# Title\n\nTwo words. And [a link](http://x.y) here.\n\n- one item\n- another\n\n"
        "```\ncode is not counted\n```\n\n| a | b |\n|---|---|\n| c | d |\n\n![image](i.png) <https://z.example>\n"
    )
    assert documentaliste(text)["counts"] == {
        "characters": len(text),
        "lines": 16,
        "words": 16,
        "sentences": 3,
        "paragraphs": 2,
        "headings": 1,
        "list_items": 2,
        "code_blocks": 1,
        "tables": 1,
        "links": 2,
        "images": 1,
        "reading_seconds": 5,
    }


def test_the_input_may_wrap_the_text_and_say_how_much_is_wanted(documentaliste: Describe) -> None:
    answer = documentaliste({"text": ARTICLE, "sentences": 2, "keywords": 3}, sentences=9, keywords=9)
    assert (len(answer["summary"]), len(answer["keywords"])) == (2, 3)
    assert documentaliste({"text": ARTICLE})["title"] == documentaliste(ARTICLE)["title"]
    assert documentaliste('{"title": "JSON, but not for us"}')["counts"]["words"] > 0
    assert documentaliste({"text": "ok \ud800"})["counts"]["words"] == 1


@pytest.mark.parametrize(
    "given_input",
    [{"text": 5}, {"text": "a", "sentences": -1}, {"text": "a", "keywords": "many"}, {"text": "a", "sentences": True}],
)
def test_wrong_wishes_are_refused(documentaliste: Describe, given_input: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        documentaliste(given_input)


def test_a_long_document_is_summarised_too(documentaliste: Describe) -> None:
    long = "\n\n".join(
        f"Paragraph {number} tells of river {number % 7} and of bridge {number % 11}." for number in range(900)
    )
    assert len(documentaliste(long, sentences=6)["summary"]) == 6


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_described(text: str) -> None:
    answer = describe(NAME, text)
    assert len(answer["counts"]) == 12
    json.dumps(answer, ensure_ascii=False).encode()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["*", "_", "`", "[", "](", ")", "<", ">", "!", "\\", "&#x", ";", "a", " ", "\n", "~~", "<!--"]),
        max_size=60,
    )
)
def test_any_markup_is_described(pieces: list[str]) -> None:
    describe(NAME, "".join(pieces))


@pytest.mark.parametrize("piece", ["<!--", "`", "[", "![", "**a", "_a", "> ", "&#", "<a ", "- ", "\\", "|", "~~"])
def test_long_runs_of_one_sign_take_no_longer_than_they_should(documentaliste: Describe, piece: str) -> None:
    assert documentaliste(piece * 4_000)["counts"]["characters"] == len(piece) * 4_000
