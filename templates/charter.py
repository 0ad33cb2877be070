"""The charter: the offline-signed document that says who may approve what, and bounds everything signed online."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from securesystemslib.signer import SSlibKey

from templates.canonical import JsonObject, canonical_bytes
from templates.grants import Grants
from templates.keys import key_json, read_key
from templates.limits import Limits
from templates.names import InvalidNameError, TemplateName, TemplatePattern, Version
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import KINDS, NO_REVOCATIONS, Revocations
from templates.signed_document import SignedDocument

CHARTER_BYTES_MAX = 1_048_576
UNBOUND = "the charter does not bind it"


class CharterInvalidError(AgentFactoryError):
    """Bytes are not a charter, or one that contradicts itself."""

    reason = Reason.CHARTER_INVALID


_DOCUMENT = SignedDocument("charter", bytes_max=CHARTER_BYTES_MAX, error=CharterInvalidError)


class Mode(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Up to here the domain's ordinary threshold is enough; in ``grants``, ``*`` stands for any name."""

    grants: Grants
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Who reviews the templates of one domain. Without a ceiling nothing exceeds it."""

    reviewers: frozenset[str]
    threshold: int
    self_review: bool = False
    ceiling: Ceiling | None = None
    threshold_above_ceiling: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretBinding:
    """Where the broker may send one secret, in which header, and for which templates."""

    origin: str
    header: str
    path_prefixes: tuple[str, ...]
    methods: tuple[str, ...]
    templates: tuple[TemplatePattern, ...]

    def refusal(self, *, template: TemplateName, origin: str, header: str) -> str:
        """Return why this binding does not cover what a grant of ``template`` wants, whatever it requests; or ""."""
        if not any(pattern.matches(template) for pattern in self.templates):
            return f"the charter does not bind it for {template}"
        if self.origin != origin:
            return "the charter binds it to another origin"
        if self.header.lower() != header.lower():
            return "the charter binds it to another header"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """``version`` equals the version of the ``targets`` metadata that lists it. Keys are by key id, per person."""

    environment: str
    mode: Mode
    version: int
    persons: Mapping[str, Mapping[str, SSlibKey]]
    domains: Mapping[str, Domain]
    approval_days_max: int
    lease_s_max: int
    staleness_s_max: int
    floors: Mapping[TemplateName, Version] = field(default_factory=dict)
    revocations: Revocations = NO_REVOCATIONS
    lifted: Revocations = NO_REVOCATIONS
    secret_bindings: Mapping[str, SecretBinding] = field(default_factory=dict)

    def person_of(self, keyid: str) -> str | None:
        """Return the person whose key this is; a key belongs to one person only."""
        return next((person for person, keys in self.persons.items() if keyid in keys), None)

    def unbound_secrets(self, template: TemplateName, grants: Grants) -> tuple[str, ...]:
        """Return a sentence for each injection that nodes will refuse at every call under this charter."""
        found = []
        for grant in grants.http:
            if grant.inject is None:
                continue
            binding = self.secret_bindings.get(grant.inject.secret)
            if binding is None:
                why = UNBOUND
            else:
                why = binding.refusal(template=template, origin=grant.origin, header=grant.inject.header)
            if why:
                found.append(f"{grant.binding}: the secret {grant.inject.secret} will not be sent: {why}")
        return tuple(found)

    def to_json(self) -> JsonObject:
        return {
            "schema": 1,
            "environment": self.environment,
            "mode": str(self.mode),
            "version": self.version,
            "persons": {
                person: {"keys": {keyid: key_json(key) for keyid, key in keys.items()}}
                for person, keys in self.persons.items()
            },
            "domains": {name: _domain_json(domain) for name, domain in self.domains.items()},
            "approval_days_max": self.approval_days_max,
            "lease_s_max": self.lease_s_max,
            "staleness_s_max": self.staleness_s_max,
            "floors": {str(name): str(version) for name, version in self.floors.items()},
            "revocations": self.revocations.to_json(),
            "lifted": self.lifted.to_json(),
            "secret_bindings": {name: _binding_json(binding) for name, binding in self.secret_bindings.items()},
        }

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes that `read_charter` reads.

        Raises:
            CharterInvalidError: this charter contradicts itself; the message lists every contradiction.
        """
        value = _DOCUMENT.check(self.to_json())
        _DOCUMENT.refuse_if(list(self._contradictions()))
        return canonical_bytes(value)

    def _contradictions(self) -> Iterator[str]:
        owners = Counter(keyid for keys in self.persons.values() for keyid in keys)
        for keyid in (keyid for keyid, count in owners.items() if count > 1):
            persons = sorted(person for person, keys in self.persons.items() if keyid in keys)
            yield f"expected a key of one person, got key {keyid} of {', '.join(persons)}"
        for name, domain in self.domains.items():
            yield from self._domain_contradictions(name, domain)
        if self.staleness_s_max < self.lease_s_max:
            yield f"expected staleness_s_max ≥ lease_s_max ({self.lease_s_max}), got {self.staleness_s_max}"
        both = self.revocations.both(self.lifted)
        for kind in KINDS:
            for member in sorted(getattr(both, kind)):
                yield f"expected {member} revoked or lifted, got both ({kind})"

    def _domain_contradictions(self, name: str, domain: Domain) -> Iterator[str]:
        if strangers := sorted(domain.reviewers - self.persons.keys()):
            yield f"expected reviewers of {name} among the persons, got {', '.join(strangers)}"
        if domain.threshold > len(domain.reviewers):
            yield f"expected a threshold of {name} that {len(domain.reviewers)} can reach, got {domain.threshold}"
        above = domain.threshold_above_ceiling
        if above is not None and not domain.threshold <= above <= len(domain.reviewers):
            yield (
                f"expected a threshold_above_ceiling of {name} between {domain.threshold} and {len(domain.reviewers)}, "
                f"got {above}"
            )
        if domain.self_review and self.mode is Mode.PRODUCTION:
            yield f"expected self_review of {name} only in mode development, got it in mode production"


