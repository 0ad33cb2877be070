"""A local issuer of tokens: keys, and a real HTTP server on loopback with discovery and a JWK Set."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeyParameters, OctKey, OKPKey, RSAKey

AUDIENCE = "agentfactory"


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token that no library would make."""
    parts = (base64url(json.dumps(header).encode()), base64url(json.dumps(claims).encode()), base64url(signature))
    return b".".join(parts).decode()


@dataclass
class Issuer:
    """``keys`` are published; ``signing`` is the one that signs."""

    url: str = "https://issuer.test"
    keys: dict[str, Key] = field(default_factory=dict)
    signing: str = ""
    requests: list[str] = field(default_factory=list)
    broken: bool = False
    discovered: str | None = None

    def rotate(self, kid: str, *, keep: bool = True, kind: str = "RSA") -> None:
        """Sign with a new key; the earlier ones stay published or not."""
        parameters: KeyParameters = {"kid": kid, "use": "sig"}
        made: Key
        match kind:
            case "RSA":
                made = RSAKey.generate_key(2048, parameters)
            case "EC":
                made = ECKey.generate_key("P-256", parameters)
            case _:
                made = OKPKey.generate_key("Ed25519", parameters)
        self.keys = {**(self.keys if keep else {}), kid: made}
        self.signing = kid

    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}).encode()

    def claims(self, person: str = "alice", *, now: float | None = None, **changes: Any) -> dict[str, Any]:
        now = time.time() if now is None else now
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": person,
            "iat": int(now),
            "exp": int(now) + 600,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        person: str = "alice",
        *,
        now: float | None = None,
        algorithm: str = "RS256",
        header: dict[str, Any] | None = None,
        key: Key | OctKey | None = None,
        **changes: Any,
    ) -> str:
        fields = {"alg": algorithm, "kid": self.signing, **(header or {})}
        signed = self.keys[self.signing] if key is None else key
        found: str = jwt.encode(fields, self.claims(person, now=now, **changes), signed, algorithms=[algorithm])
        return found

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on loopback; the issuer's URL becomes that of the server."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                answers = {
                    "/.well-known/openid-configuration": json.dumps(
                        {"issuer": issuer.discovered or issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                    ).encode(),
                    "/keys": issuer.jwks(),
                }
                content = answers.get(self.path)
                if issuer.broken or content is None:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the signature is the library's
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)
