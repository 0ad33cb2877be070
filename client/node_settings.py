"""What the operator of one machine tells the nodes that `agentctl up` starts; kept beside the installation.

Values are what docs/settings.md says of the variable without its prefix, in JSON: objects where it wants JSON. Nodes
judge them when they start; here is judged only what would pull an installation apart.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from client.installation import InvalidInstallationError
from service.secret_files import replace_secret
from templates.canonical import JsonObject, JsonValue
from templates.problems import InvalidDocumentError
from templates.strict_json import loads

FILE: Final = "node-settings.json"
PREFIX: Final = "AGENTFACTORY_NODE_"
PRIVATE_ORIGINS: Final = "private_origins"

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BYTES_MAX: Final = 1 << 20
_DEPTH_MAX: Final = 16


def kept_settings(directory: Path) -> JsonObject:
    """Return the settings that an earlier start kept.

    Raises:
        InvalidInstallationError: the file is damaged.
    """
    path = directory / FILE
    if not path.exists():
        return {}
    try:
        value = loads(path.read_bytes(), bytes_max=_BYTES_MAX, depth_max=_DEPTH_MAX)
    except InvalidDocumentError as error:
        raise InvalidInstallationError(f"expected settings of nodes in {path}: {error.message}") from error
    if not isinstance(value, dict):
        raise InvalidInstallationError(f"expected a JSON object in {path}, got {type(value).__name__}")
    return value


def keep_settings(directory: Path, settings: JsonObject) -> None:
    """Keep them for later starts; they may name what only the operator should read."""
    replace_secret(directory / FILE, json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n")


def changed_settings(
    kept: JsonObject, given: Mapping[str, JsonValue], private: Sequence[tuple[str, str]]
) -> JsonObject:
    """Return ``kept`` with what is ``given`` now (null takes a setting away) and more ``private`` origins.

    Raises:
        InvalidInstallationError: a name that is none.
    """
    settings = dict(kept)
    for text, value in given.items():
        name = text.removeprefix(PREFIX).lower()
        if not _NAME.fullmatch(name):
            raise InvalidInstallationError(f"expected names of docs/settings.md, got {text[:80]!r}")
        if value is None:
            settings.pop(name, None)
        else:
            settings[name] = value
    origins = settings.get(PRIVATE_ORIGINS, {})
    if not isinstance(origins, dict):
        raise InvalidInstallationError(f"expected an object as {PRIVATE_ORIGINS}, got {type(origins).__name__}")
    for origin, network in private:
        known = origins.get(origin, [])
        networks = known if isinstance(known, list) else [known]
        origins = {**origins, origin: [*networks, *(() if network in networks else (network,))]}
    return {**settings, PRIVATE_ORIGINS: origins} if origins else settings


def environment_of(settings: JsonObject, *, reserved: Sequence[str]) -> dict[str, str]:
    """Return the variables; ``reserved`` are those that make a node one of this installation.

    Raises:
        InvalidInstallationError: a setting that is reserved.
    """
    found = {f"{PREFIX}{name.upper()}": _text(value) for name, value in settings.items()}
    if taken := sorted(found.keys() & set(reserved)):
        raise InvalidInstallationError(f"expected settings that agentctl up leaves open, got {taken[0]}")
    return found


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
