"""Connections of the broker to the outside: a name is resolved once, judged, and exactly that address is connected to.

asyncio's own ``open_connection(host)`` would resolve again, and httpx and httpcore connect by name as well; here the
resolver's answer and the socket's peer are the same address, and that is looked at once more when the socket says so
itself. Proxies do not exist: nothing here reads the environment.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol

from data_plane.broker.address_policy import Destinations, unwrapped
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.origin import IpAddress, Origin
from service.tls import TlsFilesError

ADDRESSES_MAX: Final = 64
ATTEMPTS_MAX: Final = 4
ATTEMPT_S: Final = 2.0
"""Time for one address of several; the last has all that is left."""

_STREAM_BYTES: Final = 65_536


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def resolve(self, name: str) -> Sequence[IpAddress]:
        """Return every address of ``name``, in the order of preference.

        Args:
            name: an ASCII DNS name; with a dot at its end it is absolute, and no search list applies.

        Raises:
            OSError: there is none, or nobody answered.
        """
        ...


def _getaddrinfo(name: bytes) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


class SystemResolver:
    """The system's own (``getaddrinfo``), in threads of its own: a name server that is silent holds up nothing else.

    A thread cannot be called back. So a name is asked for once at a time, whoever wants it: one whose server is silent
    takes one thread, not all of them.
    """

    def __init__(self, *, threads: int = 16, lookup: Callable[[bytes], list[str]] = _getaddrinfo) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._lookup = lookup
        self._asked: dict[str, asyncio.Future[list[str]]] = {}

    async def resolve(self, name: str) -> Sequence[IpAddress]:
        answer = self._asked.get(name)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._asked[name] = loop.run_in_executor(self._threads, self._lookup, name.encode("ascii"))
            answer.add_done_callback(lambda done: self._forget(name, done))
        found = await asyncio.shield(answer)
        return tuple(ip_address(text) for text in dict.fromkeys(found))

    def _forget(self, name: str, answer: "asyncio.Future[list[str]]") -> None:
        del self._asked[name]
        if not answer.cancelled():
            answer.exception()  # looked at, even when nobody waits any more

    def close(self) -> None:
        """Do not wait for threads whose name server is silent."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return how servers are verified: by ``ca_file`` alone, or by the system's certificate authorities.

    Not `ssl.create_default_context`, which writes session keys to the file that ``SSLKEYLOGFILE`` names.

    Raises:
        TlsFilesError: the file is missing or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and the name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # `ssl.SSLError` is one
            raise TlsFilesError(f"expected certificates of authorities in {ca_file}, got: {error}") from None
    return context


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connector:
    """Opens connections to origins, within what `Destinations` allows."""

    def __init__(self, *, destinations: Destinations, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self._destinations = destinations
        self._resolver = resolver
        self._tls = tls

    async def open(self, origin: Origin) -> Streams:
        """Return a connection to ``origin`` whose peer is verified; the caller bounds the time and closes it.

        Raises:
            HostRefusal: ``denied`` for an address that is not allowed, ``failed`` when there is no connection.
        """
        self._destinations.require_origin(origin)
        addresses = await self._addresses(origin)
        self._destinations.require(origin, addresses)
        plain = await self._connect_first(origin, addresses[:ATTEMPTS_MAX])
        try:
            return await asyncio.open_connection(
                sock=plain,
                limit=_STREAM_BYTES,
                ssl=self._tls if origin.is_tls else None,
                server_hostname=origin.host if origin.is_tls else None,
            )
        except ssl.SSLError as error:
            plain.close()
            reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
            raise HostRefusal(ErrorKind.FAILED, f"TLS with {origin}: {reason}") from None
        except OSError:
            plain.close()
            raise HostRefusal(ErrorKind.FAILED, f"{origin} closed the connection") from None
        except BaseException:
            plain.close()
            raise

    async def _addresses(self, origin: Origin) -> Sequence[IpAddress]:
        pinned = self._destinations.pinned(origin)
        if pinned is not None:
            return pinned
        # Names on the operator's list may be short, or stand in /etc/hosts; all others are absolute, so that a search
        # list (in Kubernetes it comes first) cannot put a name of somebody else's in their place.
        name = origin.host if origin in self._destinations.private else f"{origin.host}."
        try:
            addresses = [unwrapped(address) for address in await self._resolver.resolve(name)]
        except (OSError, UnicodeError):
            raise HostRefusal(ErrorKind.FAILED, f"{origin} has no address") from None
        if not 0 < len(addresses) <= ADDRESSES_MAX:
            raise HostRefusal(ErrorKind.FAILED, f"expected 1 to {ADDRESSES_MAX} addresses of {origin}")
        return addresses

    async def _connect_first(self, origin: Origin, addresses: Sequence[IpAddress]) -> socket.socket:
        for number, address in enumerate(addresses, start=1):
            connection = await self._connect(origin, address, is_last=number == len(addresses))
            if connection is not None:
                return connection
        raise HostRefusal(ErrorKind.FAILED, f"no connection to {origin}")

    async def _connect(self, origin: Origin, address: IpAddress, *, is_last: bool) -> socket.socket | None:
        """Return a connected socket, None when this address does not answer.

        Raises:
            HostRefusal: the socket's peer is not what was asked for, or is this very host.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:  # no descriptor is left, or this host has no IPv6
            return None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(None if is_last else ATTEMPT_S):
                await asyncio.get_running_loop().sock_connect(connection, (str(address), origin.port))
            self._require_peer(origin, address, connection)
        except (OSError, TimeoutError):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_peer(self, origin: Origin, address: IpAddress, connection: socket.socket) -> None:
        """Look again: at the address the kernel connected to, and whether that is an address of this host itself.

        A public address of the node is globally routable, and what listens there often trusts it.
        """
        peer = unwrapped(ip_address(connection.getpeername()[0]))
        if peer != address:
            raise HostRefusal(ErrorKind.DENIED, f"{origin} is not where it was resolved to")
        self._destinations.require(origin, [peer])
        own = unwrapped(ip_address(connection.getsockname()[0]))
        if own == peer and origin not in self._destinations.private:
            raise HostRefusal(ErrorKind.DENIED, f"{origin} is this node")
