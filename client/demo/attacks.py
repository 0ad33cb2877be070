"""The second half of the demo: hostile agents, a turned control plane, a damaged store, no control plane at all."""

import queue
import statistics
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agentfactory.node.v1 import node_pb2

from client.agent_factory import AgentFactory
from client.demo import actors, material, traitor
from client.demo.stage import Stage
from client.demo.work import CATALOGUE
from service.status import RemoteError
from templates.bundle import decompress, read_bundle
from templates.names import TemplateName
from templates.repository import OfflineTrust

WORDS: Final = "one two three four five"
SAMPLES: Final = 60
RATIO_MAX: Final = 3.0
FLOOR_MS: Final = 15.0
NACK_TIMEOUT_S: Final = 60.0
MEND_TIMEOUT_S: Final = 90.0


def _latencies_ms(factory: AgentFactory, template: str) -> list[float]:
    found: list[float] = []
    while len(found) < SAMPLES:
        started = time.perf_counter()
        factory.invoke_template(template, WORDS)
        found.append((time.perf_counter() - started) * 1e3)
    return found


def hostile_agents(stage: Stage) -> None:
    """Three hostile agents beside an ordinary one, in the same tenant's workers."""
    story = stage.story
    story.chapter("hostile", "Hostile agents (loop, memory, host calls) beside an ordinary one")
    ordinary = f"{material.DOMAIN}/{material.ORDINARY.name}"
    ended: dict[str, str] = {}
    node = next(iter(stage.profile.nodes))
    tls = stage.profile.tls(stage.profile.service)

    def one_node() -> AgentFactory:
        return AgentFactory.connect(
            stage.profile.nodes[node], certificate=tls.certificate, key=tls.key, authorities=tls.authorities
        )

    def attack(agent: material.DemoAgent) -> None:
        with one_node() as own:
            try:
                own.invoke_template(f"{material.DOMAIN}/{agent.name}", WORDS)
                ended[agent.name] = "OK"
            except RemoteError as error:
                ended[agent.name] = error.reason_text

    with one_node() as factory:
        _latencies_ms(factory, ordinary)
        alone = _latencies_ms(factory, ordinary)
        attackers = [threading.Thread(target=attack, args=(agent,)) for agent in material.HOSTILE]
        for thread in attackers:
            thread.start()
        beside = _latencies_ms(factory, ordinary)
        still_attacking = any(thread.is_alive() for thread in attackers)
        for thread in attackers:
            thread.join()
        alone += _latencies_ms(factory, ordinary)  # before and after: whatever else the machine does hits all three
    medians = statistics.median(alone), statistics.median(beside)
    worst = statistics.quantiles(alone, n=20)[-1], statistics.quantiles(beside, n=20)[-1]
    story.fact("median_ms", {"alone": round(medians[0], 2), "beside": round(medians[1], 2)})
    story.fact(
        "p95_ms",
        {"alone": round(worst[0], 2), "beside": round(worst[1], 2)},
        f"ordinary agent: median {medians[0]:.1f} ms alone, {medians[1]:.1f} ms beside; "
        f"p95 {worst[0]:.1f} ms alone, {worst[1]:.1f} ms beside",
    )
    story.promise(
        "latency_unmoved",
        holds=still_attacking and medians[1] <= max(RATIO_MAX * medians[0], FLOOR_MS),
        text=f"the ordinary agent's latency stayed within {RATIO_MAX:.0f} × while all three attacked",
    )
    for agent in material.HOSTILE:
        story.promise(
            f"{agent.name}_stopped",
            holds=ended.get(agent.name) == agent.ends_in,
            text=f"{agent.name} ended in {agent.ends_in} (got {ended.get(agent.name)})",
        )


def turned_control_plane(stage: Stage) -> None:
    """The control plane's own identity and every online key push a template that no reviewer approved."""
    story = stage.story
    story.chapter("traitor", "A control plane with every online key pushes an unapproved template")
    profile = stage.profile
    public = actors.trust(profile)
    victim = TemplateName.parse("documentation/documentaliste")
    before = _generations(stage)
    stage.fleet.control_plane.stop()
    forgery = traitor.forge(
        read_bundle(decompress(public.bundle_zstd)),
        trust=OfflineTrust(roots=tuple(public.roots), targets=public.targets, charter=public.charter),
        victim=victim,
        signers=traitor.read_online_signers(profile),
        now=datetime.now(UTC),
    )
    refused: dict[str, str] = {}
    with traitor.serving(profile, forgery) as nacks:
        until = time.monotonic() + NACK_TIMEOUT_S
        while len(refused) < len(profile.nodes) and time.monotonic() < until:
            try:
                node, nack = nacks.get(timeout=1.0)
            except queue.Empty:
                continue
            refused[node] = nack.reason
            story.tell(f"{node} refused generation {nack.generation}: {nack.reason}: {nack.message}")
    story.fact("refused", refused)
    for node in profile.nodes:
        story.promise(
            f"{node}_refused",
            holds=refused.get(node, "").startswith("APPROVAL_"),
            text=f"{node} refused the forged generation",
        )
    story.promise(
        "generations_unchanged", holds=_generations(stage) == before, text="both nodes keep their last good generation"
    )
    _answers(stage, "serving_after_traitor", "both nodes still answer with approved code")
    stage.fleet.control_plane.start()
    stage.fleet.control_plane.wait_ready()


