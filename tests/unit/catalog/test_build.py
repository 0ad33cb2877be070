"""Building the catalogue: cached by content, placed beside the templates, clear when something is missing."""

from pathlib import Path

import pytest

from templates.catalog import build


def test_the_digest_follows_contents_names_and_compiler(tmp_path: Path) -> None:
    one, two = tmp_path / "a.zig", tmp_path / "b.zig"
    one.write_text("x")
    two.write_text("y")
    digests = {
        build.inputs_digest([one, two], "zig 1"),
        build.inputs_digest([one, two], "zig 2"),
        build.inputs_digest([one], "zig 1"),
    }
    one.write_text("xy")
    two.write_text("")
    digests.add(build.inputs_digest([one, two], "zig 1"))
    assert len(digests) == 4


def test_a_module_of_the_same_inputs_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = build.build_hardware(build.CATALOG.parents[1] / "build" / "catalog")
    first = kept.read_bytes()
    for path in (kept, kept.with_name("hardware.inputs")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("compiled again"))
    assert build.build_hardware(tmp_path).read_bytes() == first


def test_a_damaged_module_is_built_again(tmp_path: Path) -> None:
    module = build.build_hardware(tmp_path / "out")
    good = module.read_bytes()
    module.write_bytes(good[:-1] + b"\0")
    assert build.build_hardware(tmp_path / "out").read_bytes() == good


def test_a_source_that_does_not_compile_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.zig").write_text("this is no zig")
    monkeypatch.setattr(build, "HARDWARE", tmp_path)
    with pytest.raises(build.BuildError, match="not built"):
        build.build_hardware(tmp_path / "out")
    assert not (tmp_path / "out" / "hardware.wasm").exists()


def test_a_missing_image_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["build", "--out", str(tmp_path / "out"), "--images", str(tmp_path / "none")])
    module = tmp_path / "hardware.wasm"
    module.write_bytes((build.CATALOG.parents[1] / "build" / "catalog" / "hardware.wasm").read_bytes())
    monkeypatch.setattr(build, "build_hardware", lambda _: module)
    assert build.main() == 1
    assert "sandbox.images.build" in capsys.readouterr().err


def test_modules_are_placed_whole_and_only_when_they_differ(tmp_path: Path) -> None:
    module, target = tmp_path / "a.wasm", tmp_path / "there" / "a.wasm"
    target.parent.mkdir()
    module.write_bytes(b"\0asm1")
    assert build.place(module, target)
    assert not build.place(module, target)
    module.write_bytes(b"\0asm2")
    assert build.place(module, target)
    assert target.read_bytes() == b"\0asm2"
    assert [path.name for path in target.parent.iterdir()] == ["a.wasm"]
