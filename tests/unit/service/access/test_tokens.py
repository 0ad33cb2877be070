"""Which tokens prove a person: the attacks of RFC 8725 and the ordinary mistakes."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, RSAKey

from service.access.tokens import (
    TOKEN_BYTES_MAX,
    TokenRefusedError,
    TokenRules,
    UnknownKeyError,
    key_id_of,
    read_keys,
    verify,
)
from service.identity import Identity
from service.peer import Peer
from tests.issuer import AUDIENCE, Issuer, base64url, by_hand

NOW = 1_900_000_000.0
RULES = TokenRules(
    issuer="https://issuer.test", audience=AUDIENCE, trust_domain="factory.test", algorithms=("RS256", "ES256")
)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    made = Issuer()
    made.rotate("one")
    return made


def judge(issuer: Issuer, token: str, rules: TokenRules = RULES) -> Peer:
    key = read_keys(issuer.jwks()).get(key_id_of(token, rules))
    if key is None:
        raise UnknownKeyError("unknown")
    return verify(token, key, rules, now=NOW)


def test_a_good_token_is_its_person_until_it_ends(issuer: Issuer) -> None:
    peer = judge(issuer, issuer.token(now=NOW, groups=["platform", 7, ""]))
    assert peer.identity == Identity.person("factory.test", "alice")
    assert peer.valid_until == NOW + 600 + RULES.skew_s
    assert peer.groups == {"platform"}
    assert peer.serial == ""


@pytest.mark.parametrize(("algorithm", "kind"), [("ES256", "EC"), ("PS256", "RSA"), ("Ed25519", "OKP")])
def test_every_allowed_algorithm_works_with_its_kind_of_key(algorithm: str, kind: str) -> None:
    made = Issuer()
    made.rotate("k", kind=kind)
    rules = TokenRules(
        issuer=made.url, audience=AUDIENCE, trust_domain="factory.test", algorithms=("ES256", "PS256", "Ed25519")
    )
    assert judge(made, made.token(now=NOW, algorithm=algorithm), rules).identity.name == "alice"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_without_a_signature_nothing_is_proved(issuer: Issuer, algorithm: str) -> None:
    for signature in (b"", b"x"):
        with pytest.raises(TokenRefusedError):
            judge(issuer, by_hand({"alg": algorithm, "kid": "one"}, issuer.claims(now=NOW), signature))


@pytest.mark.parametrize("form", ["pem", "json", "der"])
def test_the_public_key_is_no_shared_secret(issuer: Issuer, form: str) -> None:
    """HS/RS confusion: an HMAC over what everybody knows."""
    key = issuer.keys["one"]
    assert isinstance(key, RSAKey)
    secret = {
        "pem": key.as_pem(private=False),
        "der": key.as_der(private=False),
        "json": json.dumps(key.as_dict(private=False)).encode(),
    }[form]
    head = base64url(json.dumps({"alg": "HS256", "kid": "one"}).encode())
    signed = head + b"." + base64url(json.dumps(issuer.claims(now=NOW)).encode())
    token = signed + b"." + base64url(hmac.new(secret, signed, hashlib.sha256).digest())
    with pytest.raises(TokenRefusedError, match="algorithm"):
        judge(issuer, token.decode())


def test_an_algorithm_that_is_known_and_not_allowed_is_refused(issuer: Issuer) -> None:
    with pytest.raises(TokenRefusedError, match="algorithm"):
        judge(issuer, issuer.token(now=NOW, algorithm="RS512"))


def test_an_algorithm_for_another_kind_of_key_is_refused(issuer: Issuer) -> None:
    with pytest.raises(TokenRefusedError):
        judge(issuer, by_hand({"alg": "ES256", "kid": "one"}, issuer.claims(now=NOW), bytes(64)))


def test_a_key_that_the_token_brings_along_is_not_believed(issuer: Issuer) -> None:
    own = RSAKey.generate_key(2048, {"kid": "one"})
    for header in ({}, {"jwk": own.as_dict(private=False)}, {"jku": "https://evil.test/keys"}):
        with pytest.raises(TokenRefusedError):
            judge(issuer, issuer.token(now=NOW, key=own, header=header))


def test_a_critical_extension_that_nobody_understands_is_refused(issuer: Issuer) -> None:
    header = {"alg": "RS256", "kid": "one", "crit": ["own"], "own": True}
    with pytest.raises(TokenRefusedError):
        judge(issuer, by_hand(header, issuer.claims(now=NOW), b"x" * 256))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.test"},
        {"iss": RULES.issuer + "/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": []},
        {"aud": None},
        {"aud": {"agentfactory": True}},
        {"exp": int(NOW) - 31},
        {"exp": None},
        {"exp": "2099-01-01"},
        {"exp": True},
        {"exp": int(NOW) + 86_431},
        {"exp": 10**400},
        {"nbf": int(NOW) + 31},
        {"nbf": "soon"},
        {"iat": int(NOW) + 31},
        {"sub": None},
        {"sub": ""},
        {"sub": "Alice Doe"},
        {"sub": "../alice"},
        {"sub": "alice\n"},
        {"sub": 7},
        {"sub": "a" * 65},
    ],
    ids=str,
)
def test_claims_that_are_not_ours_are_refused(issuer: Issuer, changes: dict[str, Any]) -> None:
    with pytest.raises(TokenRefusedError):
        judge(issuer, issuer.token(now=NOW, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"exp": int(NOW) - 29}, {"nbf": int(NOW) + 29}, {"iat": int(NOW) + 29}, {"aud": ["other", AUDIENCE]}],
    ids=str,
)
def test_a_clock_may_be_a_little_wrong_and_an_audience_one_of_several(issuer: Issuer, changes: dict[str, Any]) -> None:
    assert judge(issuer, issuer.token(now=NOW, **changes)).identity.name == "alice"


def test_a_person_may_be_named_by_another_claim(issuer: Issuer) -> None:
    rules = TokenRules(
        issuer=issuer.url,
        audience=AUDIENCE,
        trust_domain="factory.test",
        algorithms=("RS256",),
        person_claim="preferred_username",
    )
    token = issuer.token("0b7c-4711", now=NOW, preferred_username="bob")
    assert judge(issuer, token, rules).identity.name == "bob"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "é.b.c",
        " a.b.c",
        "....",
        "e30.e30.",
        "bnVsbA.e30.e30",
        "W10.e30.e30",
        "IjEi.e30.e30",
        by_hand({"alg": "RS256"}, {}, b"x"),
        by_hand({"alg": "RS256", "kid": 7}, {}, b"x"),
        by_hand({"alg": "RS256", "kid": ""}, {}, b"x"),
        by_hand({"alg": ["RS256"], "kid": "one"}, {}, b"x"),
        by_hand({"alg": "RS256", "kid": "one", "pad": "x" * 2000}, {}, b"x"),
        by_hand({"alg": "RS256", "kid": "one", "b64": False, "crit": ["b64"]}, {}, b"x"),
        "[" * 3000 + ".e30.e30",
    ],
)
def test_what_is_no_token_is_refused_in_one_way(issuer: Issuer, token: str) -> None:
    with pytest.raises(TokenRefusedError):
        judge(issuer, token)


def test_a_huge_token_is_refused_before_it_is_read(issuer: Issuer) -> None:
    token = issuer.token(now=NOW, padding="x" * TOKEN_BYTES_MAX)
    with pytest.raises(TokenRefusedError, match="bytes"):
        key_id_of(token, RULES)


def test_one_changed_byte_anywhere_is_refused(issuer: Issuer) -> None:
    token = issuer.token(now=NOW)
    for place in range(0, len(token) - 4, 7):
        if token[place] == ".":
            continue
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(TokenRefusedError):
            judge(issuer, changed)


def test_rules_without_algorithms_cannot_be_made() -> None:
    """To the library, none named means its recommendation, which includes HS256."""
    for algorithms in ((), ("HS256",), ("RS256", "none")):
        with pytest.raises(ValueError, match="algorithms"):
            TokenRules(issuer="https://i.test", audience="a", trust_domain="t", algorithms=algorithms)


class TestKeySets:
    def test_only_public_signature_keys_with_an_id_are_taken(self, issuer: Issuer) -> None:
        good = issuer.keys["one"].as_dict(private=False)
        with pytest.warns(SecurityWarning):
            small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
        others = [
            {**good, "kid": None},
            {**good, "kid": "for encryption", "use": "enc"},
            {**good, "kid": "broken", "n": "!"},
            {**good, "kid": "x" * 257},
            RSAKey.generate_key(2048, {"kid": "private"}).as_dict(private=True),
            OctKey.generate_key(256, {"kid": "shared"}).as_dict(private=True),
            {"kty": "AKP", "kid": "of the future"},
            small,
            7,
        ]
        assert set(read_keys(json.dumps({"keys": [good, *others]}).encode())) == {"one"}

    def test_two_keys_of_one_id_are_nobodys(self, issuer: Issuer) -> None:
        other = Issuer()
        other.rotate("one")
        keys = [each.keys["one"].as_dict(private=False) for each in (issuer, other)]
        assert not read_keys(json.dumps({"keys": keys}).encode())

    @pytest.mark.parametrize("data", [b"", b"[]", b'{"keys": {}}', b"{", json.dumps({"keys": [{}] * 65}).encode()])
    def test_what_is_no_key_set_is_an_error(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            read_keys(data)
