"""The charter: the offline-signed document that says who may approve what, and bounds everything that is signed online."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from securesystemslib.signer import SSlibKey

from templates.canonical import JsonObject
from templates.grants import Grants
from templates.limits import Limits
from templates.names import TemplateName, TemplatePattern, Version
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import NO_REVOCATIONS, Revocations

CHARTER_BYTES_MAX = 1_048_576


class CharterInvalidError(AgentFactoryError):
    """Bytes are not a charter, or one that contradicts itself."""

    reason = Reason.CHARTER_INVALID


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
    """Where the broker may send one secret, and for which templates."""

    origin: str
    path_prefixes: tuple[str, ...]
    methods: tuple[str, ...]
    templates: tuple[TemplatePattern, ...]


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
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes that `read_charter` reads.

        Raises:
            CharterInvalidError: this charter contradicts itself; the message lists every contradiction.
        """
        raise NotImplementedError


def read_charter(data: bytes) -> Charter:
    """Read charter.json: strict, canonical, consistent (thresholds that can be reached, keys of one person only …).

    Raises:
        CharterInvalidError: with every problem found.
        KeyRefusedError, KeyIdMismatchError: a person's key is not allowed.
    """
    raise NotImplementedError
