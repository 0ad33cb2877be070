"""agentctl init: keys, identities, root and charter of an installation, in separate places."""

from datetime import UTC, datetime

import click

from client.agentctl import connections
from client.agentctl.inputs import read_object
from client.agentctl.output import emit, note


@click.command()
@click.option("--environment", default="local", help="Name that every approval is bound to.")
@click.option("--production", is_flag=True, help="Sign a production root; nodes in production mode accept no other.")
@click.option("--trust-domain", default="factory.local", help="SPIFFE trust domain of all identities.")
@click.option("--control-plane", default="localhost:7400", help="host:port of the control plane.")
@click.option("--node", "nodes", multiple=True, help="NAME=host:port; repeat for more nodes.")
@click.option("--domain", "domains", multiple=True, help="NAME=THRESHOLD:REVIEWER,REVIEWER…; repeat.")
@click.option("--author", "authors", multiple=True, help="A person who may submit; repeat.")
@click.option("--service", "services", multiple=True, help="TENANT/NAME of a service that may call nodes; repeat.")
@click.option(
    "--key-kind", type=click.Choice(["rsa", "ed25519", "ml-dsa-65"]), default="rsa", help="Kind of every signing key."
)
@click.option(
    "--secret-bindings",
    default="{}",
    help="Where the broker may send which secret (docs/grants.md): the charter's JSON, @file or -.",
)
def init(
    environment: str,
    production: bool,  # noqa: FBT001
    trust_domain: str,
    control_plane: str,
    nodes: tuple[str, ...],
    domains: tuple[str, ...],
    authors: tuple[str, ...],
    services: tuple[str, ...],
    key_kind: str,
    secret_bindings: str,
) -> None:
    """Make the keys and signed documents of an installation in the directory given by --dir.

    Move DIR/offline and DIR/reviewers/<person> away afterwards: no server needs them.
    """
    from client.installation import create_installation
    from client.standard import installation_spec

    spec = installation_spec(
        connections.directory(),
        environment=environment,
        production=production,
        trust_domain=trust_domain,
        control_plane=control_plane,
        nodes=nodes,
        domains=domains,
        authors=authors,
        services=services,
        key_kind=key_kind,
        secret_bindings=read_object(secret_bindings, option="--secret-bindings"),
    )
    made = create_installation(spec, now=datetime.now(UTC), tell=note)
    places = {
        "profile": str(made.directory / "profile.json"),
        "offline_keys": str(made.directory / "offline"),
        "reviewers_keys": str(made.directory / "reviewers"),
        "online_keys": str(made.directory / "control-plane" / "keys"),
        "trust": str(made.trust_directory),
    }
    emit(
        places,
        text="\n".join(f"{name.replace('_', ' '):16} {place}" for name, place in places.items())
        + "\nThe root and charter expire in 365 days: `agentctl key list` shows when, and warns.",
    )
