"""Lay out an installation: a certificate authority, identities, offline, reviewers' and online keys, root and charter.

Keys that must never meet lie in separate places: ``offline/`` and ``reviewers/`` are not given to any server.
"""

import fcntl
import ipaddress
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, SSlibKey

from client.profile import PROFILE_FILE, Profile
from service.identity import Identity, InvalidIdentityError
from service.keystore import KeyKind, create_key
from service.local_ca import LocalCa
from templates.charter import Charter, Domain, Mode, SecretBinding
from templates.reasons import AgentFactoryError, Reason
from templates.repository import RoleKeys, RootSpec, build_root, build_targets

ONLINE_ROLES: Final = ("snapshot", "timestamp", "plan", "library")
CATALOG_DOMAINS: Final = ("documentation", "software", "infrastructure", "orchestration", "images")
ROOT_VALID: Final = timedelta(days=365)
TARGETS_VALID: Final = timedelta(days=365)
_PARTS: Final = ("ca", "identities", "offline", "reviewers", "control-plane", "trust")


class InstallationExistsError(AgentFactoryError):
    """The directory holds an installation already; nothing is overwritten."""

    reason = Reason.INSTALLATION_EXISTS


class InvalidInstallationError(AgentFactoryError):
    """An installation cannot be made as it was asked for: a name, an address or a threshold is none."""

    reason = Reason.INVALID_INSTALLATION


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSpec:
    """Who reviews a domain, and how many of them must."""

    reviewers: tuple[str, ...]
    threshold: int = 1
    self_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationSpec:
    """What to make. ``control_plane`` and ``nodes`` are ``host:port``; ``services`` are ``tenant/name``."""

    directory: Path
    environment: str
    mode: Mode
    trust_domain: str
    control_plane: str
    nodes: Mapping[str, str]
    observation: Mapping[str, str]
    persons: Sequence[str]
    reviewers: Sequence[str]
    domains: Mapping[str, DomainSpec]
    services: Sequence[str]
    person: str
    key_kind: KeyKind = KeyKind.RSA
    approval_days_max: int = 365
    lease_s_max: int = 86_400
    staleness_s_max: int = 7 * 86_400
    extra_names: Sequence[str] = field(default=())
    secret_bindings: Mapping[str, SecretBinding] = field(default_factory=dict)


