"""The installations that agentctl makes unless told otherwise: the catalogue's domains, one author, two reviewers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from client.installation import CATALOG_DOMAINS, DomainSpec, InstallationSpec, InvalidInstallationError
from service.keystore import KeyKind
from templates.canonical import JsonObject
from templates.charter import Mode, read_secret_bindings
from templates.names import is_word
from templates.policies.policy_set import POLICIES_DOMAIN

AUTHOR: Final = "alice"
REVIEWERS: Final = ("bob", "carol")
SERVICE: Final = "default/cli"
_DOMAIN: Final = re.compile(r"(?P<name>[^=]+)=(?P<threshold>[0-9]+):(?P<reviewers>.+)")


def standard_domains(*, threshold: int) -> dict[str, DomainSpec]:
    """The catalogue's domains and the policies', reviewed by bob and carol, and ``dev``, where one may do all."""
    domains = {name: DomainSpec(reviewers=REVIEWERS, threshold=threshold) for name in CATALOG_DOMAINS}
    domains[POLICIES_DOMAIN] = DomainSpec(reviewers=REVIEWERS, threshold=threshold)
    domains["dev"] = DomainSpec(reviewers=(AUTHOR, *REVIEWERS), threshold=1, self_review=True)
    return domains


def development_spec(
    directory: Path,
    *,
    control_plane: str,
    nodes: Mapping[str, str],
    observation: Mapping[str, str],
    threshold: int = 2,
    key_kind: KeyKind = KeyKind.RSA,
    secret_bindings: JsonObject | None = None,
) -> InstallationSpec:
    """What `agentctl up` and `agentctl demo` make: a development root and charter on this machine."""
    return InstallationSpec(
        directory=directory,
        environment="development",
        mode=Mode.DEVELOPMENT,
        trust_domain="factory.local",
        control_plane=control_plane,
        nodes=nodes,
        observation=observation,
        persons=(AUTHOR, *REVIEWERS),
        reviewers=(AUTHOR, *REVIEWERS),
        domains=standard_domains(threshold=threshold),
        services=(SERVICE,),
        person=AUTHOR,
        key_kind=key_kind,
        secret_bindings=read_secret_bindings(secret_bindings or {}),
    )


def installation_spec(
    directory: Path,
    *,
    environment: str,
    production: bool,
    trust_domain: str,
    control_plane: str,
    nodes: Sequence[str],
    domains: Sequence[str],
    authors: Sequence[str],
    services: Sequence[str],
    key_kind: str,
    secret_bindings: JsonObject,
) -> InstallationSpec:
    """Return what the options of `agentctl init` ask for.

    Raises:
        InvalidInstallationError: an option that cannot be read, or a domain that its reviewers cannot reach.
        CharterInvalidError: a secret's binding that is none.
    """
    chosen = _domains(domains) if domains else standard_domains(threshold=2)
    reviewers = tuple(sorted({person for domain in chosen.values() for person in domain.reviewers}))
    persons = tuple(dict.fromkeys((*(authors or (AUTHOR,)), *reviewers)))
    return InstallationSpec(
        directory=directory,
        environment=environment,
        mode=Mode.PRODUCTION if production else Mode.DEVELOPMENT,
        trust_domain=trust_domain,
        control_plane=control_plane,
        nodes=_pairs(nodes or ("node-1=localhost:7411",)),
        observation={},
        persons=persons,
        reviewers=reviewers,
        domains=chosen,
        services=tuple(services) or (SERVICE,),
        person=persons[0],
        key_kind=KeyKind(key_kind),
        secret_bindings=read_secret_bindings(secret_bindings),
    )


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for option in options:
        name, equals, address = option.partition("=")
        if not (name and equals and address):
            raise InvalidInstallationError(f"expected NAME=host:port, got {option!r}")
        if name in pairs:
            raise InvalidInstallationError(f"expected each node once, got {name!r} twice")
        pairs[name] = address
    return pairs


def _domains(options: Sequence[str]) -> dict[str, DomainSpec]:
    domains = {}
    for option in options:
        found = _DOMAIN.fullmatch(option)
        if found is None:
            raise InvalidInstallationError(f"expected NAME=THRESHOLD:REVIEWER,REVIEWER…, got {option!r}")
        if not is_word(found["name"]) or found["name"] in domains:
            raise InvalidInstallationError(
                "expected each domain once, named by 2 to 41 of a-z 0-9 _ - that begin with a letter, "
                f"got {found['name']!r}"
            )
        reviewers = tuple(found["reviewers"].split(","))
        threshold = int(found["threshold"])
        if not 1 <= threshold <= len(set(reviewers)):
            raise InvalidInstallationError(
                f"expected a threshold from 1 to {len(set(reviewers))} in {option!r}, got {threshold}"
            )
        domains[found["name"]] = DomainSpec(reviewers=reviewers, threshold=threshold)
    return domains
