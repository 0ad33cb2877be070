import json
from dataclasses import replace

import pytest

from templates.canonical import canonical_bytes
from templates.charter import (
    Ceiling,
    Charter,
    CharterInvalidError,
    Domain,
    Mode,
    SecretBinding,
    read_charter,
    read_secret_bindings,
)
from templates.grants import Grants
from templates.keys import KeyIdMismatchError, KeyRefusedError
from templates.limits import DEFAULT_LIMITS
from templates.names import TemplateName, TemplatePattern, Version
from templates.revocations import Revocations
from tests.trust_world import charter, persons, signer

DIGEST = "a" * 64
BINDING: dict[str, object] = {
    "origin": "https://a.example",
    "header": "X-Key",
    "path_prefixes": [],
    "methods": [],
    "templates": ["docs/*"],
}
CEILING = Ceiling(grants=Grants(), limits=DEFAULT_LIMITS)


def full() -> Charter:
    return charter(
        floors={TemplateName.parse("docs/summariser"): Version.parse("1.2.0")},
        revocations=Revocations(templates=frozenset({DIGEST}), reviewers=frozenset({"zoe"})),
        lifted=Revocations(modules=frozenset({"b" * 64}), nodes=frozenset({"n9"})),
        secret_bindings={
            "crossref-token": SecretBinding(
                origin="https://api.crossref.org",
                header="Authorization",
                path_prefixes=("/works",),
                methods=("GET",),
                templates=(TemplatePattern.parse("docs/*"),),
            )
        },
    )


def test_a_charter_reads_back_as_it_was_written() -> None:
    assert read_charter(full().to_bytes()) == full()


def test_a_key_leads_to_its_person() -> None:
    assert charter().person_of(signer("bob").public_key.keyid) == "bob"
    assert charter().person_of("0" * 64) is None


