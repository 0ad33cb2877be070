"""What commands connect with: the profile's identities, admin stubs and the client library."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from client.profile import CONTROL_PLANE, Profile, ProfileError, read_profile
from client.tokens import read_token, token_credentials

TURN_WAIT_S: Final = 60.0
"""Longest that a call waits in all when a server has had enough of this person for now (RATE_LIMITED)."""

if TYPE_CHECKING:
    import grpc

    from client.agent_factory import AgentFactory


def directory() -> Path:
    """The installation's directory that the user named."""
    found: Path = click.get_current_context().find_root().obj["directory"]
    return found


def profile() -> Profile:
    """The profile of that directory.

    Raises:
        ProfileError: there is none.
    """
    return read_profile(directory())


def _identity() -> str:
    chosen: str = click.get_current_context().find_root().obj["identity"]
    return chosen


def person(found: Profile) -> str:
    """The person who acts: ``--as``, else the profile's."""
    return _identity() or found.person


@contextmanager
def admin_channel(found: Profile, identity: str = "") -> "Iterator[grpc.Channel]":
    """A channel to the control plane as a person."""
    with _channel(found, found.control_plane, identity or person(found), server=CONTROL_PLANE) as channel:
        yield channel


@contextmanager
def node_channel(found: Profile, address: str) -> "Iterator[grpc.Channel]":
    """A channel to a node's operator service as a person."""
    name = next((name for name, each in found.nodes.items() if each == address), "")
    with _channel(found, address, person(found), server=name) as channel:
        yield channel


@contextmanager
def server_channel(found: Profile, node: str) -> "Iterator[grpc.Channel]":
    """A channel to a node by its name, or to the control plane for "".

    Raises:
        click.BadParameter: the profile has no such node.
    """
    if node and node not in found.nodes:
        raise click.BadParameter(f"expected one of {', '.join(sorted(found.nodes))}, got {node!r}")
    with node_channel(found, found.nodes[node]) if node else admin_channel(found) as channel:
        yield channel


@contextmanager
def _channel(found: Profile, address: str, identity: str, *, server: str) -> "Iterator[grpc.Channel]":
    import grpc

    from client.agentctl.mutations import REPEATABLE
    from service.client_interceptors import RetryPolicy, intercept_channel
    from service.tls import channel_credentials

    options = (("grpc.max_receive_message_length", 64 << 20),)
    token = read_token(os.environ)
    if token is None:
        channel = grpc.secure_channel(address, channel_credentials(found.tls(identity)), options=options)
    else:
        if server not in found.people:
            raise ProfileError(f"expected an address for tokens of {server} under people in {found.directory}")
        channel = grpc.secure_channel(
            found.people[server], token_credentials(token, found.authorities_file()), options=options
        )
    try:
        yield intercept_channel(channel, RetryPolicy(idempotent_methods=REPEATABLE, turn_wait_s_max=TURN_WAIT_S))
    finally:
        channel.close()


@contextmanager
def agent_factory(found: Profile) -> "Iterator[AgentFactory]":
    """The client library, as the service that the user chose with ``--as`` or the profile's."""
    from client.agent_factory import AgentFactory

    with AgentFactory.connect(profile=found.directory, identity=_identity() or None) as factory:
        yield factory


def all_pages(fetch: Any, field: str) -> list[Any]:
    """Return the items of ``field`` of every page that ``fetch(token)`` gives."""
    from client import requests

    return requests.all_pages(fetch, lambda page: list(getattr(page, field)))