def damaged_store(stage: Stage) -> None:
    """A flipped byte in a node's store is noticed at start, and mended by the control plane's next push."""
    story = stage.story
    story.chapter("damage", "A flipped byte in a node's store")
    name = list(stage.profile.nodes)[-1]
    node = stage.fleet.nodes[name]
    generation = _generations(stage)[name]
    stage.fleet.control_plane.stop()
    node.stop()
    damaged = _flip_newest_bundle(stage.profile.directory / "nodes" / name)
    story.tell(f"{name} stopped; one bit flipped in {damaged.relative_to(stage.profile.directory)}")
    node.start()
    node.wait_alive()
    status = _settled(stage, name)
    story.fact(
        "state",
        {"state": node_pb2.NodeState.Name(status.state), "reason": status.state_reason},
        f"{name}: {node_pb2.NodeState.Name(status.state).removeprefix('NODE_STATE_')}: {status.state_reason}",
    )
    story.promise(
        "damage_refused",
        holds=status.generation != generation and bool(status.state_reason or status.last_refusal.reason),
        text=f"{name} does not run the damaged generation, and says why",
    )
    others = [other for other in stage.profile.nodes if other != name]
    story.promise(
        "others_serve",
        holds=all(_invokes(stage, other) for other in others),
        text=f"{', '.join(others)} still serves the last good generation",
    )
    stage.fleet.control_plane.start()
    stage.fleet.control_plane.wait_ready()
    mended = _serves_again(stage, name, generation) and _invokes(stage, name)
    story.promise("mended", holds=mended, text=f"{name} got generation {generation} again and serves")


def no_control_plane(stage: Stage) -> None:
    """SIGKILL for the control plane; nodes answer, and one even restarts from its disk."""
    story = stage.story
    story.chapter("alone", "The control plane is killed")
    stage.fleet.control_plane.kill()
    _answers(stage, "answer_without_control_plane", "both nodes answer without a control plane")
    name = next(iter(stage.profile.nodes))
    stage.fleet.nodes[name].kill()
    started = time.monotonic()
    stage.fleet.nodes[name].start()
    stage.fleet.nodes[name].wait_ready()
    answered = _invokes(stage, name)
    took = time.monotonic() - started
    story.fact("restart_to_answer_s", round(took, 2))
    story.promise(
        "restarts_from_disk",
        holds=answered,
        text=f"{name}, killed too, restarted from disk and answered after {took:.1f} s",
    )


def _generations(stage: Stage) -> dict[str, int]:
    found = {}
    for node in stage.profile.nodes:
        status = actors.node_status(stage.profile, node)
        found[node] = status.generation if status else 0
    return found


def _settled(stage: Stage, node: str) -> node_pb2.NodeStatus:
    until = time.monotonic() + NACK_TIMEOUT_S
    while True:
        status = actors.node_status(stage.profile, node)
        if status is not None or time.monotonic() > until:
            return status or node_pb2.NodeStatus()
        time.sleep(0.1)


def _serves_again(stage: Stage, node: str, generation: int) -> bool:
    until = time.monotonic() + MEND_TIMEOUT_S
    while time.monotonic() < until:
        status = actors.node_status(stage.profile, node)
        if status and status.state == node_pb2.NODE_STATE_SERVING and status.generation == generation:
            return True
        time.sleep(0.1)
    return False


def _invokes(stage: Stage, node: str) -> bool:
    agent = stage.agents[next(iter(CATALOGUE)), node]
    with stage.factory() as factory:
        return bool(factory.invoke(agent.name, "# Title\n\nSome words in a sentence.").output)


def _answers(stage: Stage, key: str, text: str) -> None:
    stage.story.promise(key, holds=all(_invokes(stage, node) for node in stage.profile.nodes), text=text)


def _flip_newest_bundle(store: Path) -> Path:
    generations = [path for path in (store / "generations").rglob("*") if path.is_file() and "bundle" in path.name]
    newest = max(generations, key=lambda path: path.stat().st_mtime)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0x01
    newest.write_bytes(bytes(data))
    return newest