CONTRADICTIONS: dict[str, tuple[dict[str, object], str]] = {
    "a reviewer who is no person": (
        {"domains": {"docs": Domain(reviewers=frozenset({"zoe"}), threshold=1)}},
        "zoe",
    ),
    "a threshold out of reach": (
        {"domains": {"docs": Domain(reviewers=frozenset({"alice"}), threshold=2)}},
        "threshold of docs that 1 can reach, got 2",
    ),
    "a ceiling without its threshold": (
        {"domains": {"docs": Domain(reviewers=frozenset({"alice"}), threshold=1, ceiling=CEILING)}},
        "threshold_above_ceiling",
    ),
    "a threshold above the ceiling without one": (
        {"domains": {"docs": Domain(reviewers=frozenset({"alice"}), threshold=1, threshold_above_ceiling=1)}},
        "ceiling",
    ),
    "a lower threshold above the ceiling": (
        {
            "domains": {
                "docs": Domain(
                    reviewers=frozenset({"alice", "bob"}), threshold=2, ceiling=CEILING, threshold_above_ceiling=1
                )
            }
        },
        "between 2 and 2, got 1",
    ),
    "self-review in production": (
        {"domains": {"docs": Domain(reviewers=frozenset({"alice"}), threshold=1, self_review=True)}},
        "only in mode development",
    ),
    "a key of two persons": ({"persons": persons(bob=["alice"])}, "alice, bob"),
    "less patience than a lease": ({"staleness_s_max": 3599}, "staleness_s_max"),
    "revoked and lifted at once": (
        {
            "revocations": Revocations(nodes=frozenset({"n1"})),
            "lifted": Revocations(nodes=frozenset({"n1"})),
        },
        "n1 revoked or lifted, got both",
    ),
    "a domain outside the grammar": (
        {"domains": {"D": Domain(reviewers=frozenset({"alice"}), threshold=1)}},
        "/domains",
    ),
    "no lease at all": ({"lease_s_max": 0}, "/lease_s_max"),
    "a threshold of zero": (
        {"domains": {"docs": Domain(reviewers=frozenset({"alice"}), threshold=0)}},
        "/domains/docs/threshold",
    ),
    "a person without keys": ({"persons": persons(alice=[])}, "/persons/alice/keys"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_charter_that_contradicts_itself_is_refused_by_writer_and_reader(name: str) -> None:
    changes, message = CONTRADICTIONS[name]
    wrong = charter(**changes)
    with pytest.raises(CharterInvalidError, match=message):
        wrong.to_bytes()
    with pytest.raises(CharterInvalidError, match=message):
        read_charter(canonical_bytes(wrong.to_json()))


def test_every_contradiction_is_reported_at_once() -> None:
    wrong = charter(
        staleness_s_max=1,
        domains={
            "docs": Domain(reviewers=frozenset({"zoe"}), threshold=2),
            "images": Domain(reviewers=frozenset({"alice"}), threshold=1, self_review=True),
        },
    )
    with pytest.raises(CharterInvalidError, match="got 4 problem"):
        wrong.to_bytes()


def test_what_is_just_consistent_is_in_order() -> None:
    tight = Domain(reviewers=frozenset({"alice", "bob"}), threshold=2, ceiling=CEILING, threshold_above_ceiling=2)
    edge = charter(staleness_s_max=3600, domains={"docs": tight})
    assert read_charter(edge.to_bytes()) == edge


def test_a_one_person_development_charter_is_in_order() -> None:
    alone = charter(
        mode=Mode.DEVELOPMENT, domains={"dev": Domain(reviewers=frozenset({"alice"}), threshold=1, self_review=True)}
    )
    assert read_charter(alone.to_bytes()).domains["dev"].self_review


def _edited(**changes: object) -> bytes:
    value = json.loads(full().to_bytes())
    value.update(changes)
    return canonical_bytes({name: member for name, member in value.items() if member is not ...})


UNREADABLE = {
    "not JSON": b"{",
    "nothing": b"",
    "an array": b"[]",
    "white space": full().to_bytes() + b"\n",
    "keys out of order": json.dumps(json.loads(full().to_bytes())).encode(),
    "a duplicate key": full()
    .to_bytes()
    .replace(b'{"approval_days_max":365', b'{"approval_days_max":365,"approval_days_max":365'),
    "an unknown field": _edited(more=1),
    "a missing field": _edited(lifted=...),
    "another schema": _edited(schema=2),
    "another mode": _edited(mode="test"),
    "a text for a number": _edited(lease_s_max="60"),
    "a bad floor": _edited(floors={"docs/summariser": "latest"}),
    "a floor of a bad name": _edited(floors={"docs": "1.0.0"}),
    "a bad pattern": _edited(secret_bindings={"a": {**BINDING, "templates": ["*/x"]}}),
    "a secret without its header": _edited(
        secret_bindings={"a": {name: value for name, value in BINDING.items() if name != "header"}}
    ),
    "a secret for no origin": _edited(secret_bindings={"a": {**BINDING, "origin": "*"}}),
    "a secret for a path": _edited(secret_bindings={"a": {**BINDING, "origin": "https://a.example/x"}}),
    "a digest in capitals": _edited(revocations={"templates": ["A" * 64], "modules": [], "reviewers": [], "nodes": []}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bytes_that_are_no_canonical_charter_are_refused(name: str) -> None:
    with pytest.raises(CharterInvalidError, match="expected"):
        read_charter(UNREADABLE[name])


def test_a_key_under_another_identifier_is_refused() -> None:
    value = json.loads(charter().to_bytes())
    value["persons"]["alice"]["keys"] = {"0" * 64: next(iter(value["persons"]["alice"]["keys"].values()))}
    with pytest.raises(KeyIdMismatchError):
        read_charter(canonical_bytes(value))


def test_a_key_of_another_kind_is_refused() -> None:
    value = json.loads(charter().to_bytes())
    for key in value["persons"]["alice"]["keys"].values():
        key["scheme"] = "ecdsa-sha2-nistp256"
    with pytest.raises(KeyRefusedError):
        read_charter(canonical_bytes(value))


def test_revocations_are_a_set_that_grows_and_is_lifted_member_by_member() -> None:
    first = Revocations(templates=frozenset({"a"}), nodes=frozenset({"n"}))
    second = Revocations(templates=frozenset({"b"}))
    both = first.union(second)
    assert both == Revocations(templates=frozenset({"a", "b"}), nodes=frozenset({"n"}))
    assert both.without(first) == second
    assert replace(both, nodes=frozenset()).both(first) == Revocations(templates=frozenset({"a"}))


def test_bindings_of_secrets_can_be_read_before_there_is_a_charter() -> None:
    value = json.loads(full().to_bytes())["secret_bindings"]
    assert read_secret_bindings(value) == full().secret_bindings
    assert read_secret_bindings({}) == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a", {"origin": "api.example"}),
        ("a", {"header": "X Key"}),
        ("a", {"methods": ["get"]}),
        ("a", {"templates": ["docs"]}),
        ("a", {"more": 1}),
        ("a/b", {}),
    ],
)
def test_bindings_that_a_charter_would_not_hold_are_refused(name: str, changes: dict[str, object]) -> None:
    with pytest.raises(CharterInvalidError):
        read_secret_bindings({name: {**BINDING, **changes}})  # type: ignore[dict-item]
