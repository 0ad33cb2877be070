"""The first half of the demo: publish the catalogue, create agents, let them work on real input."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from client.agentctl.commands.agent import receipt_text
from client.demo import actors, material
from client.demo.stage import CATALOG, REPOSITORY, REVIEWERS, Stage
from client.values import Answer

BASE: Final = CATALOG / "documentation" / "base" / "template.json"
CATALOGUE: Final = {
    "documentaliste": CATALOG / "documentation" / "documentaliste" / "template.json",
    "genie_logiciel": CATALOG / "software" / "genie_logiciel" / "template.json",
    "hardware": CATALOG / "infrastructure" / "hardware" / "template.json",
    "superviseur": CATALOG / "orchestration" / "superviseur" / "template.json",
}
IMAGE: Final = CATALOG / "images" / "cpython" / "template.json"
_LINES_MAX: Final = 14
_WIDTH_MAX: Final = 110


def publish_catalogue(stage: Stage) -> None:
    """Alice submits, bob and carol derive and sign, the control plane pushes, both nodes verify for themselves."""
    story = stage.story
    story.chapter("publish", "Review and publish the catalogue: two reviewers sign, two nodes verify for themselves")
    generation = 0
    for path in (IMAGE, BASE, *CATALOGUE.values()):
        change = actors.publish(stage.profile, path, author=stage.profile.person)
        signed: list[str] = []
        for reviewer in REVIEWERS:
            found, change = actors.approve(stage.profile, change.name, reviewer=reviewer)
            signed.append(reviewer)
            if reviewer == REVIEWERS[0]:
                story.promise(
                    f"one_signature_is_not_enough_{found.resolved.ref.name}",
                    holds=not change.generation,
                    text=f"{found.resolved.ref} is not published with one signature of two",
                )
        generation = change.generation
        story.tell(
            f"{change.template}  {change.sha256.hex()[:16]}  signed by {', '.join(signed)}: generation {generation}"
        )
    for agent in (material.ORDINARY, *material.HOSTILE):
        generation = stage.publish(material.write(agent, stage.scratch), approvers=(stage.profile.person,))
    story.tell(f"dev/… for later, by one person, as the development charter allows: generation {generation}")
    took = actors.wait_active(stage.profile, generation)
    story.fact("generation", generation)
    story.fact("last_publish_to_active_s", round(took, 3), f"generation {generation} active on both nodes")


def create_agents(stage: Stage) -> None:
    """One agent of each template on each node."""
    story = stage.story
    story.chapter("agents", "Create an agent of each template on each node")
    with stage.factory() as factory:
        for template in CATALOGUE:
            for node, address in stage.profile.nodes.items():
                agent = factory.create_agent(template, "demo", address=address)
                stage.agents[template, node] = agent
                story.tell(f"{agent.name}  from {agent.record.template}@{agent.record.template_version}")
    story.fact("names", [agent.name for agent in stage.agents.values()])


def do_work(stage: Stage) -> None:
    """Each agent on real input of this machine and this repository."""
    story = stage.story
    story.chapter("work", "Real work: this repository's README, one of its modules, this machine's processor")
    readme = (REPOSITORY / "README.md").read_text()
    module = (REPOSITORY / "templates" / "names.py").read_text()
    cpuinfo = Path("/proc/cpuinfo").read_text()
    job = json.dumps({"files": {"README.md": readme, "names.py": module, "cpuinfo": cpuinfo}})
    inputs = {"documentaliste": readme, "genie_logiciel": module, "hardware": cpuinfo, "superviseur": job}
    with stage.factory() as factory:
        for (template, node), agent in stage.agents.items():
            answer = factory.invoke(agent.name, inputs[template])
            story.fact(f"{template}_{node}", {"output": answer.json(), "receipt": answer.receipt.to_json()})
            if node == next(iter(stage.profile.nodes)):
                story.tell(f"── {template} ─────")
                story.tell(summary(answer))
            story.promise(
                f"{template}_{node}_answered",
                holds=bool(answer.output) and answer.receipt.node == node,
                text=f"{template} answered on {node} in {answer.receipt.usage.wall_ms:.1f} ms",
            )
        kept = stage.story.facts["work"]
        parts = kept[f"superviseur_{next(iter(stage.profile.nodes))}"]["receipt"]["usage"]["child_invocations"]
        story.promise(
            "superviseur_directed_three", holds=parts == len(inputs) - 1, text="superviseur directed three agents"
        )


def summary(answer: Answer) -> str:
    """Return an answer and its receipt in a few lines."""
    lines = list(_lines(answer.json()))
    shown = lines[:_LINES_MAX] + ([f"… {len(lines) - _LINES_MAX} more lines"] if len(lines) > _LINES_MAX else [])
    return "\n".join([*shown, receipt_text(answer.receipt)])


def _lines(value: Any, name: str = "", depth: int = 0) -> "list[str]":
    indent = "  " * depth
    if isinstance(value, Mapping):
        lines = [f"{indent}{name}:"] if name else []
        for key, one in value.items():
            lines += _lines(one, str(key), depth + bool(name))
        return lines
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        lines = [f"{indent}{name}: {len(value)}"]
        return lines + [f"{indent}  {_short(json.dumps(one, ensure_ascii=False))}" for one in value[:3]]
    text = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return [f"{indent}{name}: {_short(text)}"]


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _WIDTH_MAX else flat[: _WIDTH_MAX - 1] + "…"
