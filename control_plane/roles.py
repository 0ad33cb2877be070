"""The roles of the signed metadata as people see them: versions, keys, and how long each is still good for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

OFFLINE_ROLES = frozenset({"root", "targets"})
_OFFLINE_WARNING = timedelta(days=30)
_ONLINE_WARNING_SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role of the newest generation."""

    name: str
    version: int
    expires: datetime
    key_ids: tuple[str, ...]
    threshold: int

    @property
    def is_online(self) -> bool:
        return self.name not in OFFLINE_ROLES


def roles_of(metadata: Mapping[str, bytes]) -> tuple[Role, ...]:
    """Read the roles of a generation that was verified already: root, targets, snapshot, timestamp, plan, libraries."""
    newest: dict[str, Signed] = {}
    for file, content in metadata.items():
        name = file.removesuffix(".json").rpartition(".")[2]
        try:
            signed: Signed = Metadata.from_bytes(content).signed
        except DeserializationError:
            continue
        if name not in newest or signed.version > newest[name].version:
            newest[name] = signed
    root, targets = newest.get("root"), newest.get("targets")
    keys: dict[str, tuple[tuple[str, ...], int]] = {}
    if isinstance(root, Root):
        keys |= {name: (tuple(sorted(role.keyids)), role.threshold) for name, role in root.roles.items()}
    if isinstance(targets, Targets) and targets.delegations and targets.delegations.roles:
        keys |= {name: (tuple(sorted(role.keyids)), role.threshold) for name, role in targets.delegations.roles.items()}
    order = {Root: 0, Targets: 1, Snapshot: 2, Timestamp: 3}
    names = sorted(newest, key=lambda name: (name not in {"root", "targets"}, order.get(type(newest[name]), 4), name))
    return tuple(
        Role(
            name=name,
            version=newest[name].version,
            expires=newest[name].expires,
            key_ids=keys.get(name, ((), 0))[0],
            threshold=keys.get(name, ((), 0))[1],
        )
        for name in names
    )


def expiry_warnings(
    roles: tuple[Role, ...], approvals: Mapping[str, datetime], *, lease_s: int, now: datetime
) -> tuple[str, ...]:
    """Say what is about to run out: offline roles and approvals 30 days before, the lease when a quarter is left."""
    warnings: list[str] = []
    for role in roles:
        notice = timedelta(seconds=lease_s / _ONLINE_WARNING_SHARE) if role.name == "timestamp" else _OFFLINE_WARNING
        if role.is_online and role.name != "timestamp":
            notice = timedelta(days=1)
        if role.expires <= now:
            warnings.append(f"{role.name} (version {role.version}) expired on {role.expires:%Y-%m-%d %H:%M} UTC")
        elif role.expires - now < notice:
            warnings.append(f"{role.name} (version {role.version}) expires on {role.expires:%Y-%m-%d %H:%M} UTC")
    warnings.extend(
        f"the approval of {template} runs out on {expires:%Y-%m-%d} UTC: publish a new version"
        for template, expires in sorted(approvals.items())
        if expires - now < _OFFLINE_WARNING
    )
    return tuple(warnings)
