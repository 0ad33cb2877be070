"""``wasi:sockets`` 0.2: its types exist because libraries import them, its objects do not.

No socket can be made, so that a guest never holds a handle whose methods it could call; the linker refuses each of
those methods all the same.
"""

from typing import Final

from sandbox import values
from sandbox.component_guest import Answer, Guest, Import, Interface

NAME_BYTES_MAX: Final = 4_096

NETWORK, UDP_SOCKET, INCOMING, OUTGOING, TCP_SOCKET, RESOLVE_STREAM = range(20, 26)


def network(guest: Guest, context: int, _args: int) -> Answer:
    return guest.own(context, 0, NETWORK)


def access_denied(_guest: Guest, _context: int, args: int) -> Answer:
    """Whatever address family; a component that declared another kind for it would have that converted for nothing."""
    values.read_enum(args)
    return values.err(values.enum(b"access-denied"))


def resolve(_guest: Guest, context: int, args: int) -> Answer:
    """No name exists. The handle of the network is given back; of the name, only the length matters."""
    values.read_handle(args, context, NETWORK)
    if (length := values.string_length(args + values.VALUE_BYTES)) > NAME_BYTES_MAX:
        raise values.TooLargeError("bytes of a name", NAME_BYTES_MAX, length)
    return values.err(values.enum(b"access-denied"))


RESOURCES: Final = {
    "network": NETWORK,
    "udp-socket": UDP_SOCKET,
    "incoming-datagram-stream": INCOMING,
    "outgoing-datagram-stream": OUTGOING,
    "tcp-socket": TCP_SOCKET,
    "resolve-address-stream": RESOLVE_STREAM,
}

INTERFACES: Final[dict[str, Interface]] = {
    "wasi:sockets/network": {},
    "wasi:sockets/instance-network": {"instance-network": Import(0, True, network)},
    "wasi:sockets/udp": {},
    "wasi:sockets/udp-create-socket": {"create-udp-socket": Import(1, True, access_denied)},
    "wasi:sockets/tcp": {},
    "wasi:sockets/tcp-create-socket": {"create-tcp-socket": Import(1, True, access_denied)},
    "wasi:sockets/ip-name-lookup": {"resolve-addresses": Import(2, True, resolve)},
}
