"""Begin an agent: a folder with a template, a source that works, and an example that proves it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

from client.authoring.languages import GO_SDK, SKELETONS, Language
from sandbox.images.javascript import SDK as JAVASCRIPT_SDK
from templates.reasons import AgentFactoryError, Reason

_NAME: Final = "@NAME@"
_SUFFIX: Final = ".skeleton"  # go.mod would make the folder of skeletons a module of its own


class FolderTakenError(AgentFactoryError):
    """The folder for a new agent exists and holds something."""

    reason = Reason.FOLDER_TAKEN


def begin(language: Language, *, name: str, domain: str, folder: Path) -> Path:
    """Write a new agent into ``folder`` and return the path of its template document.

    Raises:
        FolderTakenError: there is something in the folder already; nothing was written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FolderTakenError(f"expected {folder} to be empty or absent, got files in it")
    folder.mkdir(parents=True, exist_ok=True)
    for skeleton in sorted((SKELETONS / language.name).iterdir()):
        text = skeleton.read_text(encoding="utf-8").replace(_NAME, name)
        (folder / skeleton.name.removesuffix(_SUFFIX)).write_text(text, encoding="utf-8")
    if language.main.endswith(".js"):
        declared = (JAVASCRIPT_SDK / "index.d.ts").read_text(encoding="utf-8")
        (folder / "agentfactory.d.ts").write_text(_ambient(declared), encoding="utf-8")
    if language.name == "go":
        shutil.copytree(GO_SDK, folder / "agentfactory")
    (folder / "README.md").write_text(_readme(language, name, domain), encoding="utf-8")
    document = folder / "template.json"
    document.write_text(json.dumps(_template(language, name, domain), indent=2) + "\n", encoding="utf-8")
    return document


def _template(language: Language, name: str, domain: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "domain": domain,
        "name": name,
        "version": "0.1.0",
        "role": "counter",
        "description": f"Counts words. Written in {language.title}.",
        "capabilities": ["count words"],
        "default_config": {"words_max": 100},
        "config_schema": {
            "type": "object",
            "properties": {"words_max": {"type": "integer", "minimum": 1}},
            "additionalProperties": False,
        },
        "output_schema": {
            "type": "object",
            "required": ["words"],
            "properties": {"words": {"type": "integer"}},
            "additionalProperties": False,
        },
        "examples": [{"input": "one two  three", "output": {"words": 3}}, {"input": "", "output": {"words": 0}}],
        "code": language.code,
        "limits": {"wall_ms": 2000, "memory_bytes": 67_108_864},
    }


def _readme(language: Language, name: str, domain: str) -> str:
    build = "agentctl template build && " if language.needs_build else ""
    return (
        f"# {domain}/{name}\n\nCounts words. Written in {language.title}.\n"
        f"`{build}agentctl template test` tries its examples in the sandbox;\n"
        "`agentctl template run --watch template.json --input 'one two'` runs it again at every change.\n"
    )


def _ambient(declared: str) -> str:
    """The SDK's declarations as those of the module ``agentfactory``, for editors that find no package of that name."""
    head, marker, rest = declared.partition("/** What `process` gets")
    body, _, tail = (marker + rest).partition("declare global {")
    inner = body.replace("export declare ", "export ").rstrip()
    module = "\n".join(f"  {line}" if line else line for line in inner.split("\n"))
    globals_ = tail.strip().removesuffix("}").rstrip().replace("\n  ", "\n").strip("\n")
    declared_globals = re.sub(r"^(?=const |function )", "declare ", globals_, flags=re.MULTILINE)
    return f'{head}declare module "agentfactory" {{\n{module}\n}}\n\n{declared_globals}\n'
