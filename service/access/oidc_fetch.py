"""Fetch an issuer's keys over HTTPS: discovery (OpenID Connect Discovery 1.0, section 4), then its JWK Set.

No redirects, no proxies, bounded bytes and time. Plain HTTP only to loopback, for development and tests.
"""

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from service.access.issuer_keys import IssuerFetchError

BYTES_MAX: Final = 262_144
TIMEOUT_S: Final = 5.0
TOTAL_S: Final = 10.0
DISCOVERY: Final = "/.well-known/openid-configuration"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


def issuer_problem(url: str) -> str:
    """Return why ``url`` cannot be an issuer or the place of its keys; "" when it can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 -- raises for what is no port
    except ValueError:
        return "expected a URL"
    if parts.query or parts.fragment or parts.username or parts.password or not host:
        return "expected https://host/path without user, query and fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return ""
    return "expected https:// (http:// on loopback only)"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OidcFetch:
    """Call it to fetch the bytes of the JWK Set."""

    def __init__(self, issuer: str, *, authorities: Path | None = None) -> None:
        """``authorities`` sign the issuer's certificate, PEM; None: those of the system."""
        self._issuer = issuer
        context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirects(), urllib.request.HTTPSHandler(context=context)
        )

    async def __call__(self) -> bytes:
        """Raise `IssuerFetchError` when it does not answer in time, or with something else."""
        try:
            async with asyncio.timeout(TOTAL_S):
                return await asyncio.to_thread(self._fetch)
        except TimeoutError:
            raise IssuerFetchError(f"expected the issuer's keys within {TOTAL_S:g} s") from None

    def _fetch(self) -> bytes:
        document: Any = json.loads(self._get(self._issuer.rstrip("/") + DISCOVERY))
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise IssuerFetchError(f"expected the discovery document of {self._issuer}, got another issuer's")
        place = document.get("jwks_uri")
        problem = issuer_problem(place) if isinstance(place, str) else "expected a jwks_uri"
        if problem or not isinstance(place, str):
            raise IssuerFetchError(f"discovery of {self._issuer}: {problem}")
        return self._get(place)

    def _get(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 -- see issuer_problem
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                data: bytes = answer.read(BYTES_MAX + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise IssuerFetchError(f"{url}: {error}") from error
        if len(data) > BYTES_MAX:
            raise IssuerFetchError(f"{url}: expected at most {BYTES_MAX} bytes")
        return data
