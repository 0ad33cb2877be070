"""documentaliste: what a text or Markdown document says, as data.

Title, outline, keywords, extractive summary, language, readability and counts; deterministic, from the document alone.
Input is the document itself, or a JSON object ``{"text": …, "sentences": …, "keywords": …}``. docs/catalog.md states
the rules and the papers they come from.
"""

import json
import math
import re

import agentfactory_sdk


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


SENTENCES_DEFAULT, SENTENCES_MAX = 5, 50
KEYWORDS_DEFAULT, KEYWORDS_MAX = 10, 100
CONTAINER_DEPTH_MAX = 16
LAZY_LINES_MAX = 100
RANKED_SENTENCES_MAX = 150  # the similarity graph is quadratic: longer documents are ranked in rounds
WORDS_PER_MINUTE = 238  # silent reading of non-fiction, Brysbaert 2019
READABLE_WORDS_MIN = 25
LIKENESS_MIN = 0.05
RANK_ROUNDS_MAX = 30

# --- languages: function words, which tell languages apart (Grefenstette 1995) and are no keywords --------------------

FUNCTION_WORDS = {
    "en": "the of and to in is that it was for on are as with his they at be this from have or by had not but what all "
    "were we when your can there an which their if will each about how up out them then she many some so these would "
    "other into has more her him could than its who been now my did get may you he our those only over also after most "
    "such no where should any same both because does during between through being while without within however do",
    "fr": "le la les des du de et est en une un que qui dans pour pas au aux ce cette ces sur avec il elle ils elles "
    "nous vous par plus ne se son sa ses leur leurs sont été être avoir ont mais ou où donc car comme si tout tous "
    "toute toutes aussi très bien sans sous entre même fait peut cela ça je tu on mon ma mes ton ta tes notre nos "
    "votre vos dont quand lors ainsi afin alors après avant chez chaque encore depuis jusque lui eux était étaient "
    "avait avaient y à soit selon",
    "de": "der die das und ist nicht von zu den mit sich auf für dem ein eine einen einem einer eines auch es an als "
    "werden aus er hat dass sie nach wird bei im um am sind noch wie einem über so zum war haben nur oder aber vor zur "
    "bis mehr durch man dann da wenn sein ihre ich wir ihr kann können diese dieser dieses keine sehr unter gegen "
    "wurde wurden mich dich schon weil doch hier wo was",
    "es": "el la los las de del y en que es un una por con no se su para al lo como más pero sus le ya o este sí "
    "porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni "
    "contra otros ese eso ante ellos e esto mí antes algunos qué unos yo otro otras otra él tanto esa estos mucho nada "
    "cual poco ella ser son fue está están era han puede así cada",
    "it": "il lo la i gli le di del della dei delle degli e è in che un una uno per con non si su sono da dal dalla al "
    "alla ai alle nel nella nei nelle sul sulla come più ma anche ha hanno se ci o questo questa questi queste essere "
    "suo sua suoi loro era stato stata quando dove chi perché dopo prima ogni molto tutti tutto così già fra tra mi ti "
    "lui lei noi voi quale può",
    "pt": "o a os as de do da dos das e em no na nos nas que é um uma uns umas por para com não se seu sua seus suas "
    "ao aos à às como mais mas foi ele ela eles elas tem são ou ser quando muito há já está eu também só pelo pela "
    "pelos pelas até isso entre era depois sem mesmo ter estão você nem foram essa esse este esta num numa qual onde "
    "porque pode cada",
    "nl": "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit door over hij ze "
    "zij wordt worden naar heeft hebben deze dit die wat nog of tot wel geen kan kunnen was waren ik je jij u wij we "
    "mijn hun haar zich al onder tegen na veel meer moet zou zoals omdat",
    "sv": "och i att det som en på är av för med den till inte om ett han har de så jag var men vi från kan när man nu "
    "eller sig hon ska skulle där då sin vara alla under över upp ut mot bara också efter utan många mycket denna "
    "detta dessa blir blev hade mig dig ni din mina hur vad",
    "da": "og i at det som en på er af for med den til ikke om et han har de så jeg var men vi fra kan når man nu "
    "eller sig hun skal skulle hvor da sin være alle under over op ud mod kun også efter uden mange meget denne dette "
    "disse bliver blev havde mig dig hvad hvis deres blive noget",
    "pl": "i w na z do nie się to że jest o jak po co tak za od przez przy dla ale tylko są był była było były może "
    "które który która już lub oraz jego jej ich tym tej tego być ze czy również także jako gdy więc bardzo pod nad "
    "bez między wszystkie można jednak",
}
MORE_STOP_WORDS = {
    "en": "a i am against again above below before down off further once here why few own too very just don t s "
    "yourself himself herself itself themselves ourselves me us yours hers ours theirs whom having doing until under "
    "nor upon per via one two three first second new used use using uses make makes made like well even much must "
    "might shall since still yet though although whether either neither every anything something nothing everything "
    "therefore thus hence e.g i.e etc cannot isn aren doesn didn won let lets say says said given see way ways thing "
    "things need needs want really another several rather often never always it's that's don't doesn't can't isn't",
    "fr": "c d j l m n s t qu jusqu lorsqu puisqu quoiqu ceci celui celle ceux celles cet là ici si non oui ni or vers "
    "hors pendant parce quoi quel quelle quels quelles lequel laquelle lesquels lesquelles auquel duquel autre autres "
    "certains certaines plusieurs peu trop moins beaucoup déjà toujours jamais rien ai as a avons avez es sommes êtes "
    "suis sera seront serait soient étant ayant eu fut furent font faire faut doit doivent peuvent pouvoir deux trois "
    "premier première seul seule cependant toutefois notamment lorsque puisque tandis tant tel telle tels telles moi "
    "toi dès etc voir ainsi",
    "de": "ab alle allem allen aller alles andere ihm ihn ihnen ihrem ihren ihrer mir mein meine dein uns unser euch "
    "jede jeder jedes nun ohne selbst soll sollte viel viele während welche welcher würde zwischen etwa damit davon "
    "dazu hat hatte ins vom bin bist seine seinen seinem seiner je also ob beim",
}
LETTERS = {"fr": "œùûê", "de": "ßäöü", "es": "ñ¿¡", "pt": "ãõ", "sv": "åäö", "da": "åæø", "pl": "łążęśćńźż"}
SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),  # kana come before Han: Japanese text mixes both
    ("ko", re.compile("[\uac00-\ud7a3]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
)
UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
PROFILES = {code: word_set(words) for code, words in FUNCTION_WORDS.items()}
SHARED_BY: dict[str, int] = {}
for _profile in PROFILES.values():
    for _word in _profile:
        SHARED_BY[_word] = SHARED_BY.get(_word, 0) + 1

WORD = re.compile("[\u3040-\u30ff\u4e00-\u9fff]|[^\\W_]+(?:['’.\\-][^\\W_]+)*")  # CJK: a character is a word
ELISION = re.compile("^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|dell|nell|all|sull|dall|un)['’]", re.IGNORECASE)


def language_of(words: list[str], text: str) -> tuple[str, float]:
    """The ISO 639-1 code and a confidence in 0..1; ``("und", 0.0)`` when the text is too short or matches nothing.

    A function word counts more the fewer languages share it; letters that only some languages use add a little.
    """
    letters = sum(map(str.isalpha, text[:20_000]))
    for code, pattern in SCRIPTS:
        found = len(pattern.findall(text[:20_000]))
        if found >= 4 and found > letters * (0.1 if code == "ja" else 0.4):
            ukrainian = code == "ru" and UKRAINIAN.search(text)
            return "uk" if ukrainian else code, round(min(1.0, found / letters), 2)
    sample = words[:5_000]
    scores = dict.fromkeys(PROFILES, 0.0)
    matches = dict.fromkeys(PROFILES, 0)
    for word in sample:
        if word in SHARED_BY:
            weight = 1.0 / SHARED_BY[word]
            for code, profile in PROFILES.items():
                if word in profile:
                    scores[code] += weight
                    matches[code] += 1
    lowered = text[:20_000].lower()
    for code, signs in LETTERS.items():
        scores[code] += 0.2 * sum(lowered.count(sign) for sign in signs)
    best, second = sorted(scores, key=lambda code: (-scores[code], code))[:2]
    if matches[best] < 4 or matches[best] < len(sample) * 0.08 or scores[best] < scores[second] * 1.1:
        return "und", 0.0
    return best, round(min(0.99, 1.0 - scores[second] / scores[best]), 2)


# --- blocks: the part of CommonMark that decides what is heading, prose, code or markup -------------------------------

ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
BREAK = re.compile(r"^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})(.*)$")
ITEM = re.compile(r"^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(?=\S)|[ \t]*$)")
QUOTE = re.compile(r"^ {0,3}>[ \t]?")
DEFINITION = re.compile(r"^ {0,3}\[[^\[\]]+\]:[ \t]*\S+(?:[ \t]+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?[ \t]*$")
TABLE_RULE = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
HTML_RAW = re.compile(r"^ {0,3}<(script|pre|style|textarea)(?:[ \t>]|$)", re.IGNORECASE)
HTML_BLOCK = re.compile(
    r"^ {0,3}</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|"
    r"dir|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|"
    r"menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|"
    r"track|ul)(?:[ \t]|/?>|$)",
    re.IGNORECASE,
)
HTML_ALONE = re.compile(r"^ {0,3}(?:<[A-Za-z][A-Za-z0-9-]*(?:[ \t]+[^<>]*)?/?>|</[A-Za-z][A-Za-z0-9-]*[ \t]*>)[ \t]*$")
HTML_HEADING = re.compile(r"<h([1-6])(?:\s[^<>]*)?>(.*?)</h\1\s*>", re.IGNORECASE | re.DOTALL)
FRONT_MATTER_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+?)[ \t]*$")
PROSE = frozenset({"paragraph", "item"})


