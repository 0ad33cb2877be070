"""The build of images: again only when something it is made of changed, and never half."""

import json
import sys
from pathlib import Path

import pytest

from sandbox.images import build as images
from sandbox.images.build import BuildError, Recipe, build, inputs_digest, main


class Toolchain:
    """A recipe whose tool writes a count of its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inputs"
        self.folder.mkdir()
        (self.folder / "entry.py").write_text("one", encoding="utf-8")
        self.runs = 0
        self.script = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"

    def make(self, out: Path) -> None:
        self.runs += 1
        images.run_tool((sys.executable, "-c", self.script, str(out), f"built {self.runs}"))


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    made = Toolchain(tmp_path)
    recipe = Recipe(toolchain="wasmtime", inputs=(made.folder,), make=made.make)
    monkeypatch.setattr(images, "_HERE", tmp_path / "images")  # digests name files relative to the package
    monkeypatch.setattr(images, "__file__", str(made.folder / "entry.py"))
    monkeypatch.setitem(images.RECIPES, "toy", recipe)
    return made


def test_an_image_is_built_once(toolchain: Toolchain, tmp_path: Path) -> None:
    first = build("toy", tmp_path / "out").read_text(encoding="utf-8")
    assert build("toy", tmp_path / "out").read_text(encoding="utf-8") == first == "built 1"
    note = json.loads((tmp_path / "out" / "toy.json").read_text(encoding="utf-8"))
    assert note["length"] == len("built 1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".toy.lock", "toy.json", "toy.wasm"]


def test_a_changed_or_new_input_builds_again(toolchain: Toolchain, tmp_path: Path) -> None:
    build("toy", tmp_path / "out")
    (toolchain.folder / "entry.py").write_text("two", encoding="utf-8")
    assert build("toy", tmp_path / "out").read_text(encoding="utf-8") == "built 2"
    (toolchain.folder / "more.py").write_text("", encoding="utf-8")
    assert build("toy", tmp_path / "out").read_text(encoding="utf-8") == "built 3"
    (toolchain.folder / "__pycache__").mkdir()
    (toolchain.folder / "__pycache__" / "entry.pyc").write_bytes(b"x")
    assert build("toy", tmp_path / "out").read_text(encoding="utf-8") == "built 3"


@pytest.mark.parametrize("damage", ["flip", "missing", "no note", "odd note"])
def test_a_damaged_image_is_built_again(toolchain: Toolchain, tmp_path: Path, damage: str) -> None:
    image = build("toy", tmp_path / "out")
    note = image.with_suffix(".json")
    match damage:
        case "flip":
            image.write_text("built X", encoding="utf-8")
        case "missing":
            image.unlink()
        case "no note":
            note.unlink()
        case _:
            note.write_text("[]", encoding="utf-8")
    assert build("toy", tmp_path / "out").read_text(encoding="utf-8") == "built 2"


def test_a_failing_tool_leaves_what_was_there(toolchain: Toolchain, tmp_path: Path) -> None:
    image = build("toy", tmp_path / "out")
    (toolchain.folder / "entry.py").write_text("two", encoding="utf-8")
    toolchain.script = "import sys; open(sys.argv[1], 'w').write('half'); sys.exit('no such world')"
    with pytest.raises(BuildError, match="no such world"):
        build("toy", tmp_path / "out")
    assert image.read_text(encoding="utf-8") == "built 1"


def test_a_missing_tool_is_named_with_its_remedy(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Recipe(toolchain="no-such-distribution", inputs=(), make=toolchain.make)
    with pytest.raises(BuildError, match=r"requirements/guests\.txt"):
        inputs_digest(absent)
    broken = Recipe(toolchain="wasmtime", inputs=(), make=lambda _out: images.run_tool(["/nonexistent/tool"]))
    monkeypatch.setitem(images.RECIPES, "toy", broken)
    assert main(["toy", "--out", str(tmp_path / "out")]) == 1
    assert "expected /nonexistent/tool to be installed" in capsys.readouterr().err


def test_the_command_says_what_it_built(
    toolchain: Toolchain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "--out", str(tmp_path / "out")]) == 0
    assert "toy.wasm: 7 bytes" in capsys.readouterr().err
