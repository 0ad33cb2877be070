"""A person's token: JWS compact (RFC 7515), claims of RFC 7519, verified by `joserfc`. Pure: `now` is an argument.

Steps, numbered as in ADR 20: (1) length, (2) header: an algorithm of the allow-list, a key id, nothing unknown, (3) the
issuer's key of that id, of the kind that the algorithm takes, (4) signature, (5) issuer, audience, times, (6) a person.
A failed step says which; nothing of the token's content is repeated to its sender but its claims' names.
"""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey, import_key

from service.identity import Identity, InvalidIdentityError
from service.peer import Peer, UnauthenticatedError
from templates.reasons import Reason

TOKEN_BYTES_MAX: Final = 8192
HEADER_BYTES_MAX: Final = 1024
KEYS_MAX: Final = 64
KEY_ID_CHARACTERS_MAX: Final = 256
GROUPS_MAX: Final = 256
RSA_BITS: Final = range(2048, 8193)
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)

ALGORITHMS: Final = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
        "ES256": "P-256",
        "ES384": "P-384",
        "ES512": "P-521",
        "Ed25519": "Ed25519",
        "EdDSA": "Ed25519",
    }
)
"""What may be allowed, with the kind of key that each takes. Nothing symmetric, and not ``none``."""

Key = RSAKey | ECKey | OKPKey


class TokenRefusedError(UnauthenticatedError):
    """The token does not prove who sends it."""

    reason = Reason.TOKEN_REFUSED


class UnknownKeyError(TokenRefusedError):
    """The issuer has no such key, as far as this server knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What is demanded of every token. Times in seconds."""

    issuer: str
    audience: str
    trust_domain: str
    algorithms: tuple[str, ...]
    person_claim: str = "sub"
    groups_claim: str = "groups"
    skew_s: int = 30
    lifetime_s_max: int = 86_400

    def __post_init__(self) -> None:
        # An empty list would mean "what the library recommends", which is symmetric as well.
        if not self.algorithms or not set(self.algorithms) <= ALGORITHMS.keys():
            raise ValueError(f"expected algorithms of {', '.join(ALGORITHMS)}")


IssuerKeys = Mapping[str, Key]
"""Public keys by key id."""


def read_keys(data: bytes) -> IssuerKeys:
    """Read a JWK Set (RFC 7517): public keys for signatures that have an id. What else is in it is left out.

    Raises:
        ValueError: not a JWK Set, or too many keys.
    """
    value: Any = json.loads(data)
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise ValueError(f"expected a JWK Set of at most {KEYS_MAX} keys")
    found: dict[str, Key] = {}
    twice: set[str] = set()
    for each in keys:
        key = _read_key(each)
        if key is not None and key.kid is not None:
            twice |= {key.kid} & found.keys()
            found[key.kid] = key
    # Two keys of one id: nobody can say which is meant.
    return MappingProxyType({kid: key for kid, key in found.items() if kid not in twice})


def _read_key(value: Any) -> Key | None:
    if not isinstance(value, dict) or not isinstance(value.get("kid"), str) or value.get("use", "sig") != "sig":
        return None
    if not 0 < len(value["kid"]) <= KEY_ID_CHARACTERS_MAX or value.get("kty") not in {"RSA", "EC", "OKP"}:
        return None
    if "d" in value:  # a private key in public is nobody's proof any more
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the library warns of weak keys
            key = import_key(value)
            kind = key_kind(key) if isinstance(key, RSAKey | ECKey | OKPKey) else ""
    except (JoseError, ValueError, TypeError, KeyError, Warning):
        return None
    return key if kind in set(ALGORITHMS.values()) and isinstance(key, RSAKey | ECKey | OKPKey) else None


def key_kind(key: Key) -> str:
    """Return "RSA" or the name of a curve; "" for an RSA key of a length that is not allowed."""
    if isinstance(key, RSAKey):
        return "RSA" if key.raw_value.key_size in RSA_BITS else ""
    return str(key.as_dict(private=False)["crv"])


def key_id_of(token: str, rules: TokenRules) -> str:
    """Do steps 1 and 2, and return the id of the key that is to be looked up.

    Raises:
        TokenRefusedError: too long, not a JWS, a refused algorithm, no key id.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenRefusedError(f"expected a token of at most {TOKEN_BYTES_MAX} bytes, got {len(token)}")
    if not _FORM.fullmatch(token):
        raise TokenRefusedError("expected a signed JWT, got another text")
    try:
        header = jws.extract_compact(token.encode(), registry=_registry(rules)).headers()
    except (JoseError, ValueError) as error:
        raise TokenRefusedError("expected a signed JWT, got one whose parts cannot be read") from error
    if header.get("alg") not in rules.algorithms:
        raise TokenRefusedError(f"expected an algorithm of {', '.join(rules.algorithms)}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= KEY_ID_CHARACTERS_MAX:
        raise TokenRefusedError("expected the id of a key in the token's header")
    return kid


def verify(token: str, key: Key, rules: TokenRules, *, now: float) -> Peer:
    """Do steps 3 to 6 and return who sent the token, until when.

    Raises:
        TokenRefusedError: with the step that failed.
    """
    algorithm = jws.extract_compact(token.encode(), registry=_registry(rules)).headers()["alg"]
    if ALGORITHMS.get(algorithm) != key_kind(key) or key.get("alg", algorithm) != algorithm:
        raise TokenRefusedError(f"expected the algorithm of the issuer's key, got {algorithm}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that EdDSA is called Ed25519 by now
            claims = jwt.decode(
                token, KeySet([key]), algorithms=list(rules.algorithms), registry=_registry(rules)
            ).claims
    except (JoseError, ValueError, RecursionError) as error:
        raise TokenRefusedError("expected a signature by the issuer's key") from error
    _check_claims(claims, rules, now=now)
    return Peer(
        identity=_person(claims, rules),
        valid_until=float(claims["exp"]) + rules.skew_s,
        groups=_groups(claims.get(rules.groups_claim, ())),
    )


def _registry(rules: TokenRules) -> jws.JWSRegistry:
    registry = jws.JWSRegistry(algorithms=list(rules.algorithms))
    registry.max_header_length = HEADER_BYTES_MAX
    return registry


def _check_claims(claims: Mapping[str, Any], rules: TokenRules, *, now: float) -> None:
    registry = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=rules.skew_s,
        iss={"essential": True, "value": rules.issuer},
        aud={"essential": True, "value": rules.audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(dict(claims))
    except ClaimError as error:
        raise TokenRefusedError(f"expected another claim {error.claim}: {error.description or error.error}") from error
    if claims["exp"] > now + rules.lifetime_s_max + rules.skew_s:
        raise TokenRefusedError(f"expected a token that ends within {rules.lifetime_s_max} s, got a longer life")


def _person(claims: Mapping[str, Any], rules: TokenRules) -> Identity:
    name = claims.get(rules.person_claim)
    try:
        return Identity.person(rules.trust_domain, name if isinstance(name, str) else "")
    except InvalidIdentityError as error:
        raise TokenRefusedError(
            f"expected a person's name (1 to 64 of a-z 0-9 . _ -) as the claim {rules.person_claim}"
        ) from error


def _groups(value: Any) -> frozenset[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return frozenset()
    return frozenset(each for each in value[:GROUPS_MAX] if isinstance(each, str) and each)