def create_installation(
    spec: InstallationSpec, *, now: datetime, tell: Callable[[str], None] = lambda _message: None
) -> Profile:
    """Make every key, certificate and signed document of ``spec`` below its directory, and its profile.

    Args:
        spec: what to make.
        now: aware, UTC.
        tell: called with a line for each step; keys take a while.

    Whatever stops it, an interrupt included, leaves nothing behind that a second attempt would trip over.

    Raises:
        InstallationExistsError: there is a profile already, or part of an installation, or another process makes one.
        InvalidInstallationError: the specification cannot be carried out; nothing was made.
    """
    base = spec.directory.absolute()
    clients, servers = _identities(spec)
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(base):
        found = next((name for name in (PROFILE_FILE, *_PARTS) if (base / name).exists()), None)
        if found:
            raise InstallationExistsError(
                f"expected no installation in {base}, got {found}; remove it or choose another --dir"
            )
        with _whole_or_nothing(base):
            return _create(spec, base, clients, servers, now=now, tell=tell)


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Lock the directory itself, which leaves no file behind and ends with the process."""
    directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallationExistsError(
                f"expected to make an installation in {base} alone, got another command that is making one there; "
                "wait for it or choose another --dir"
            ) from None
        yield
    finally:
        os.close(directory)


@contextmanager
def _whole_or_nothing(base: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for name in _PARTS:
            shutil.rmtree(base / name, ignore_errors=True)
        raise


def _create(
    spec: InstallationSpec,
    base: Path,
    clients: Mapping[str, Identity],
    servers: Mapping[str, tuple[Identity, str]],
    *,
    now: datetime,
    tell: Callable[[str], None],
) -> Profile:
    tell("certificate authority and identities")
    identities = _issue_identities(spec, base, clients, servers, now)
    tell(f"offline keys ({spec.key_kind}): root and charter, in {base / 'offline'}")
    offline = _create_keys(base / "offline", ("root", "charter"), spec.key_kind)
    tell(f"reviewers' keys: {', '.join(spec.reviewers)}, in {base / 'reviewers'}")
    reviewers = {name: _create_keys(base / "reviewers" / name, (name,), spec.key_kind)[name] for name in spec.reviewers}
    tell("online keys of the control plane")
    online = _create_keys(base / "control-plane" / "keys", ONLINE_ROLES, spec.key_kind)
    tell("root of trust and charter, signed")
    _sign_trust(spec, base / "trust", offline, reviewers, online, now)
    profile = Profile(
        directory=base,
        control_plane=spec.control_plane,
        nodes=spec.nodes,
        observation=spec.observation,
        identities=identities,
        signing_keys={name: base / "reviewers" / name / f"{name}.pem" for name in spec.reviewers},
        passphrase_files={name: base / "reviewers" / name / "passphrase" for name in spec.reviewers},
        person=spec.person,
        service=spec.services[0].partition("/")[2] if spec.services else "",
    )
    profile.write()
    return profile


def _identities(spec: InstallationSpec) -> tuple[dict[str, Identity], dict[str, tuple[Identity, str]]]:
    """Return persons and services, and servers with their addresses, each by the name of its directory."""
    try:
        return _parsed_identities(spec)
    except InvalidIdentityError as error:
        raise InvalidInstallationError(error.message) from error


def _parsed_identities(spec: InstallationSpec) -> tuple[dict[str, Identity], dict[str, tuple[Identity, str]]]:
    domain = spec.trust_domain
    clients = {name: Identity.person(domain, name) for name in spec.persons}
    servers: dict[str, tuple[Identity, str]] = {}
    for service in spec.services:
        tenant, slash, name = service.partition("/")
        if not slash:
            raise InvalidInstallationError(f"expected a service as TENANT/NAME, got {service!r}")
        if name in clients:
            raise InvalidInstallationError(f"expected every person and service under its own name, got two {name!r}")
        clients[name] = Identity.service(domain, tenant, name)
    serving = [(Identity.node(domain, name), address) for name, address in spec.nodes.items()]
    for identity, address in (*serving, (Identity.control_plane(domain, "control-plane"), spec.control_plane)):
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InvalidInstallationError(f"expected host:port for {identity.name}, got {address!r}")
        if identity.name in clients or identity.name in servers:
            raise InvalidInstallationError(f"expected one identity called {identity.name!r}, got two")
        servers[identity.name] = (identity, address)
    return clients, servers


def _issue_identities(
    spec: InstallationSpec,
    base: Path,
    clients: Mapping[str, Identity],
    servers: Mapping[str, tuple[Identity, str]],
    now: datetime,
) -> dict[str, Path]:
    authority = LocalCa.create(base / "ca", trust_domain=spec.trust_domain, now=now)
    places: dict[str, Path] = {}
    for name, identity in clients.items():
        places[name] = base / "identities" / name
        authority.issue(identity, now=now).write(places[name])
    for name, (identity, address) in servers.items():
        names, addresses = _server_names([address.rpartition(":")[0], "localhost", *spec.extra_names])
        places[name] = base / "identities" / name
        authority.issue(identity, now=now, dns_names=names, addresses=addresses).write(places[name])
    return places


def _server_names(
    hosts: Sequence[str],
) -> tuple[list[str], list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    names: list[str] = []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for host in dict.fromkeys(hosts):
        try:
            addresses.append(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            names.append(host)
    return names, addresses


def _create_keys(directory: Path, names: Sequence[str], kind: KeyKind) -> dict[str, CryptoSigner]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = secrets.token_urlsafe(32)
    passphrase_file = directory / "passphrase"
    passphrase_file.touch(mode=0o600)
    passphrase_file.write_text(secret + "\n")
    return {name: create_key(directory / f"{name}.pem", kind=kind, passphrase=secret.encode()) for name in names}


def _public(signer: CryptoSigner) -> SSlibKey:
    return signer.public_key


def _sign_trust(
    spec: InstallationSpec,
    directory: Path,
    offline: Mapping[str, CryptoSigner],
    reviewers: Mapping[str, CryptoSigner],
    online: Mapping[str, CryptoSigner],
    now: datetime,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    moment = now.replace(microsecond=0)
    keys = {name: RoleKeys(keys=(_public(signer),)) for name, signer in (*offline.items(), *online.items())}
    root = build_root(
        RootSpec(
            environment=spec.environment,
            mode=spec.mode,
            version=1,
            expires=moment + ROOT_VALID,
            root=keys["root"],
            targets=keys["charter"],
            snapshot=keys["snapshot"],
            timestamp=keys["timestamp"],
        ),
        [offline["root"]],
    )
    persons = {name: {signer.public_key.keyid: _public(signer)} for name, signer in reviewers.items()}
    charter = Charter(
        environment=spec.environment,
        mode=spec.mode,
        version=1,
        persons=persons,
        domains={
            name: Domain(
                reviewers=frozenset(domain.reviewers), threshold=domain.threshold, self_review=domain.self_review
            )
            for name, domain in spec.domains.items()
        },
        approval_days_max=spec.approval_days_max,
        lease_s_max=spec.lease_s_max,
        staleness_s_max=spec.staleness_s_max,
        secret_bindings=spec.secret_bindings,
    )
    targets = build_targets(
        charter,
        plan=keys["plan"],
        library=keys["library"],
        expires=moment + TARGETS_VALID,
        signers=[offline["charter"]],
    )
    for name, data in {"root.json": root, "targets.json": targets, "charter.json": charter.to_bytes()}.items():
        (directory / name).write_bytes(data)
