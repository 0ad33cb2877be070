"""A profile: where the planes listen and which identities this person may show. `agentctl up` and `init` write it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from templates.reasons import AgentFactoryError, Reason

if TYPE_CHECKING:
    from service.tls import TlsFiles

PROFILE_FILE: Final = "profile.json"
PROFILE_SCHEMA: Final = 1
CONTROL_PLANE: Final = "control-plane"
"""Its name among ``people``."""


class ProfileError(AgentFactoryError):
    """There is no profile at that place, or it cannot be read, or lacks what the command needs."""

    reason = Reason.INVALID_PROFILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One installation as one person sees it. Paths in the file are relative to it; here they are absolute.

    ``identities`` maps a short name (``alice``, ``cli``) to the directory of its ``cert.pem``, ``key.pem``, ``ca.pem``.
    ``people`` holds the addresses where a token is taken instead, of ``control-plane`` and of nodes by name;
    ``authorities`` signed the servers' certificates, for who has no identity here.
    """

    directory: Path
    control_plane: str
    nodes: Mapping[str, str] = field(default_factory=dict)
    observation: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, Path] = field(default_factory=dict)
    signing_keys: Mapping[str, Path] = field(default_factory=dict)
    passphrase_files: Mapping[str, Path] = field(default_factory=dict)
    person: str = ""
    service: str = ""
    people: Mapping[str, str] = field(default_factory=dict)
    authorities: Path | None = None

    @property
    def trust_directory(self) -> Path:
        """Where the root of trust and the charter lie that this person relies on."""
        return self.directory / "trust"

    def tls(self, identity: str) -> "TlsFiles":
        """Return the files of ``identity``.

        Raises:
            ProfileError: the profile has no such identity.
        """
        from service.tls import TlsFiles

        if identity not in self.identities:
            known = ", ".join(sorted(self.identities)) or "none"
            raise ProfileError(f"expected one of the profile's identities ({known}), got {identity!r}")
        directory = self.identities[identity]
        return TlsFiles(certificate=directory / "cert.pem", key=directory / "key.pem", authorities=directory / "ca.pem")

    def authorities_file(self) -> Path:
        """Return the certificates of the authorities that sign servers: ``authorities``, or those of an identity.

        Raises:
            ProfileError: the profile has neither.
        """
        if self.authorities is not None:
            return self.authorities
        if not self.identities:
            raise ProfileError(f"expected authorities or an identity in {self.directory / PROFILE_FILE}")
        return self.tls(self.person if self.person in self.identities else min(self.identities)).authorities

    def write(self) -> None:
        """Write ``profile.json`` into ``directory``, by one rename."""

        def relative(paths: Mapping[str, Path]) -> dict[str, str]:
            return {name: _relative(path, self.directory) for name, path in sorted(paths.items())}

        document = {
            "schema": PROFILE_SCHEMA,
            "control_plane": self.control_plane,
            "nodes": dict(self.nodes),
            "observation": dict(self.observation),
            "identities": relative(self.identities),
            "signing_keys": relative(self.signing_keys),
            "passphrase_files": relative(self.passphrase_files),
            "person": self.person,
            "service": self.service,
        }
        if self.people:
            document["people"] = dict(self.people)
        if self.authorities is not None:
            document["authorities"] = _relative(self.authorities, self.directory)
        target = self.directory / PROFILE_FILE
        scratch = target.with_suffix(".tmp")
        scratch.write_text(json.dumps(document, indent=2) + "\n")
        scratch.replace(target)


def _relative(path: Path, base: Path) -> str:
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def read_profile(directory: Path) -> Profile:
    """Read the profile in ``directory``.

    Raises:
        ProfileError: none there, not JSON, an unknown schema, or an unexpected shape.
    """
    path = directory / PROFILE_FILE
    try:
        document: Any = json.loads(path.read_text())
    except FileNotFoundError:
        raise ProfileError(
            f"expected a profile at {path}; start an installation with `agentctl --dir {directory} up`"
        ) from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"expected a JSON profile at {path}, got {error}") from error
    if not isinstance(document, dict):
        raise ProfileError(f"expected a JSON object in {path}, got {type(document).__name__}")
    if document.get("schema") != PROFILE_SCHEMA:
        raise ProfileError(f"expected schema {PROFILE_SCHEMA} in {path}, got {document.get('schema')!r}")
    base = directory.absolute()
    try:
        return Profile(
            directory=base,
            control_plane=str(document["control_plane"]),
            nodes=dict(document["nodes"]),
            observation=dict(document.get("observation", {})),
            identities={name: base / path for name, path in document["identities"].items()},
            signing_keys={name: base / path for name, path in document.get("signing_keys", {}).items()},
            passphrase_files={name: base / path for name, path in document.get("passphrase_files", {}).items()},
            person=str(document.get("person", "")),
            service=str(document.get("service", "")),
            people=dict(document.get("people", {})),
            authorities=base / document["authorities"] if document.get("authorities") else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProfileError(f"expected the fields of a profile in {path}, got {error!r}") from error
