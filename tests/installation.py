"""A whole local installation in one directory, as `agentctl up` lays it out: for tests of either plane and the client.

Keys are ed25519 unless a test asks for another kind; the online keys lie encrypted in ``control-plane/keys``.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from service.identity import Identity
from service.keystore import KeyKind, create_key
from service.local_ca import LocalCa
from service.tls import TlsFiles
from templates.charter import Charter, Domain, Mode
from templates.repository import OfflineTrust, OnlineSigners, RoleKeys, RootSpec, build_root, build_targets

TRUST_DOMAIN = "factory.test"
ENVIRONMENT = "test"
PERSONS = ("alice", "bob", "carol")
PASSPHRASE = b"a passphrase for tests"
_ROLES = ("snapshot", "timestamp", "plan", "library")


def new_signer(kind: KeyKind = KeyKind.ED25519) -> CryptoSigner:
    match kind:
        case KeyKind.ED25519:
            return CryptoSigner.generate_ed25519()
        case KeyKind.RSA:
            return CryptoSigner.generate_rsa(size=3072)
        case KeyKind.ML_DSA_65:
            raise ValueError(kind)


def default_domains() -> dict[str, Domain]:
    """``docs`` needs two of three persons, ``images`` one, ``dev`` lets one person work alone."""
    everyone = frozenset(PERSONS)
    return {
        "docs": Domain(reviewers=everyone, threshold=2),
        "images": Domain(reviewers=everyone, threshold=1),
        "dev": Domain(reviewers=everyone, threshold=1, self_review=True),
    }


@dataclass(slots=True, kw_only=True)
class LocalInstallation:
    """What an operator and the reviewers hold together; a server is given only its own directory and ``trust/``."""

    directory: Path
    ca: LocalCa
    root: CryptoSigner
    targets: CryptoSigner
    online: OnlineSigners
    reviewers: Mapping[str, CryptoSigner]
    charter: Charter
    trust: OfflineTrust
    expires: datetime
    _identities: dict[str, TlsFiles] = field(default_factory=dict)

    @property
    def trust_directory(self) -> Path:
        return self.directory / "trust"

    def tls(self, identity: Identity) -> TlsFiles:
        """Return certificate files of ``identity``; servers' names are localhost and 127.0.0.1. Made once, kept."""
        if identity.uri not in self._identities:
            serves = identity.kind in {"node", "control-plane"}
            issued = self.ca.issue(
                identity,
                now=datetime.now(UTC) - timedelta(minutes=1),
                dns_names=("localhost",) if serves else (),
                addresses=(ipaddress.IPv4Address("127.0.0.1"),) if serves else (),
            )
            owner = f"{identity.kind}-{identity.tenant}" if identity.tenant else str(identity.kind)
            self._identities[identity.uri] = issued.write(self.directory / "identities" / f"{owner}-{identity.name}")
        return self._identities[identity.uri]

    def person(self, name: str) -> TlsFiles:
        return self.tls(Identity.person(TRUST_DOMAIN, name))

    def node(self, name: str) -> TlsFiles:
        return self.tls(Identity.node(TRUST_DOMAIN, name))

    def service(self, name: str, tenant: str = "acme") -> TlsFiles:
        return self.tls(Identity.service(TRUST_DOMAIN, tenant, name))

    def control_plane(self, name: str = "one") -> TlsFiles:
        return self.tls(Identity.control_plane(TRUST_DOMAIN, name))

    def control_plane_environment(self, **settings: str) -> dict[str, str]:
        """Return the variables of a control plane; ``settings`` are lower-case names without prefix."""
        tls = self.control_plane()
        values = {
            "trust_domain": TRUST_DOMAIN,
            "tls_certificate_file": str(tls.certificate),
            "tls_key_file": str(tls.key),
            "tls_authorities_file": str(tls.authorities),
            "trust_dir": str(self.trust_directory),
            "keys_dir": str(self.directory / "control-plane" / "keys"),
            "passphrase_file": str(self.directory / "control-plane" / "passphrase"),
            "state_dir": str(self.directory / "control-plane"),
            # Tests hurry; those of the rates set them.
            "rate_per_minute": "0",
            "principal_rate_per_minute": "0",
            "address_rate_per_minute": "0",
            **settings,
        }
        return {f"AGENTFACTORY_CP_{name.upper()}": value for name, value in values.items()}

    def amended_charter(self, **changes: object) -> OfflineTrust:
        """Sign the next version of the charter with ``changes``; neither stored nor given to anyone."""
        charter = replace(self.charter, version=self.charter.version + 1, **changes)  # type: ignore[arg-type]
        targets = build_targets(
            charter,
            plan=RoleKeys(keys=(self.online.plan.public_key,)),
            library=RoleKeys(keys=(self.online.library.public_key,)),
            expires=self.expires,
            signers=[self.targets],
        )
        return replace(self.trust, targets=targets, charter=charter.to_bytes())


