"""agentctl demo: the whole way once, on this machine, with everything checked that it shows."""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client.agentctl.output import emit, is_json, note

if TYPE_CHECKING:
    from client.demo.stage import Stage


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running and say what to try next; stop with Ctrl-C.")
@click.option(
    "--key-kind", type=click.Choice(["rsa", "ed25519", "ml-dsa-65"]), default="rsa", help="Kind of every signing key."
)
def demo(keep: bool, key_kind: str) -> None:  # noqa: FBT001
    """One control plane and two nodes: review, sign, push, run, attack. Exits 0 only if all of it happened."""
    from client.demo.stage import Stage
    from client.demo.story import Story
    from client.local_fleet import LocalFleet, ensure_installation
    from client.processes import running
    from service.keystore import KeyKind

    started = time.monotonic()
    story = Story(quiet=is_json())
    directory = Path(tempfile.mkdtemp(prefix="agentfactory-demo-"))
    story.chapter("setup", "Keys, identities, charter; one control plane and two nodes")
    profile = ensure_installation(
        directory,
        node_count=2,
        port=0,
        threshold=2,
        key_kind=KeyKind(key_kind),
        now=datetime.now(UTC),
        tell=story.tell,
    )
    stage = Stage(story=story, fleet=LocalFleet(profile), scratch=directory / "scratch")
    with running(stage.fleet.processes):
        stage.fleet.start()
        story.fact("directory", str(directory), f"running in {directory}")
        story.fact("nodes", dict(profile.nodes))
        _chapters(stage)
        took = time.monotonic() - started
        story.fact("took_s", round(took, 1))
        if is_json():
            emit(story.facts)
        else:
            click.secho(f"\nAll of it happened, in {took:.0f} s.", bold=True, fg="green")
        if keep:
            _keep(stage)
    if not keep:
        note(f"logs and state remain in {directory}")


def _chapters(stage: "Stage") -> None:
    from client.demo import attacks, versions, work

    work.publish_catalogue(stage)
    work.create_agents(stage)
    work.do_work(stage)
    versions.switch_versions(stage)
    attacks.hostile_agents(stage)
    attacks.turned_control_plane(stage)
    attacks.damaged_store(stage)
    attacks.no_control_plane(stage)


def _keep(stage: "Stage") -> None:
    directory = stage.profile.directory
    stage.fleet.control_plane.start()
    stage.fleet.control_plane.wait_ready()
    note(
        f"""
It keeps running. Three commands to try (from another terminal, in this repository):

  .venv/bin/agentctl --dir {directory} node status
  .venv/bin/agentctl --dir {directory} agent invoke documentation/documentaliste @README.md
  .venv/bin/agentctl --dir {directory} invocation list

And ten lines of Python (.venv/bin/python):

  from client import AgentFactory
  with AgentFactory.connect(profile="{directory}") as factory:
      agent = factory.create_agent("documentaliste", config={{"sentences": 2}})
      print(agent.name, agent.get_capabilities())
      answer = agent.process(open("README.md").read())
      print(answer.json()["summary"])
      print(answer.receipt.usage.fuel, "fuel in", answer.receipt.usage.wall_ms, "ms")
      for record in factory.list_invocations(agent=agent.name):
          print(record.outcome, record.started)
      agent.delete()

Ctrl-C stops everything.
"""
    )
    try:
        while all(process.is_running() for process in stage.fleet.processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        note("stopping")
