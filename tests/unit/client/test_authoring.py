"""What an author does before anybody else sees a template: skeletons, zips, wheels, differences, watching."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.authoring.archive import collect, pack
from client.authoring.building import BuildFailedError, ToolchainMissingError, build
from client.authoring.examples import as_text, difference_of
from client.authoring.languages import LANGUAGES
from client.authoring.scaffold import FolderTakenError, begin
from client.authoring.vendoring import VendoringError, unpack
from client.authoring.watching import changes
from client.documents import read_file
from templates.canonical import JsonValue


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_new_agent_is_a_valid_template_with_its_files(name: str, tmp_path: Path) -> None:
    document = begin(LANGUAGES[name], name="counter", domain="dev", folder=tmp_path / "counter")
    template = read_file(document)
    assert str(template.ref) == "dev/counter@0.1.0"
    assert len(template.examples or ()) == 2
    main = (document.parent / LANGUAGES[name].main).read_text(encoding="utf-8")
    assert "counter: counts words" in main or "counter counts words" in main
    assert not any("@NAME@" in path.read_text("utf-8") for path in document.parent.rglob("*") if path.is_file())


def test_a_new_agent_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x", encoding="utf-8")
    with pytest.raises(FolderTakenError, match="empty or absent"):
        begin(LANGUAGES["python"], name="counter", domain="dev", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_editors_find_the_module_and_the_globals(tmp_path: Path) -> None:
    begin(LANGUAGES["javascript"], name="counter", domain="dev", folder=tmp_path / "c")
    declared = (tmp_path / "c" / "agentfactory.d.ts").read_text(encoding="utf-8")
    assert declared.count('declare module "agentfactory" {') == 1
    assert "\n  export const kv: {" in declared
    assert "\ndeclare const console:" in declared
    assert "\ndeclare function setTimeout<" in declared
    assert declared.count("{") == declared.count("}")


def test_the_same_files_are_the_same_zip_whatever_their_times(tmp_path: Path) -> None:
    for name in ("agent.py", "pkg/__init__.py", "pkg/data.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    for name in ("template.json", "requirements.txt", "README.md", "agent.zip", ".hidden", "old.pyc"):
        (tmp_path / name).write_text("not source", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_agent.py").write_text("", encoding="utf-8")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    files = collect(tmp_path)
    assert list(files) == ["agent.py", "pkg/__init__.py", "pkg/data.txt"]
    first = pack(files)
    (tmp_path / "agent.py").touch()
    assert pack(dict(reversed(collect(tmp_path).items()))) == first
    assert pack({**files, "agent.py": b"other"}) != first


def wheel(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return buffer.getvalue()


def test_of_a_wheel_the_library_and_its_licence_are_taken() -> None:
    data = wheel("pkg/__init__.py", "pkg/data.json", "pkg-1.dist-info/RECORD", "pkg-1.dist-info/licenses/LICENSE.txt")
    assert sorted(unpack("pkg.whl", data)) == [
        "pkg-1.dist-info/licenses/LICENSE.txt",
        "pkg/__init__.py",
        "pkg/data.json",
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (wheel("pkg/_speed.cpython-314-x86_64-linux-gnu.so"), "native code"),
        (wheel("pkg/_speed.pyd"), "native code"),
        (wheel("pkg-1.data/scripts/run"), "into the library alone"),
        (wheel(*(f"f{n}.py" for n in range(2_001))), "at most 2000 files"),
        (b"not a wheel", "damaged"),
    ],
)
def test_a_wheel_that_is_not_pure_python_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(VendoringError, match=why):
        unpack("pkg-1-py3-none-any.whl", data)


@pytest.mark.parametrize(
    ("expected", "output", "is_same"),
    [
        ("text", "text", True),
        ("text", "text\n", False),
        ({"a": 1, "b": [2]}, '{"b":[2],  "a":1}', True),
        ({"a": 1}, '{"a": 2}', False),
        ({"a": 1}, "not json", False),
        (None, "null", True),
        ([1, 2], "[2, 1]", False),
    ],
)
def test_answers_are_compared_as_text_or_as_json(expected: JsonValue, output: str, *, is_same: bool) -> None:
    assert (difference_of(expected, output) == "") is is_same


def test_a_difference_shows_both_sides() -> None:
    shown = difference_of({"words": 3}, '{"words": 4}')
    assert '-  "words": 3' in shown
    assert '+  "words": 4' in shown
    assert as_text({"é": 1}) == '{"é": 1}'


class Author:
    """Sleeps by doing the next thing on a list."""

    def __init__(self, *acts: Iterator[None] | object) -> None:
        self.acts = list(acts)

    def __call__(self, _seconds: float) -> None:
        act = self.acts.pop(0)
        if callable(act):
            act()


def test_a_change_is_told_once_and_only_when_it_is_over(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text("1", encoding="utf-8")
    author = Author(
        None,
        lambda: file.write_text("12", encoding="utf-8"),
        lambda: file.write_text("123", encoding="utf-8"),
        None,
        lambda: (tmp_path / "agent.wasm").write_text("built", encoding="utf-8"),
        None,
        lambda: (tmp_path / "new.py").write_text("", encoding="utf-8"),
        None,
    )
    watched = changes(tmp_path, sleep=author)
    assert next(watched) == ["agent.py"]
    assert len(author.acts) == 4
    assert next(watched) == ["new.py"]
    assert author.acts == []


def test_what_changes_while_it_is_built_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text("1", encoding="utf-8")
    watched = changes(tmp_path, sleep=Author(lambda: file.write_text("12", encoding="utf-8"), None, None, None))
    assert next(watched) == ["agent.py"]
    file.write_text("123", encoding="utf-8")
    assert next(watched) == ["agent.py"]


def write(folder: Path, code: dict[str, str], **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    document = {"schema": 1, "domain": "dev", "name": "agent", "version": "1.0.0", "code": code}
    (folder / "template.json").write_text(json.dumps(document), encoding="utf-8")
    return folder / "template.json"


def told(_line: str) -> None:
    """Nobody listens."""


def test_a_source_needs_no_build_but_packages_need_a_zip(tmp_path: Path) -> None:
    document = write(tmp_path, {"source": "agent.py", "image": "cpython"}, agent__py="x = 1\n")
    assert build(document, tell=told) == tmp_path / "agent.py"
    (tmp_path / "requirements.txt").write_text("x==1\n", encoding="utf-8")
    with pytest.raises(BuildFailedError, match=r'"source": "agent.zip"'):
        build(document, tell=told)


def test_a_zip_without_packages_is_the_authors_files(tmp_path: Path) -> None:
    document = write(tmp_path, {"source": "agent.zip", "image": "cpython"}, agent__py="x = 1\n", other__py="y = 2\n")
    with zipfile.ZipFile(build(document, tell=told)) as archive:
        assert archive.namelist() == ["agent.py", "other.py"]


def test_files_and_abi_must_go_together(tmp_path: Path) -> None:
    document = write(tmp_path, {"module": "agent.wasm", "abi": "component"}, main__c="int main(void) { return 0; }")
    with pytest.raises(BuildFailedError, match=r"expected agent\.py or agent\.js beside"):
        build(document, tell=told)


def test_a_missing_toolchain_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from client.authoring import building

    monkeypatch.setattr(building, "find_spec", lambda _name: None)
    document = write(tmp_path, {"module": "agent.wasm", "abi": "command"}, main__c="int main(void) { return 0; }")
    with pytest.raises(ToolchainMissingError, match="make images"):
        build(document, tell=told)