def make_installation(
    directory: Path,
    *,
    domains: Mapping[str, Domain] | None = None,
    mode: Mode = Mode.DEVELOPMENT,
    kind: KeyKind = KeyKind.ED25519,
    lease_s_max: int = 600,
    now: datetime | None = None,
    expires_after: timedelta = timedelta(days=365),
    amend: Callable[[Charter], Charter] = lambda charter: charter,
) -> LocalInstallation:
    """Lay out CA, trust documents, online keys and reviewers' keys in ``directory``.

    Args:
        directory: made if missing; must not hold an installation yet.
        domains: default `default_domains`.
        mode: of charter and root.
        kind: of every signing key.
        lease_s_max: the charter's cap.
        now: when root and targets were signed.
        expires_after: how long they are valid.
        amend: last change to the charter before it is signed.
    """
    expires = ((now or datetime.now(UTC)) + expires_after).replace(microsecond=0)
    ca = LocalCa.create(directory / "ca", trust_domain=TRUST_DOMAIN, now=datetime.now(UTC) - timedelta(minutes=5))
    root, targets = new_signer(kind), new_signer(kind)
    reviewers = {person: new_signer(kind) for person in PERSONS}
    keys = directory / "control-plane" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    online = OnlineSigners(
        **{role: create_key(keys / f"{role}.pem", kind=kind, passphrase=PASSPHRASE) for role in _ROLES}
    )
    passphrase = directory / "control-plane" / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_bytes(PASSPHRASE)
    charter = amend(
        Charter(
            environment=ENVIRONMENT,
            mode=mode,
            version=1,
            persons={person: {signer.public_key.keyid: signer.public_key} for person, signer in reviewers.items()},
            domains=domains if domains is not None else default_domains(),
            approval_days_max=90,
            lease_s_max=lease_s_max,
            staleness_s_max=86_400,
        )
    )
    trust = OfflineTrust(
        roots=(
            build_root(
                RootSpec(
                    environment=ENVIRONMENT,
                    mode=mode,
                    version=1,
                    expires=expires,
                    root=RoleKeys(keys=(root.public_key,)),
                    targets=RoleKeys(keys=(targets.public_key,)),
                    snapshot=RoleKeys(keys=(online.snapshot.public_key,)),
                    timestamp=RoleKeys(keys=(online.timestamp.public_key,)),
                ),
                [root],
            ),
        ),
        targets=build_targets(
            charter,
            plan=RoleKeys(keys=(online.plan.public_key,)),
            library=RoleKeys(keys=(online.library.public_key,)),
            expires=expires,
            signers=[targets],
        ),
        charter=charter.to_bytes(),
    )
    write_trust(directory / "trust", trust)
    return LocalInstallation(
        directory=directory,
        ca=ca,
        root=root,
        targets=targets,
        online=online,
        reviewers=reviewers,
        charter=charter,
        trust=trust,
        expires=expires,
    )


def write_trust(directory: Path, trust: OfflineTrust) -> None:
    """Write ``root.json`` (or the chain ``N.root.json``), ``targets.json`` and ``charter.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    if len(trust.roots) == 1:
        (directory / "root.json").write_bytes(trust.roots[0])
    else:
        for version, root in enumerate(trust.roots, start=1):
            (directory / f"{version}.root.json").write_bytes(root)
    (directory / "targets.json").write_bytes(trust.targets)
    (directory / "charter.json").write_bytes(trust.charter)
