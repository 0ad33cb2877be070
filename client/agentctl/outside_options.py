"""Where `http` and `llm` of a local run may go, as options of several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from client.agentctl.inputs import read_pairs

if TYPE_CHECKING:
    from client.local_http import Outside
    from client.local_llm import Models

Pairs = tuple[tuple[str, str], ...]

_OPTIONS: Final = (
    click.option(
        "--llm-key",
        "llm_keys",
        multiple=True,
        metavar="BINDING=FILE",
        callback=read_pairs,
        help="The key of an llm endpoint, from a file of mode 0600.",
    ),
    click.option(
        "--private",
        multiple=True,
        metavar="ORIGIN=NETWORK",
        callback=read_pairs,
        help="Let http and llm reach this origin inside of a private network: http://api.example:8080=127.0.0.1/32.",
    ),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME=FILE",
        callback=read_pairs,
        help="A secret that the template's http grants inject, from a file of mode 0600.",
    ),
    click.option(
        "--authorities",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        help="Certificates (PEM) of the authorities of servers outside; the system's by default.",
    ),
)


def outside_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options whose values `reach` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def endpoints(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Pairs:
    """Read ``BINDING=URL``; the first ``=`` parts them."""
    pairs = tuple((name, url) for name, _, url in (each.partition("=") for each in values))
    if not all(name and url for name, url in pairs):
        raise click.BadParameter(f"expected BINDING=URL, got {' '.join(values)}")
    return pairs


def reach(
    bindings: frozenset[str] | None,
    urls: Pairs,
    *,
    private: Pairs,
    secrets: Pairs,
    authorities: Path | None,
    llm_keys: Pairs,
) -> "tuple[Outside, Models]":
    """Return what the options say; ``bindings`` of the `http` grants, None for all, and ``urls`` of the `llm` ones."""
    from client.local_http import Outside
    from client.local_llm import Models

    networks = {origin: tuple(net for other, net in private if other == origin) for origin, _ in private}
    files = {name: Path(path) for name, path in secrets}
    keys = {name: Path(path) for name, path in llm_keys}
    outside = Outside(bindings=bindings, private=networks, secrets=files, authorities=authorities)
    return outside, Models(urls=dict(urls), keys=keys, private=networks, authorities=authorities)