class Block:
    """One block: ``kind`` is heading, paragraph, item, code, table or html; ``line`` counts from 1."""

    __slots__ = ("depth", "kind", "level", "line", "text")

    def __init__(self, kind: str, line: int, text: str, *, level: int = 0, depth: int = 0) -> None:
        self.kind, self.line, self.text, self.level, self.depth = kind, line, text, level, depth


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def starts_block(line: str) -> bool:
    """Whether the line interrupts a paragraph (CommonMark sections 4 and 5)."""
    if indent_of(line) > 3:
        return False
    item = ITEM.match(line)
    starts_list = (
        item is not None and item[3] is not None and (not item[2][0].isdigit() or item[2][:-1].strip("0") == "1")
    )
    fence = FENCE.match(line)
    return bool(
        starts_list
        or QUOTE.match(line)
        or ATX.match(line)
        or BREAK.match(line)
        or (fence and ("`" not in fence[3] or fence[2][0] == "~"))
        or HTML_BLOCK.match(line)
        or HTML_RAW.match(line)
        or line.lstrip().startswith(("<!", "<?"))
    )


class Blocks:
    """Reads lines into blocks; block quotes and list items are read again as documents of their own."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.open = False  # whether what was read last ends inside a paragraph, which a lazy line would continue

    def read(self, lines: list[str], *, first: int = 1, depth: int = 0, kind: str = "paragraph") -> None:
        position = 0
        paragraph: list[str] = []

        def flush() -> None:
            nonlocal paragraph
            paragraph = without_definitions(paragraph)
            if paragraph:
                self.blocks.append(Block(kind, first + position - len(paragraph), "\n".join(paragraph), depth=depth))
            paragraph = []

        while position < len(lines):
            line = lines[position]
            if not line.strip():
                flush()
                position += 1
                continue
            if paragraph:
                underline = SETEXT.match(line)
                if underline:
                    paragraph = without_definitions(paragraph)
                if underline and paragraph:
                    start = first + position - len(paragraph)
                    level = 1 if underline[1][0] == "=" else 2
                    self.blocks.append(Block("heading", start, "\n".join(paragraph), level=level, depth=depth))
                    paragraph = []
                    position += 1
                    continue
                if paragraph and "|" in paragraph[-1] and "|" in line and TABLE_RULE.match(line):
                    header = paragraph.pop()
                    flush()
                    position = self._table(lines, position, header, first, depth)
                    continue
                if not starts_block(line):
                    paragraph.append(line)
                    position += 1
                    continue
                flush()
            elif indent_of(line) > 3:
                position = self._indented(lines, position, first, depth)
                continue
            self.open = False
            step = self._block(lines, position, first, depth)
            if step == position:
                paragraph.append(line)
                step += 1
            position = step
        self.open = bool(paragraph) or (self.open and bool(lines) and bool(lines[-1].strip()))
        flush()

    def _block(self, lines: list[str], position: int, first: int, depth: int) -> int:
        """Read the block that starts here and return where the next begins; the same place if it is a paragraph."""
        line = lines[position]
        heading = ATX.match(line)
        if heading:
            text = (heading[2] or "").strip()
            text = "" if text.strip("#") == "" else text
            self.blocks.append(Block("heading", first + position, text, level=len(heading[1]), depth=depth))
            return position + 1
        fence = FENCE.match(line)
        if fence and ("`" not in fence[3] or fence[2][0] == "~"):
            return self._fenced(lines, position, first, depth, fence[2])
        if BREAK.match(line):
            return position + 1
        if depth < CONTAINER_DEPTH_MAX:
            if QUOTE.match(line):
                return self._quote(lines, position, first, depth)
            item = ITEM.match(line)
            if item:
                return self._item(lines, position, first, depth, item)
        return self._html(lines, position, first, depth)

    def _indented(self, lines: list[str], position: int, first: int, depth: int) -> int:
        start = position
        while position < len(lines) and (not lines[position].strip() or indent_of(lines[position]) > 3):
            position += 1
        self.blocks.append(Block("code", first + start, "\n".join(lines[start:position]), depth=depth))
        return position

    def _fenced(self, lines: list[str], position: int, first: int, depth: int, mark: str) -> int:
        start = position
        position += 1
        while position < len(lines):
            closing = FENCE.match(lines[position])
            if closing and closing[2].startswith(mark) and not closing[3].strip():
                break
            position += 1
        self.blocks.append(Block("code", first + start, "\n".join(lines[start + 1 : position]), depth=depth))
        return position + 1

    def _table(self, lines: list[str], position: int, header: str, first: int, depth: int) -> int:
        start = position - 1
        rows = [header]
        position += 1
        while position < len(lines) and lines[position].strip() and not starts_block(lines[position]):
            rows.append(lines[position])
            position += 1
        self.blocks.append(Block("table", first + start, "\n".join(rows), depth=depth))
        return position

    def _quote(self, lines: list[str], position: int, first: int, depth: int) -> int:
        start, inner = position, []
        lazy = False
        while position < len(lines):
            line = lines[position]
            mark = QUOTE.match(line)
            if mark:
                inner.append(line[mark.end() :])
                lazy = False
            elif line.strip() and not starts_block(line) and (lazy or ends_in_paragraph(inner)):
                inner.append(as_lazy(line))
                lazy = True
            else:
                break
            position += 1
        self.read(inner, first=first + start, depth=depth + 1)
        return position

    def _item(self, lines: list[str], position: int, first: int, depth: int, item: re.Match[str]) -> int:
        start = position
        space = item[3] or " "
        width = len(item[1]) + len(item[2]) + (len(space) if len(space) <= 4 else 1)
        inner = [lines[position][width:]]
        position += 1
        blanks, lazy = 0, False
        while position < len(lines):
            line = lines[position]
            if not line.strip():
                blanks += 1
            elif indent_of(line) >= width and not (blanks and item[3] is None and len(inner) == 1):
                inner.extend([""] * blanks + [line[width:]])
                blanks, lazy = 0, False
            elif not blanks and not starts_block(line) and not ITEM.match(line) and (lazy or ends_in_paragraph(inner)):
                inner.append(as_lazy(line))
                lazy = True
            else:
                break
            position += 1
        self.read(inner, first=first + start, depth=depth + 1, kind="item")
        return position - blanks

    def _html(self, lines: list[str], position: int, first: int, depth: int) -> int:
        line = lines[position]
        text = line.lstrip()
        raw = HTML_RAW.match(line)
        for opening, closing in (("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>"), ("<!", ">")):
            if text.startswith(opening) and (opening != "<!" or text[2:3].isalpha()):
                return end_of_html(lines, position, closing)
        if raw:
            return end_of_html(lines, position, f"</{raw[1].lower()}>")
        if not HTML_BLOCK.match(line) and not HTML_ALONE.match(line):
            return position
        start = position
        while position < len(lines) and lines[position].strip():
            position += 1
        self._html_text("\n".join(lines[start:position]), first + start, depth)
        return position

    def _html_text(self, source: str, line: int, depth: int) -> None:
        place = 0
        for heading in HTML_HEADING.finditer(source):
            self._html_prose(source[place : heading.start()], line + source.count("\n", 0, place), depth)
            at = line + source.count("\n", 0, heading.start())
            self.blocks.append(Block("heading", at, heading[2].strip(), level=int(heading[1]), depth=depth))
            place = heading.end()
        self._html_prose(source[place:], line + source.count("\n", 0, place), depth)

    def _html_prose(self, source: str, line: int, depth: int) -> None:
        if plain(source).strip():
            self.blocks.append(Block("html", line, source, depth=depth))


def without_definitions(paragraph: list[str]) -> list[str]:
    """A paragraph may begin with link reference definitions, which nobody reads."""
    count = 0
    while count < len(paragraph) and DEFINITION.match(paragraph[count]):
        count += 1
    return paragraph[count:]


def ends_in_paragraph(lines: list[str]) -> bool:
    """Whether a paragraph is open after these lines of a container; the last ones decide."""
    if not lines or not lines[-1].strip():
        return False
    reader = Blocks()
    reader.read(lines[-LAZY_LINES_MAX:], depth=CONTAINER_DEPTH_MAX - 4)
    return reader.open


def as_lazy(line: str) -> str:
    """A lazy continuation line: never an underline or code of the container that it continues."""
    text = line.strip()
    return "\\" + text if SETEXT.match(text) else text


def end_of_html(lines: list[str], position: int, closing: str) -> int:
    while position < len(lines):
        if closing in lines[position].lower():
            return position + 1
        position += 1
    return position


def front_matter(lines: list[str]) -> tuple[int, str | None]:
    """How many lines the YAML or TOML front matter takes, and the title it gives."""
    if not lines or lines[0].rstrip() not in {"---", "+++"}:
        return 0, None
    closing = {"---", "..."} if lines[0].startswith("-") else {"+++"}
    title = None
    keyed = False
    for number, line in enumerate(lines[1:200], start=1):
        if line.rstrip() in closing:
            return (number + 1, title) if keyed else (0, None)
        if not line.strip():
            if lines[0].startswith("-") and not keyed:
                return 0, None
            continue
        keyed = keyed or re.match(r"^[\w.-]+[ \t]*[:=]", line) is not None
        found = FRONT_MATTER_TITLE.match(line)
        if found and title is None:
            title = found[1].strip("'\"").strip() or None
    return 0, None


# --- inline text ------------------------------------------------------------------------------------------------------

# Characters inside code spans and after a backslash stand for themselves: they travel as Unicode noncharacters.
LITERAL = {ord(sign): 0xFDD0 + number for number, sign in enumerate("\\`*_{}[]()<>#+-.!?~|&:;\"'/,^")}
RESTORED = {value: key for key, value in LITERAL.items()}
BACKTICKS = re.compile(r"\\[!-/:-@\[-`{-~]|`+")
IMAGE = re.compile(r"!\[([^\[\]]*)\](?:\([^()\s]*(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)|\[[^\[\]]*\])")
LINK = re.compile(
    r"\[([^\[\]]*)\](?:\(<?[^()\s]*(?:\([^()\s]*\)[^()\s]*)?>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)|\[[^\[\]]*\])"
)
FOOTNOTE = re.compile(r"\[\^[^\[\]\s]+\]:?")
CHECKBOX = re.compile(r"^\[[ xX]\]\s+")
AUTOLINK = re.compile(r"<((?:https?|ftp|mailto):[^<>\s]*)>")
TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>")
STRONG = re.compile(r"(\*{1,3}|~~)(?=\S)([^*~]+?)(?<=\S)\1")
UNDERSCORED = re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])([^_]+(?:_[^_\s]+)*?)(?<=\S)\1(?!\w)")
ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z]{2,8}));")
ENTITIES = {
    "amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " ", "copy": "©", "reg": "®", "trade": "™",
    "hellip": "…", "mdash": "—", "ndash": "–", "lsquo": "‘", "rsquo": "’", "ldquo": "“", "rdquo": "”", "laquo": "«",
    "raquo": "»", "bull": "•", "middot": "·", "times": "×", "rarr": "→", "larr": "←", "deg": "°", "euro": "€",
    "pound": "£", "eacute": "é", "egrave": "è", "ecirc": "ê", "agrave": "à", "acirc": "â", "ccedil": "ç", "ocirc": "ô",
    "ugrave": "ù", "ucirc": "û", "icirc": "î", "iuml": "ï", "euml": "ë", "Eacute": "É", "Agrave": "À", "oelig": "œ",
    "auml": "ä", "ouml": "ö", "uuml": "ü", "szlig": "ß", "ntilde": "ñ",
}  # fmt: skip


def literal_code(text: str) -> str:
    """Code spans lose their backticks and escapes their backslash; what they hold is protected from the rules below."""
    if "`" not in text and "\\" not in text:
        return text
    runs: dict[str, list[int]] = {}
    for mark in BACKTICKS.finditer(text):
        if mark[0][0] == "`":
            runs.setdefault(mark[0], []).append(mark.start())
    for places in runs.values():
        places.reverse()
    parts: list[str] = []
    place = 0
    for mark in BACKTICKS.finditer(text):
        if mark.start() < place:
            continue
        parts.append(text[place : mark.start()])
        place = mark.end()
        if mark[0][0] == "\\":
            parts.append(mark[0][1].translate(LITERAL))
            continue
        later = runs[mark[0]]
        while later and later[-1] <= mark.start():
            later.pop()
        if later:
            parts.append(text[place : later[-1]].strip(" ").translate(LITERAL))
            place = later[-1] + len(mark[0])
        else:
            parts.append(mark[0].translate(LITERAL))
    return "".join([*parts, text[place:]])


def without_comments(text: str) -> str:
    place = text.find("<!--")
    while place >= 0:
        end = text.find("-->", place + 4)
        if end < 0:
            break
        text = text[:place] + "\n" * text.count("\n", place, end) + text[end + 3 :]
        place = text.find("<!--", place)
    return text


def entity(match: re.Match[str]) -> str:
    if match[3]:
        return ENTITIES.get(match[3], match[0])
    code = int(match[1]) if match[1] else int(match[2], 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"


def plain(text: str, *, images: bool = False) -> str:
    """The text that a reader sees; line breaks stay where they were. ``images`` keeps their alternative text."""
    text = without_comments(literal_code(text))
    if "[" in text:
        text = FOOTNOTE.sub("", CHECKBOX.sub("", text))
        text = IMAGE.sub(lambda image: image[1] if images else "", text)
        for _ in range(2):  # a link around a link's text
            text = LINK.sub(lambda link: link[1], text)
    if "<" in text:
        text = TAG.sub(" ", AUTOLINK.sub(r"\1", text))
    if "*" in text or "~~" in text:
        for _ in range(3):
            text = STRONG.sub(r"\2", text)
    if "_" in text:
        text = UNDERSCORED.sub(r"\2", text)
    return ENTITY.sub(entity, text) if "&" in text else text


def restored(text: str) -> str:
    return " ".join(text.translate(RESTORED).split())


def title_text(text: str) -> str:
    return restored(plain(text)) or restored(plain(text, images=True))


# --- sentences --------------------------------------------------------------------------------------------------------

BOUNDARY = re.compile("([.!?…]+)(\\s»|[\"'”’»)\\]*_]*)(\\s+)|[。！？]+[」』”]?")
BEFORE = re.compile(r"[^\s(\[\"'“«‘]*$")
# Titles count when capitalised, the words before a number when a digit follows, the others always.
TITLES = word_set(
    "mr mrs ms dr drs prof st m mm mme mmes mlle mlles me mgr sr sra dra gen col capt lt sgt rev hon pr hr fr frl dhr "
    "mevr dott ing avv sig d.a"
)
NUMBERED = word_set(
    "no nos n vol vols ch chap sec eq eqs fig figs tab ref refs p pp art nr abs réf pág págs pag jan feb mar apr jun "
    "jul aug sep sept oct nov dec janv févr juil ca approx env min max"
)
ABBREVIATIONS = word_set(
    "vs etc e.g i.e eg ie cf ex al approx inc ltd co corp jr sr resp incl excl viz u.s u.k a.m p.m ph.d op cit ibid "
    "p.ex c.-à-d av apr j.-c hab éd tél z.b d.h u.a bzw usw ggf evtl bzgl inkl vgl s.o s.u z.t ej núm aprox ecc d.c "
    "bijv enz t.o.v o.a t.ex bl.a dvs f.eks osv np tzn itd itp"
)
MAY_END = word_set("etc inc ltd co corp jr sr u.s u.k a.m p.m al usw enz osv itd itp ecc ph.d")
INNER_ABBREVIATIONS = ABBREVIATIONS - MAY_END
ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
STARTERS = word_set(
    "the a an this that these those it he she they we i you in on at for as but and however if when while there our "
    "its his her le la les l un une ce cette ces il elle ils elles nous vous on je en dans pour mais der die das ein "
    "eine es wir sie el los las uno una il gli lo o os het een de"
)


def sentences_of(text: str, language: str) -> list[tuple[int, str]]:
    """Split one paragraph: (offset, sentence) in order. Abbreviations, initials and numbers do not end one."""
    found: list[tuple[int, str]] = []
    start = 0
    for mark in BOUNDARY.finditer(text):
        if mark[1] is not None and not ends_sentence(text, mark, start, language):
            continue
        found.append((start, text[start : mark.end()]))
        start = mark.end()
    if text[start:].strip():
        found.append((start, text[start:]))
    return found


def ends_sentence(text: str, mark: re.Match[str], start: int, language: str) -> bool:
    after = text[mark.end() : mark.end() + 40].lstrip("\"'“”«‘([*_ ")
    if not after or after[0].islower():
        return False
    if mark[1] != "." or mark[2].strip("*_"):
        return True
    before = BEFORE.search(text, max(start, mark.start() - 40), mark.start())
    word = (before[0] if before else "").translate(RESTORED)
    following = WORD.match(after)
    starter = following is not None and following[0].lower().partition("'")[0].partition("’")[0] in STARTERS
    return not shortened(word, after[0], language) or (starter and word.lower() not in TITLES | INNER_ABBREVIATIONS)


def shortened(word: str, following: str, language: str) -> bool:
    """Whether a period after ``word`` belongs to it: an abbreviation, an initial, a dotted acronym or an ordinal."""
    key = word.lower()
    return (
        key in ABBREVIATIONS
        or (key in TITLES and word[0].isupper())
        or (key in NUMBERED and following.isdigit())
        or (len(word) == 1 and word.isalpha() and word != "I")  # "J. Smith", but "vitamin C. The …"
        or (word.isdigit() and len(word) <= 2 and language in {"de", "da", "pl"})  # an ordinal: "am 3. Oktober"
        or ACRONYM.fullmatch(word) is not None
    )


# --- readability ------------------------------------------------------------------------------------------------------

SYLLABLES = {
    "the": 1, "area": 3, "idea": 3, "ideas": 3, "people": 2, "every": 2, "everything": 3, "something": 2,
    "sometimes": 2, "somewhere": 2, "someone": 2, "somebody": 3, "business": 2, "create": 2, "created": 3, "creates": 2,
    "creating": 3, "being": 2, "beings": 2, "science": 2, "quiet": 2, "diet": 2, "poem": 2, "poet": 2, "poetry": 3,
    "real": 2, "really": 2, "reality": 4, "lion": 2, "giant": 2, "client": 2, "clients": 2, "society": 4, "variety": 4,
    "via": 2, "evening": 2, "different": 3, "several": 3, "interest": 3, "interesting": 4, "wednesday": 2, "colonel": 2,
    "queue": 1, "queues": 1, "fire": 1, "hour": 1, "our": 1, "sure": 1, "does": 1, "goes": 1, "shoes": 1, "toes": 1,
    "going": 2, "doing": 2, "seeing": 2, "cafe": 2, "recipe": 3, "apostrophe": 4, "simile": 3, "forever": 3,
    "therefore": 2, "whereas": 2, "safety": 2, "careful": 2, "useful": 2, "useless": 2, "namespace": 2, "database": 3,
    "timestamp": 2, "filename": 2, "usage": 2, "typed": 1, "types": 1, "heaven": 2, "even": 2, "eleven": 3, "seven": 2,
    "given": 2, "open": 2, "usually": 4, "actually": 4, "casual": 3, "visual": 3, "manual": 3, "annual": 3,
    "gradual": 3, "individual": 5, "virtual": 3, "actual": 3, "equal": 2, "language": 2, "languages": 3, "quality": 3,
    "situation": 4, "evaluation": 5, "continue": 3, "continues": 3, "value": 2, "values": 2, "valued": 2, "argue": 2,
    "rescue": 2, "due": 1, "blue": 1, "true": 1, "doesn't": 2, "isn't": 2, "didn't": 2, "couldn't": 2, "wouldn't": 2,
    "shouldn't": 2, "hasn't": 2, "wasn't": 2, "aren't": 1, "can't": 1, "don't": 1, "won't": 1, "rhythm": 2, "prism": 2,
    "chasm": 2, "naive": 2, "museum": 3, "video": 3, "radio": 3, "studio": 3, "audio": 3, "ratio": 3, "period": 3,
    "serious": 3, "previous": 3, "various": 3, "obvious": 3, "million": 2, "opinion": 3, "union": 2, "onion": 2,
    "region": 2, "religion": 3, "reliable": 4, "dial": 2, "trial": 2, "denial": 3, "material": 4, "social": 2,
    "special": 2, "initial": 3, "partial": 2, "essential": 3, "potential": 3, "foreign": 2, "ancient": 2, "patient": 2,
    "efficient": 3, "sufficient": 3, "experience": 4, "audience": 3, "obedient": 4, "ingredient": 4, "gradient": 3,
    "friend": 1, "piece": 1, "field": 1,
}  # fmt: skip
VOWELS = re.compile("[aeiouy]+")
HIATUS = re.compile(
    ""
    ""
    "i(?:a(?!ge)|o(?!n|u)|u)|[^aeiou]io(?=l|d|t)|eo(?!us|n|p)|[^gq]u(?:al|ous)|uou|ying|[aeiou]ing|(?<!s)cre(?=a)|^re(?=u|in[^s]|act|app|ass|arr|ent|est)|^bi(?=[ao])|^pre(?=[aeo])|^co(?=op|or|ex|in)|dien|riet|ua(?=t)|eum$"
)
NO_HIATUS = re.compile("[ct]ia|sia|gia(?=n)|giou|xio|[aeo]ying|quia")
FRENCH_VOWELS = re.compile("[aeiouyàâäéèêëîïôöùûüœæ]+")
FRENCH_HIATUS = re.compile(
    "é(?:[aoàâèêéi]|e(?!s?$))|[aou][ïé]|[aeou]ë|(?<!q|g)u[aeé](?=[^u])|[bcdfgpt][lr]i[aeéèo]|éé|oa|ao(?!u)|uo"
)
CONTRACTIONS = ("ll", "re", "ve", "d", "m", "s", "t")


def syllables_en(word: str) -> int:
    """Syllables of an English word by its spelling: vowel groups, silent endings, hiatus, and a table of exceptions."""
    word = word.lower().replace("’", "'")
    if word in SYLLABLES:
        return SYLLABLES[word]
    stem, _, ending = word.partition("'")
    if ending in CONTRACTIONS:
        word = stem
    parts = [part for part in re.split(r"[^a-z]+", word) if part]
    if len(parts) > 1:
        return sum(map(syllables_en, parts))
    if not parts:
        return 1
    word = parts[0]
    if word in SYLLABLES:
        return SYLLABLES[word]
    count = len(VOWELS.findall(word)) + len(HIATUS.findall(word)) - len(NO_HIATUS.findall(word))
    if (
        (re.search(r"[^aeiouy]e$", word) and not re.search(r"[^aeiouylr]le$", word))
        or (
            re.search(r"(?:[^aeioutdy]|[aeo][iuwy])ed$", word)
            and not re.search(r"[^aeiouylr]led$|(?:[aeo][iuwy])ed$", word)
        )
        or (re.search(r"[^aeiouy]es$", word) and not re.search(r"(?:[sxzcg]|ch|sh)es$|[^aeiouylr]les$", word))
    ):
        count -= 1
    count -= len(re.findall(r"(?<=[^aeiouy])e(?=(?:ly|ment|ments|ful|less|ness|where|time|work|base)$)", word))
    if word.endswith(("ism", "isms", "thm")):
        count += 1
    return max(1, count)


def syllables_fr(word: str) -> int:
    """Syllables of a written French word: vowel groups, with a final mute e not counted."""
    word = re.sub("[^a-zàâäçéèêëîïôöùûüœæ]", "", word.lower())
    spoken = re.sub("(?<=[gq])u(?=[eéèêiîoaâ])", "", word)
    count = len(FRENCH_VOWELS.findall(spoken)) + len(FRENCH_HIATUS.findall(spoken))
    if (
        count > 1
        and re.search("[^aeiouyàâäéèêëîïôöùûüœæ]es?$|[éiuy]es?$", spoken)
        and not re.search("[éiuy]es?$", spoken)
    ):
        count -= 1
    return max(1, count)


def readability_of(sentences: int, words: list[str], language: str) -> dict[str, object] | None:
    if len(words) < READABLE_WORDS_MIN or sentences == 0 or language in {"zh", "ja", "ko", "ar", "he"}:
        return None
    length = len(words) / sentences
    lix = length + 100 * sum(len(word) > 6 for word in words) / len(words)
    if language not in {"en", "fr"}:
        return {
            "formula": "lix", "score": round(lix, 1), "band": band(lix, (30, 40, 55)), "grade": None,
            "lix": round(lix, 1), "words_per_sentence": round(length, 2), "syllables_per_word": None,
        }  # fmt: skip
    count = syllables_en if language == "en" else syllables_fr
    known: dict[str, int] = {}
    for word in words:
        if word not in known:
            known[word] = count(word)
    rate = sum(known[word] for word in words) / len(words)
    if language == "en":
        formula, score = "flesch_reading_ease", 206.835 - 1.015 * length - 84.6 * rate
        grade = round(0.39 * length + 11.8 * rate - 15.59, 1)
    else:
        formula, score, grade = "kandel_moles", 207 - 1.015 * length - 73.6 * rate, None
    return {
        "formula": formula, "score": round(score, 1), "band": band(-score, (-70, -50, -30)), "grade": grade,
        "lix": round(lix, 1), "words_per_sentence": round(length, 2), "syllables_per_word": round(rate, 2),
    }  # fmt: skip


def band(value: float, steps: tuple[int, int, int]) -> str:
    names = ("easy", "standard", "difficult", "very_difficult")
    return names[sum(value > step for step in steps)]


# --- keywords: YAKE (Campos et al. 2020), with the candidates of one language's stop words ----------------------------

PHRASE_BREAK = re.compile('[,;:!?()\\[\\]{}"“”«»|/=<>—–…]|\\.(?=\\s|$)|\\s-\\s')
LINKING = word_set("of for in to and by de du des d la le à en y di da do und von zur des van het op au aux och i")
CJK = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def stop_words(language: str) -> frozenset[str]:
    if language in PROFILES:
        return PROFILES[language] | word_set(MORE_STOP_WORDS.get(language, ""))
    return frozenset().union(*PROFILES.values())


def folded(word: str, language: str) -> str:
    """One key for singular and plural."""
    word = word.lower().replace("’", "'")
    word = word.removesuffix("'s")
    if (
        language in {"en", "fr", "es", "pt", "und"}
        and len(word) > 3
        and word.endswith("s")
        and not word.endswith(("ss", "us", "is"))
    ):
        if language == "en" and word.endswith("ies") and len(word) > 4:
            return word[:-3] + "y"
        return word[:-1]
    return word


class Term:
    """What YAKE counts of one word."""

    __slots__ = ("capitalised", "count", "left", "lefts", "right", "rights", "sentences", "upper")

    def __init__(self) -> None:
        self.count = self.upper = self.capitalised = self.lefts = self.rights = 0
        self.left: set[str] = set()
        self.right: set[str] = set()
        self.sentences: list[int] = []


class Keywords:
    """Gathers words sentence by sentence, then ranks candidates of one to three words; a low YAKE score is good."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.stop = stop_words(language)
        self.terms: dict[str, Term] = {}
        self.candidates: dict[tuple[str, ...], dict[str, int]] = {}
        self.sentence_count = 0
        self.words = 0

    def add(self, sentence: str) -> None:
        self.sentence_count += 1
        first = True
        for chunk in PHRASE_BREAK.split(sentence):
            surfaces = [ELISION.sub("", word) for word in WORD.findall(chunk) if not CJK.match(word)]
            keys = [folded(word, self.language) for word in surfaces]
            self._count(surfaces, keys, first_of_sentence=first)
            self._gather(surfaces, keys)
            first = first and not surfaces

    def _count(self, surfaces: list[str], keys: list[str], *, first_of_sentence: bool) -> None:
        self.words += len(keys)
        for place, (surface, key) in enumerate(zip(surfaces, keys, strict=True)):
            term = self.terms.setdefault(key, Term())
            term.count += 1
            term.sentences.append(self.sentence_count)
            if len(surface) > 1 and surface.isupper():
                term.upper += 1
            elif surface[0].isupper() and not (first_of_sentence and place == 0):
                term.capitalised += 1
            if place:
                before = keys[place - 1]
                term.left.add(before)
                term.lefts += 1
                self.terms[before].right.add(key)
                self.terms[before].rights += 1

    def _gather(self, surfaces: list[str], keys: list[str]) -> None:
        good = [self._content(surface, key) for surface, key in zip(surfaces, keys, strict=True)]
        for start in range(len(keys)):
            if not good[start]:
                continue
            for end in range(start + 1, min(start + 4, len(keys) + 1)):
                inner_ok = end - start < 3 or good[start + 1] or keys[start + 1] in LINKING
                if good[end - 1] and inner_ok:
                    forms = self.candidates.setdefault(tuple(keys[start:end]), {})
                    form = " ".join(surfaces[start:end])
                    forms[form] = forms.get(form, 0) + 1

    def _content(self, surface: str, key: str) -> bool:
        return (
            len(key) > 1
            and key not in self.stop
            and surface.lower() not in self.stop
            and any(map(str.isalpha, key))
            and not (len(key) < 3 and not surface.isupper())
        )

    def ranked(self, wanted: int) -> list[dict[str, object]]:
        content = [term.count for key, term in self.terms.items() if key not in self.stop]
        if not content:
            return []
        mean = sum(content) / len(content)
        spread = math.sqrt(sum((count - mean) ** 2 for count in content) / len(content))
        top = max(term.count for term in self.terms.values())
        weights = {key: self._weight(term, mean + spread, top) for key, term in self.terms.items()}
        repeated = 2 if self.words >= 200 else 1
        scored = []
        for order, (keys, forms) in enumerate(self.candidates.items()):
            count = sum(forms.values())
            if len(keys) > 1 and count < repeated:
                continue
            product, total = 1.0, 0.0
            for key in keys:
                if key not in self.stop:
                    product *= weights[key]
                    total += weights[key]
            scored.append((round(product / (count * (1.0 + total)), 9), order, keys, forms, count))
        scored.sort(key=lambda entry: entry[:2])
        return self._distinct(scored, wanted)

    def _weight(self, term: Term, usual: float, top: int) -> float:
        case = max(term.upper, term.capitalised) / (1.0 + math.log(term.count))
        middle = term.sentences[len(term.sentences) // 2]
        position = math.log(math.log(3.0 + middle))
        left = len(term.left) / term.lefts if term.lefts else 0.0
        right = len(term.right) / term.rights if term.rights else 0.0
        relatedness = 1.0 + (left + right) * term.count / top
        spread = len(set(term.sentences)) / self.sentence_count
        return relatedness * position / (case + (term.count / usual + spread) / relatedness)

    @staticmethod
    def _distinct(
        scored: list[tuple[float, int, tuple[str, ...], dict[str, int], int]], wanted: int
    ) -> list[dict[str, object]]:
        """Leave out a candidate that lies inside a chosen one, or around it without occurring clearly less often."""
        chosen: list[tuple[tuple[str, ...], int]] = []
        found: list[dict[str, object]] = []
        for score, _, keys, forms, count in scored:
            if len(found) == wanted:
                break
            if any(overlaps(keys, count, other, other_count) for other, other_count in chosen):
                continue
            chosen.append((keys, count))
            form = max(forms, key=lambda text: (forms[text], text.islower(), [-ord(sign) for sign in text]))
            found.append({"text": form, "score": round(1.0 / (1.0 + score), 4), "count": count})
        return found


def overlaps(keys: tuple[str, ...], count: int, other: tuple[str, ...], other_count: int) -> bool:
    short, long = (keys, other) if len(keys) <= len(other) else (other, keys)
    inside = any(long[place : place + len(short)] == short for place in range(len(long) - len(short) + 1))
    if inside and len(keys) < len(other):
        return count < other_count * 2
    if inside and len(keys) > len(other):
        return count * 3 < other_count
    return inside or sorted(keys) == sorted(other)


# --- summary: LexRank (Erkan and Radev 2004), biased towards the beginning, without near repetitions ------------------


class Sentence:
    __slots__ = ("index", "line", "terms", "text")

    def __init__(self, index: int, line: int, text: str, terms: dict[str, float]) -> None:
        self.index, self.line, self.text, self.terms = index, line, text, terms


def weighted(sentences: list[Sentence]) -> None:
    """Turn term counts into tf·idf vectors of length 1."""
    frequency: dict[str, int] = {}
    for sentence in sentences:
        for term in sentence.terms:
            frequency[term] = frequency.get(term, 0) + 1
    for sentence in sentences:
        terms = {
            term: count * math.log(1.0 + len(sentences) / frequency[term]) for term, count in sentence.terms.items()
        }
        norm = math.sqrt(sum(weight * weight for weight in terms.values())) or 1.0
        sentence.terms = {term: weight / norm for term, weight in terms.items()}


def similarity(one: Sentence, other: Sentence) -> float:
    small, large = (one.terms, other.terms) if len(one.terms) <= len(other.terms) else (other.terms, one.terms)
    return sum(weight * large[term] for term, weight in small.items() if term in large)


def links_between(sentences: list[Sentence]) -> list[list[tuple[int, float]]]:
    """For each sentence the others that share words with it, and how alike they are (cosine)."""
    rows: list[dict[int, float]] = [{} for _ in sentences]
    holders: dict[str, list[tuple[int, float]]] = {}
    for place, sentence in enumerate(sentences):
        row = rows[place]
        for term, weight in sentence.terms.items():
            earlier = holders.setdefault(term, [])
            for other, other_weight in earlier:
                row[other] = row.get(other, 0.0) + weight * other_weight
            earlier.append((place, weight))
    links: list[list[tuple[int, float]]] = [[] for _ in sentences]
    for place, row in enumerate(rows):
        for other, likeness in row.items():
            if likeness > LIKENESS_MIN:
                links[place].append((other, likeness))
                links[other].append((place, likeness))
    return links


def central(sentences: list[Sentence], wanted: int, last_index: int) -> list[Sentence]:
    """The most central sentences, best first."""
    size = len(sentences)
    links = links_between(sentences)
    bias = [1.0 + 1.5 / (1.0 + 8.0 * sentence.index / (last_index + 1)) for sentence in sentences]
    total = sum(bias)
    bias = [value / total for value in bias]
    degrees = [sum(likeness for _, likeness in row) or 1.0 for row in links]
    rank = bias
    for _ in range(RANK_ROUNDS_MAX):
        shares = [value / degree for value, degree in zip(rank, degrees, strict=True)]
        idle = sum(value for value, row in zip(rank, links, strict=True) if not row)
        before, rank = rank, []
        for place, row in enumerate(links):
            received = 0.0
            for other, likeness in row:
                received += shares[other] * likeness
            rank.append(0.15 * bias[place] + 0.85 * (idle * bias[place] + received))
        if max(abs(new - old) for new, old in zip(rank, before, strict=True)) < 1e-6:
            break
    order = sorted(range(size), key=lambda place: (-round(rank[place], 9), place))
    chosen: list[Sentence] = []
    for place in order:
        if len(chosen) == wanted:
            break
        if all(similarity(sentences[place], other) < 0.6 for other in chosen):
            chosen.append(sentences[place])
    return chosen


def summary_of(sentences: list[Sentence], wanted: int) -> list[Sentence]:
    """The chosen sentences in document order. Long documents: the best of each stretch compete again."""
    if not sentences or wanted == 0:
        return []
    last_index = sentences[-1].index
    weighted(sentences)
    while len(sentences) > RANKED_SENTENCES_MAX:
        survivors: list[Sentence] = []
        for start in range(0, len(sentences), RANKED_SENTENCES_MAX):
            stretch = sentences[start : start + RANKED_SENTENCES_MAX]
            survivors.extend(central(stretch, max(wanted, RANKED_SENTENCES_MAX // 8), last_index))
        if len(survivors) >= len(sentences):
            break
        sentences = sorted(survivors, key=lambda sentence: sentence.index)
    return sorted(central(sentences, wanted, last_index), key=lambda sentence: sentence.index)


# --- the document as a whole ------------------------------------------------------------------------------------------


class Request:
    """The text and how much is wanted: the input's own wishes before the agent's configuration before the defaults."""

    __slots__ = ("keywords", "language", "sentences", "text")

    def __init__(self, source: str) -> None:
        given: dict[str, object] = {}
        text = source
        if source.lstrip("\ufeff \t\r\n").startswith("{"):
            try:
                value = json.loads(source.lstrip("\ufeff"))
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict) and "text" in value:
                given = value
                if not isinstance(value["text"], str):
                    raise TypeError(f'expected a string in "text", got {type(value["text"]).__name__}')
                text = value["text"].encode("utf-8", "replace").decode("utf-8")
        self.text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
        self.sentences = amount(given, "sentences", SENTENCES_DEFAULT, SENTENCES_MAX)
        self.keywords = amount(given, "keywords", KEYWORDS_DEFAULT, KEYWORDS_MAX)
        self.language = wish(given, "language")


def wish(given: dict[str, object], name: str) -> object:
    return given.get(name, agentfactory_sdk.config.get(name))


def amount(given: dict[str, object], name: str, default: int, most: int) -> int:
    value = wish(given, name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f'expected a whole number from 0 to {most} in "{name}", got {value!r}')
    return value


def title_of(blocks: list[Block], given: str | None) -> str | None:
    """The front matter's title, else the first heading of the highest rank, else a short first line of its own."""
    if given:
        return given
    headings = [block for block in blocks if block.kind == "heading" and block.depth == 0 and title_text(block.text)]
    if headings:
        return title_text(min(headings, key=lambda block: block.level).text)
    for block in blocks:
        if block.kind == "paragraph" and block.depth == 0:
            text = title_text(block.text)
            alone = "\n" not in block.text.strip() and len(text) <= 120 and text[-1:] not in set(".,;:!…")
            return text if alone and text and len(blocks) > 1 else None
        if block.kind != "html":
            return None
    return None


def prose_of(block: Block) -> str:
    """What the block says; cells of tables are set apart as sentences are."""
    if block.kind == "table":
        return plain(block.text).replace("|", " | ")
    return plain(block.text)


def process(source: str) -> str:
    """Describe one document; the output's shape is the template's ``output_schema``."""
    request = Request(source)
    lines = [line.expandtabs(4) if "\t" in line else line for line in request.text.split("\n")]
    skipped, given_title = front_matter(lines)
    reader = Blocks()
    reader.read(lines[skipped:], first=skipped + 1)
    blocks = reader.blocks
    texts = {number: prose_of(block) for number, block in enumerate(blocks) if block.kind != "code"}
    everything = "\n".join(texts.values()).translate(RESTORED)
    lowered = [ELISION.sub("", word.lower()) for word in WORD.findall(everything)]
    language, confidence = language_of(lowered, everything)
    if isinstance(request.language, str) and request.language not in {"", "auto"}:
        language, confidence = request.language, 1.0
    keywords = Keywords(language)
    candidates: list[Sentence] = []
    prose_words: list[str] = []
    sentence_count = 0
    for number, text in texts.items():
        block = blocks[number]
        if block.kind in {"heading", "table"}:
            for row in text.split("\n"):
                keywords.add(row.translate(RESTORED))
            continue
        for offset, piece in sentences_of(text, language):
            shown = restored(piece)
            words = WORD.findall(shown)
            keywords.add(piece.translate(RESTORED))
            complete = shown.rstrip("\"'”’»)] ").endswith((".", "!", "?", "…", "。", "！", "？"))
            if not words:
                continue
            if block.kind == "paragraph" or complete:
                sentence_count += 1
                prose_words.extend(words)
            if (block.kind in PROSE and complete and 5 <= len(words) <= 70) or (
                complete and CJK.search(shown) and len(words) <= 200
            ):
                terms: dict[str, float] = {}
                for word in words:
                    key = folded(ELISION.sub("", word), language)
                    if key not in keywords.stop and (len(key) > 1 or CJK.match(key)):
                        terms[key] = terms.get(key, 0.0) + 1.0
                lead = len(piece) - len(piece.lstrip())
                line = block.line + text.count("\n", 0, offset + lead)
                candidates.append(Sentence(len(candidates), line, shown, terms))
    outline = [
        {"level": block.level, "title": title_text(block.text), "line": block.line}
        for block in blocks
        if block.kind == "heading" and block.depth == 0
    ]
    inline = "\n".join(literal_code(block.text) for block in blocks if block.kind != "code")
    images = len(IMAGE.findall(inline))
    result = {
        "title": title_of(blocks, given_title),
        "language": {"code": language, "confidence": confidence},
        "outline": outline,
        "summary": [
            {"line": sentence.line, "text": sentence.text} for sentence in summary_of(candidates, request.sentences)
        ],
        "keywords": keywords.ranked(request.keywords),
        "readability": readability_of(sentence_count, prose_words, language),
        "counts": {
            "characters": len(request.text),
            "lines": len(lines) - (1 if lines[-1] == "" else 0),
            "words": len(lowered),
            "sentences": sentence_count,
            "paragraphs": sum(block.kind == "paragraph" for block in blocks),
            "headings": len(outline),
            "list_items": sum(block.kind == "item" for block in blocks),
            "code_blocks": sum(block.kind == "code" for block in blocks),
            "tables": sum(block.kind == "table" for block in blocks),
            "links": len(LINK.findall(IMAGE.sub("", inline))) + len(AUTOLINK.findall(inline)),
            "images": images,
            "reading_seconds": math.ceil(len(lowered) * 60 / WORDS_PER_MINUTE),
        },
    }
    return json.dumps(result, ensure_ascii=False)