def read_secret_bindings(value: JsonObject) -> dict[str, SecretBinding]:
    """Read ``secret_bindings`` as they stand in a charter, for one that is about to be made.

    Raises:
        CharterInvalidError: with every problem found.
    """
    _DOCUMENT.check_member("secret_bindings", value)
    members: Mapping[str, Any] = value
    try:
        return {name: _read_binding(binding) for name, binding in members.items()}
    except InvalidNameError as error:
        raise CharterInvalidError(error.message) from None


def read_charter(data: bytes) -> Charter:
    """Read charter.json: strict, canonical, consistent (thresholds that can be reached, keys of one person only …).

    Raises:
        CharterInvalidError: with every problem found.
        KeyRefusedError, KeyIdMismatchError: a person's key is not allowed.
    """
    value: dict[str, Any] = _DOCUMENT.read(data)
    persons = {
        person: {keyid: read_key(keyid, key) for keyid, key in details["keys"].items()}
        for person, details in value["persons"].items()
    }
    try:
        charter = Charter(
            environment=value["environment"],
            mode=Mode(value["mode"]),
            version=value["version"],
            persons=persons,
            domains={name: _read_domain(domain) for name, domain in value["domains"].items()},
            approval_days_max=value["approval_days_max"],
            lease_s_max=value["lease_s_max"],
            staleness_s_max=value["staleness_s_max"],
            floors={TemplateName.parse(name): Version.parse(floor) for name, floor in value["floors"].items()},
            revocations=Revocations.from_json(value["revocations"]),
            lifted=Revocations.from_json(value["lifted"]),
            secret_bindings={name: _read_binding(binding) for name, binding in value["secret_bindings"].items()},
        )
    except InvalidNameError as error:
        raise CharterInvalidError(error.message) from None
    _DOCUMENT.refuse_if(list(charter._contradictions()))  # noqa: SLF001  (the reader belongs to the class)
    return charter


def _domain_json(domain: Domain) -> JsonObject:
    members: JsonObject = {
        "reviewers": [*sorted(domain.reviewers)],
        "threshold": domain.threshold,
        "self_review": domain.self_review,
    }
    if domain.ceiling is not None:
        members["ceiling"] = {
            "grants": domain.ceiling.grants.to_json(),
            "limits": dict(domain.ceiling.limits.to_json()),
        }
    if domain.threshold_above_ceiling is not None:
        members["threshold_above_ceiling"] = domain.threshold_above_ceiling
    return members


def _read_domain(value: Mapping[str, Any]) -> Domain:
    ceiling = value.get("ceiling")
    return Domain(
        reviewers=frozenset(value["reviewers"]),
        threshold=value["threshold"],
        self_review=value["self_review"],
        ceiling=None
        if ceiling is None
        else Ceiling(grants=Grants.from_json(ceiling["grants"]), limits=Limits(**ceiling["limits"])),
        threshold_above_ceiling=value.get("threshold_above_ceiling"),
    )


def _binding_json(binding: SecretBinding) -> JsonObject:
    return {
        "origin": binding.origin,
        "header": binding.header,
        "path_prefixes": list(binding.path_prefixes),
        "methods": list(binding.methods),
        "templates": [str(pattern) for pattern in binding.templates],
    }


def _read_binding(value: Mapping[str, Any]) -> SecretBinding:
    return SecretBinding(
        origin=value["origin"],
        header=value["header"],
        path_prefixes=tuple(value["path_prefixes"]),
        methods=tuple(value["methods"]),
        templates=tuple(TemplatePattern.parse(pattern) for pattern in value["templates"]),
    )
