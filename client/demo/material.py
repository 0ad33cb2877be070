"""What the demo publishes beside the catalogue: an ordinary agent, and three hostile ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DOMAIN: Final = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAgent:
    """One template of the demo: its document's fields and its Python source."""

    name: str
    description: str
    source: str
    limits: dict[str, int]
    grants: dict[str, Any]
    ends_in: str = ""


ORDINARY: Final = DemoAgent(
    name="wordcount",
    description="Counts words: an ordinary agent, whose latency the hostile ones must not change.",
    source='import json\n\n\ndef process(text):\n    return json.dumps({"words": len(text.split())})\n',
    limits={"fuel": 200_000_000, "wall_ms": 5_000},
    grants={},
)

HOSTILE: Final = (
    DemoAgent(
        name="loop",
        description="Never ends.",
        source="def process(text):\n    while True:\n        pass\n",
        limits={"fuel": 1_000_000_000_000, "wall_ms": 8_000},
        grants={},
        ends_in="DEADLINE",
    ),
    DemoAgent(
        name="memory",
        description="Allocates until nothing is left, again and again.",
        source=("def process(text):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))\n"),
        limits={"fuel": 1_000_000_000_000, "wall_ms": 8_000, "memory_bytes": 96 << 20},
        grants={},
        ends_in="MEMORY",
    ),
    DemoAgent(
        name="hostcalls",
        description="Hammers host calls.",
        source=(
            'from agentfactory_sdk import kv\n\n\ndef process(text):\n    while True:\n        kv.get("anything")\n'
        ),
        limits={"fuel": 1_000_000_000_000, "wall_ms": 30_000, "host_calls": 5_000},
        grants={"kv": {"namespace": "hammer", "bytes_max": 65_536}},
        ends_in="HOST_CALLS",
    ),
)


def write(agent: DemoAgent, directory: Path) -> Path:
    """Write the agent's document and source into ``directory`` and return the document's path."""
    home = directory / agent.name
    home.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": 1,
        "name": agent.name,
        "version": "1.0.0",
        "domain": DOMAIN,
        "role": "demo",
        "description": agent.description,
        "code": {"source": "agent.py", "image": "cpython"},
        "grants": agent.grants,
        "limits": agent.limits,
    }
    (home / "agent.py").write_text(agent.source)
    (home / "template.json").write_text(json.dumps(document, indent=2) + "\n")
    return home / "template.json"


def new_version(template: Path, directory: Path, *, version: str, source_note: str) -> Path:
    """Copy a template with its source into ``directory`` as ``version``, with one line more in the source."""
    document = json.loads(template.read_text())
    document["version"] = version
    source = template.parent / document["code"]["source"]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / source.name).write_text(source.read_text() + f"\n# {source_note}\n")
    copy = directory / template.name
    copy.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    return copy
