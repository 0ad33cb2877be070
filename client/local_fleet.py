"""A control plane and some nodes on this machine, from an installation's directory: what `up` and `demo` run."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from client.installation import InvalidInstallationError, create_installation
from client.node_settings import PREFIX, environment_of
from client.processes import ServerProcess, free_ports, is_free
from client.profile import PROFILE_FILE, Profile, ProfileError, read_profile
from client.renewal import renew_certificates
from client.standard import development_spec
from service.keystore import KeyKind
from templates.canonical import JsonObject
from templates.charter import Charter, read_charter, read_secret_bindings
from templates.reasons import AgentFactoryError, Reason

CONTROL_PLANE: Final = "control-plane"


class PortTakenError(AgentFactoryError):
    """Something else listens where a server of the installation would."""

    reason = Reason.PORT_TAKEN


def ensure_installation(
    directory: Path,
    *,
    node_count: int,
    port: int,
    threshold: int,
    key_kind: KeyKind,
    now: datetime,
    tell: Callable[[str], None],
    secret_bindings: JsonObject | None = None,
) -> Profile:
    """Return the installation in ``directory``; make a development one with ``node_count`` nodes when there is none.

    Ports count up from ``port``; 0 takes free ones. Certificates of an earlier one are renewed before they end.

    Raises:
        ProfileError: there is a profile, but of an installation whose servers run elsewhere (`agentctl init`).
        PortTakenError: a new installation's ports are in use; nothing was made.
        CharterInvalidError: ``secret_bindings`` are none.
        InvalidInstallationError: ``secret_bindings`` are not those of the installation that there is.
    """
    if (directory / PROFILE_FILE).exists():
        profile = read_profile(directory)
        if set(profile.observation) != {CONTROL_PLANE, *profile.nodes}:
            raise ProfileError(
                f"expected an installation that `agentctl up` made in {directory}, got one of `agentctl init`: "
                "start its servers where they belong (docs/settings.md), or choose another --dir"
            )
        if secret_bindings and read_secret_bindings(secret_bindings) != _charter_of(profile).secret_bindings:
            raise InvalidInstallationError(
                f"expected the secret bindings that the charter in {profile.trust_directory} has, got others: "
                "they do not change with an option (docs/grants.md says how)"
            )
        renew_certificates(profile, now=now, tell=tell)
        return profile
    count = 2 * (node_count + 1)
    ports = list(range(port, port + count)) if port else free_ports(count)
    if taken := [one for one in ports if not is_free(one)]:
        raise PortTakenError(
            f"expected the ports {ports[0]} to {ports[-1]} to be free for a new installation, got another listener at "
            f"{', '.join(map(str, taken))}; choose others with --port (0 takes free ones)"
        )
    serving, observing = ports[: node_count + 1], ports[node_count + 1 :]
    names = [f"node-{number}" for number in range(1, node_count + 1)]
    spec = development_spec(
        directory,
        control_plane=f"localhost:{serving[0]}",
        nodes={name: f"localhost:{one}" for name, one in zip(names, serving[1:], strict=True)},
        observation={name: f"127.0.0.1:{one}" for name, one in zip([CONTROL_PLANE, *names], observing, strict=True)},
        threshold=threshold,
        key_kind=key_kind,
        secret_bindings=secret_bindings,
    )
    return create_installation(spec, now=now, tell=tell)


def _charter_of(profile: Profile) -> Charter:
    return read_charter((profile.trust_directory / "charter.json").read_bytes())


class LocalFleet:
    """The processes of one installation on this machine."""

    def __init__(
        self, profile: Profile, *, collector: str | None = None, node_settings: JsonObject | None = None
    ) -> None:
        """``collector``: address of an OTLP collector for all of them.

        Raises:
            InvalidInstallationError: ``node_settings`` say what makes a node one of this installation.
        """
        self.profile = profile
        self.control_plane = _control_plane(profile, collector)
        self.nodes = {name: _node(profile, name, collector, node_settings or {}) for name in profile.nodes}

    @property
    def processes(self) -> Sequence[ServerProcess]:
        """Everything, the control plane first."""
        return [self.control_plane, *self.nodes.values()]

    def refuse_taken_ports(self) -> None:
        """Raise `PortTakenError` when a port of the installation is in use."""
        serving = {CONTROL_PLANE: self.profile.control_plane, **self.profile.nodes}
        for name, address in (*serving.items(), *self.profile.observation.items()):
            port = int(address.rpartition(":")[2])
            if not is_free(port):
                raise PortTakenError(
                    f"expected port {port} to be free for {name}, got another listener; is it running already?"
                )

    def start(self) -> None:
        """Start everything and wait until each process serves."""
        for process in self.processes:
            process.start()
        self.control_plane.wait_ready()
        for node in self.nodes.values():
            node.wait_ready()


_RATES: Final = {
    "PRINCIPAL_RATE_PER_MINUTE": 6000,
    "PRINCIPAL_RATE_BURST": 1000,
    "ADDRESS_RATE_PER_MINUTE": 6000,
    "ADDRESS_RATE_BURST": 1000,
    "RATE_PER_MINUTE": 6000,
    "RATE_BURST": 1000,
}
"""One person at one machine is everybody here, and publishes whole directories."""


def _common(profile: Profile, prefix: str, name: str, address: str, collector: str | None) -> dict[str, str]:
    host, _, port = address.rpartition(":")
    observation_host, _, observation_port = profile.observation[name].rpartition(":")
    identity = profile.identities[name]
    values = {
        "LISTEN_HOST": "127.0.0.1" if host == "localhost" else host,
        "LISTEN_PORT": port,
        "TRUST_DOMAIN": "factory.local",
        "TLS_CERTIFICATE_FILE": str(identity / "cert.pem"),
        "TLS_KEY_FILE": str(identity / "key.pem"),
        "TLS_AUTHORITIES_FILE": str(identity / "ca.pem"),
        "OBSERVATION_HOST": observation_host,
        "OBSERVATION_PORT": observation_port,
        **({"OTLP_ENDPOINT": collector} if collector else {}),
    }
    return {f"{prefix}{key}": value for key, value in values.items()}


def _control_plane(profile: Profile, collector: str | None) -> ServerProcess:
    base = profile.directory / "control-plane"
    prefix = "AGENTFACTORY_CP_"
    environment = _common(profile, prefix, CONTROL_PLANE, profile.control_plane, collector) | {
        f"{prefix}STATE_DIR": str(base),
        f"{prefix}TRUST_DIR": str(profile.trust_directory),
        f"{prefix}KEYS_DIR": str(base / "keys"),
        f"{prefix}PASSPHRASE_FILE": str(base / "keys" / "passphrase"),
        **{f"{prefix}{name}": str(value) for name, value in _RATES.items()},
    }
    return ServerProcess(
        CONTROL_PLANE,
        "control_plane.main",
        environment=environment,
        log=profile.directory / "logs" / "control-plane.log",
        observation=profile.observation[CONTROL_PLANE],
    )


def _node(profile: Profile, name: str, collector: str | None, settings: JsonObject) -> ServerProcess:
    prefix = PREFIX
    own = _common(profile, prefix, name, profile.nodes[name], collector) | {
        f"{prefix}STORE_DIRECTORY": str(profile.directory / "nodes" / name),
        f"{prefix}ROOT_FILE": str(profile.trust_directory / "root.json"),
        f"{prefix}MODE": "development",
        f"{prefix}CONTROL_PLANE": profile.control_plane,
    }
    defaults = {
        f"{prefix}RECORDING_TEMPLATES": json.dumps({"*": ["*/*"]}),
        f"{prefix}SECRETS_DIRECTORY": str(profile.directory / "secrets"),
    }
    return ServerProcess(
        name,
        "data_plane.main",
        environment=defaults | own | environment_of(settings, reserved=tuple(own)),
        log=profile.directory / "logs" / f"{name}.log",
        observation=profile.observation[name],
    )
