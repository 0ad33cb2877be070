"""A zip of sources with a vendored package: from an author's folder to a real node, and replaced under load."""

import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.authoring.building import build
from client.authoring.languages import LANGUAGES
from client.authoring.scaffold import begin
from tests.factory import Factory, running_factory
from tests.images import image_bytes

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(600)]

COMPILING_S = 300
"""The node compiles 23 MB, which takes six seconds of a quiet machine."""

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGE = REPOSITORY / "templates" / "catalog" / "images" / "cpython" / "template.json"
METADATA = "Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
AGENT = """from greetings.words import greeting


def process(text: str) -> dict[str, str]:
    return {"said": greeting(text)}
"""
WORDS = """import json
import pkgutil

from shouting import shouted

WORD = json.loads(pkgutil.get_data("greetings", "word.json"))


def greeting(text: str) -> str:
    if text == "boom":
        return text.missing
    return shouted(f"{WORD} {text}")
"""


def wheel(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "shouting-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("shouting/__init__.py", "def shouted(text):\n    return text.upper() + '!'\n")
        archive.writestr("shouting-1.0.dist-info/METADATA", METADATA)
        archive.writestr("shouting-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("shouting-1.0.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    image = tmp_path_factory.mktemp("image")
    (image / "cpython.wasm").write_bytes(image_bytes("cpython"))
    (image / "template.json").write_bytes(IMAGE.read_bytes())
    with running_factory(tmp_path_factory.mktemp("factory") / "installation") as factory:
        factory.wait_active(factory.publish(image / "template.json", "bob").data["generation"])
        yield factory


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    document = begin(LANGUAGES["python"], name="greeter", domain="dev", folder=tmp_path / "greeter")
    folder = document.parent
    (folder / "requirements.txt").write_text("shouting==1.0\n", encoding="utf-8")
    (folder / "agent.py").write_text(AGENT, encoding="utf-8")
    (folder / "greetings").mkdir()
    (folder / "greetings" / "__init__.py").touch()
    (folder / "greetings" / "words.py").write_text(WORDS, encoding="utf-8")
    (folder / "greetings" / "word.json").write_text('"hello"', encoding="utf-8")
    return document


def written(document: Path, version: str) -> Path:
    """The document of this version, with its zip built anew."""
    template = json.loads(document.read_text(encoding="utf-8"))
    template.update({"version": version, "code": {"source": "agent.zip", "image": "cpython"}})
    template["examples"] = [{"input": "you"}]
    template["output_schema"] = {"type": "object"}
    document.write_text(json.dumps(template), encoding="utf-8")
    assert build(document, tell=lambda _line: None).name == "agent.zip"
    return document


def said(factory: Factory, text: str = "you") -> Any:
    done = factory.ctl("agent", "invoke", "dev/greeter", text)
    assert done.status == 0, done.errors
    return json.loads(done.data["output"])["said"]


def test_a_zip_serves_fails_in_its_own_lines_and_is_replaced_under_load(factory: Factory, document: Path) -> None:
    first = factory.publish(written(document, "1.0.0"), "alice").data["generation"]
    factory.wait_active(first, timeout_s=COMPILING_S)
    assert said(factory) == "HELLO YOU!"

    failed = factory.ctl("agent", "invoke", "dev/greeter", "boom")
    assert failed.status != 0
    assert "'str' object has no attribute 'missing'" in failed.errors
    (record,) = [one for one in factory.ctl("invocation", "list").data if one["outcome"] == "GUEST_ERROR"]
    told = json.dumps(factory.ctl("invocation", "logs", record["invocation_id"]).data)
    assert "agent.py" in told
    assert "line 5, in process" in told
    assert "greetings/words.py" in told
    assert "return text.missing" in told

    heard: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            heard.append(said(factory))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        (document.parent / "greetings" / "word.json").write_text('"good day"', encoding="utf-8")
        factory.wait_active(factory.publish(written(document, "1.1.0"), "alice").data["generation"])
        assert said(factory) == "GOOD DAY YOU!"
    finally:
        stop.set()
        asking.join()
    assert set(heard) <= {"HELLO YOU!", "GOOD DAY YOU!"}
    assert heard == sorted(heard, reverse=True)  # never the old one again
    assert heard[0] == "HELLO YOU!"
