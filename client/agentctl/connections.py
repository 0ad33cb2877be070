"""What commands connect with: the profile's identities, admin stubs and the client library."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.profile import Profile, read_profile

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
    with _channel(found, found.control_plane, identity or person(found)) as channel:
        yield channel


@contextmanager
def node_channel(found: Profile, address: str) -> "Iterator[grpc.Channel]":
    """A channel to a node's operator service as a person."""
    with _channel(found, address, person(found)) as channel:
        yield channel


@contextmanager
def _channel(found: Profile, address: str, identity: str) -> "Iterator[grpc.Channel]":
    import grpc

    from client.agentctl.mutations import REPEATABLE
    from service.client_interceptors import RetryPolicy, intercept_channel
    from service.tls import channel_credentials

    options = (("grpc.max_receive_message_length", 64 << 20),)
    channel = grpc.secure_channel(address, channel_credentials(found.tls(identity)), options=options)
    try:
        yield intercept_channel(channel, RetryPolicy(idempotent_methods=REPEATABLE))
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
