"""agentctl up: a control plane and nodes on this machine, with a development charter; one command, stops cleanly."""

import os
import signal
import time
from datetime import UTC, datetime

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.inputs import read_object, read_pairs
from client.agentctl.output import fail_line, note
from client.agentctl.tracing import collector_of


@click.command()
@click.option("--nodes", "node_count", type=click.IntRange(1, 32), default=1, help="Nodes of a new installation.")
@click.option(
    "--port", type=click.IntRange(0, 65000), default=7400, help="First port of a new installation; 0 takes free ones."
)
@click.option(
    "--threshold", type=click.IntRange(1, 2), default=1, help="Reviewers that each domain of a new installation needs."
)
@click.option(
    "--key-kind", type=click.Choice(["rsa", "ed25519", "ml-dsa-65"]), default="rsa", help="Kind of new signing keys."
)
@click.option(
    "--secret-bindings",
    default="{}",
    help="Where the broker may send which secret (docs/grants.md): the charter's JSON, @file or -.",
)
@click.option(
    "--private",
    multiple=True,
    metavar="ORIGIN=NETWORK",
    callback=read_pairs,
    help="Let grants of http reach this origin inside of a private network: http://api.example:8080=127.0.0.1/32; "
    "repeat. Kept for later starts.",
)
@click.option(
    "--node-settings",
    default="{}",
    help="More settings of every node (docs/settings.md, without the prefix), JSON, @file or -: "
    '{"file_exports": {"scratch": {}}}. Kept for later starts; null takes one away.',
)
def up(
    node_count: int,
    port: int,
    threshold: int,
    key_kind: str,
    secret_bindings: str,
    private: tuple[tuple[str, str], ...],
    node_settings: str,
) -> None:
    """Start a control plane and nodes; make a development installation in --dir first when there is none.

    With OTEL_EXPORTER_OTLP_ENDPOINT set they send spans and metrics to that collector.
    """
    from client.local_fleet import LocalFleet, ensure_installation
    from client.node_settings import FILE, changed_settings, keep_settings, kept_settings
    from client.processes import running
    from service.keystore import KeyKind

    profile = ensure_installation(
        connections.directory(),
        node_count=node_count,
        port=port,
        threshold=threshold,
        key_kind=KeyKind(key_kind),
        secret_bindings=read_object(secret_bindings, option="--secret-bindings"),
        now=datetime.now(UTC),
        tell=note,
    )
    kept = kept_settings(profile.directory)
    settings = changed_settings(kept, read_object(node_settings, option="--node-settings"), private)
    fleet = LocalFleet(profile, collector=collector_of(os.environ, tell=lambda _why: None), node_settings=settings)
    fleet.refuse_taken_ports()
    stop_requested: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop_requested.append(received))
    with running(fleet.processes):
        fleet.start()
        if settings != kept:
            keep_settings(profile.directory, settings)
        if settings:
            note(f"nodes have settings of their own: {', '.join(sorted(settings))} ({profile.directory / FILE})")
        note(f"control plane  {profile.control_plane}  (metrics http://{profile.observation['control-plane']}/metrics)")
        for name, address in profile.nodes.items():
            note(f"{name:13}  {address}  (metrics http://{profile.observation[name]}/metrics)")
        note(f"logs in {profile.directory / 'logs'}; try: agentctl --dir {profile.directory} node status")
        note("Ctrl-C stops everything")
        while not stop_requested:
            for process in fleet.processes:
                if not process.is_running():
                    fail_line(f"{process.name} ended:\n{process.tail()}")
                    raise click.exceptions.Exit(ExitCode.UNAVAILABLE)
            time.sleep(0.2)
        note("stopping")
