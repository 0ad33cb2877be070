"""Which node to call: an agent's home node, or any node for what needs no home. Learns from answers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from client.profile import read_profile
from service.tls import TlsFiles
from templates.reasons import AgentFactoryError, Reason

_AGENT_NAME: Final = re.compile(r"nodes/([a-z0-9][a-z0-9._-]{0,63})/agents/[a-z0-9][a-z0-9-]{0,62}")


class InvalidAgentNameError(AgentFactoryError):
    """The text is not ``nodes/<node>/agents/<id>``."""

    reason = Reason.INVALID_NAME


def home_node(agent_name: str) -> str:
    """Return the node id in an agent's name.

    Raises:
        InvalidAgentNameError: another text.
    """
    found = _AGENT_NAME.fullmatch(agent_name)
    if found is None:
        raise InvalidAgentNameError(f"expected nodes/<node>/agents/<id>, got {agent_name[:160]!r}")
    return found[1]


class Fleet:
    """Addresses of nodes. Those with known ids are called directly; the others are asked in turn and remembered."""

    def __init__(self, *, known: Mapping[str, str], unknown: Sequence[str] = ()) -> None:
        self._address_of = dict(known)
        self._unknown = [address for address in unknown if address not in known.values()]
        self._turn = 0
        if not self.addresses:
            raise InvalidAgentNameError("expected at least one node address, got none")

    @property
    def addresses(self) -> Sequence[str]:
        return [*self._address_of.values(), *self._unknown]

    def next_address(self) -> str:
        """Return the address for a call that any node can answer, round robin."""
        addresses = self.addresses
        self._turn = (self._turn + 1) % len(addresses)
        return addresses[self._turn]

    def addresses_for(self, agent_name: str) -> Sequence[str]:
        """Return where the agent's home node may be: one address when it is known, else those not yet known."""
        node = home_node(agent_name)
        if node in self._address_of:
            return [self._address_of[node]]
        return self._unknown or list(self._address_of.values())

    def learn(self, *, node: str, address: str) -> None:
        """Remember that ``node`` answered at ``address``."""
        self._address_of[node] = address
        if address in self._unknown:
            self._unknown.remove(address)


def connection(
    addresses: Sequence[str],
    *,
    certificate: Path | str | None,
    key: Path | str | None,
    authorities: Path | str | None,
    profile: Path | str | None,
    identity: str | None,
) -> tuple[TlsFiles, Fleet]:
    """Return the TLS files and nodes that ``connect``'s arguments mean.

    Raises:
        ProfileError: neither a profile nor all three files were given.
    """
    if certificate and key and authorities:
        tls = TlsFiles(certificate=Path(certificate), key=Path(key), authorities=Path(authorities))
        return tls, Fleet(known={}, unknown=addresses)
    found = read_profile(Path(profile or "agentfactory").expanduser())
    tls = found.tls(identity or found.service)
    known = {node: address for node, address in found.nodes.items() if not addresses or address in addresses}
    return tls, Fleet(known=known, unknown=[one for one in addresses if one not in known.values()])
