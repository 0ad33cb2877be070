"""The role file: JSON that binds persons and groups to roles, strictly read.

    {"schema": 1, "bindings": [
        {"role": "operator", "persons": ["olga"], "groups": ["platform"], "domains": ["docs"], "tenants": ["acme"]}]}

``domains`` and ``tenants`` that are left out mean everywhere.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from service.access.roles import ANY, BINDABLE, EVERYWHERE, Binding, Held, Role, RoleBook
from templates.reasons import AgentFactoryError, Reason
from templates.strict_json import loads

ROLE_FILE_BYTES_MAX: Final = 1_048_576
ROLE_FILE_DEPTH_MAX: Final = 6
BINDINGS_MAX: Final = 10_000
NAMES_MAX: Final = 1_000
NAME_CHARACTERS_MAX: Final = 256
_FIELDS: Final = frozenset({"role", "persons", "groups", "domains", "tenants"})
_DOMAIN: Final = re.compile(r"[a-z][a-z0-9_-]{1,40}")


class InvalidRolesError(AgentFactoryError):
    """The role file says something that cannot be a role file; the text names the place."""

    reason = Reason.INVALID_ROLES


def read_roles(data: bytes) -> RoleBook:
    """Read a role file.

    Raises:
        InvalidRolesError: too long, not JSON, an unknown field, role or form.
    """
    try:
        value: Any = loads(data, bytes_max=ROLE_FILE_BYTES_MAX, depth_max=ROLE_FILE_DEPTH_MAX)
    except AgentFactoryError as error:
        raise InvalidRolesError(error.message) from None
    if not isinstance(value, dict) or value.keys() != {"schema", "bindings"} or value["schema"] != 1:
        raise InvalidRolesError('expected {"schema": 1, "bindings": [...]}')
    bindings = value["bindings"]
    if not isinstance(bindings, list) or len(bindings) > BINDINGS_MAX:
        raise InvalidRolesError(f"expected a list of at most {BINDINGS_MAX} bindings")
    return RoleBook(tuple(_binding(each, index) for index, each in enumerate(bindings)))


def _binding(value: Any, index: int) -> Binding:
    place = f"bindings[{index}]"
    if not isinstance(value, dict) or not value.keys() <= _FIELDS or "role" not in value:
        raise InvalidRolesError(f"{place}: expected role, and of {', '.join(sorted(_FIELDS - {'role'}))} what is meant")
    if value["role"] not in BINDABLE:
        raise InvalidRolesError(f"{place}: expected a role of {', '.join(sorted(BINDABLE))}, got {value['role']!r}")
    persons, groups = _names(value, "persons", place), _names(value, "groups", place)
    if not persons and not groups:
        raise InvalidRolesError(f"{place}: expected persons or groups")
    if ANY in persons | groups:
        raise InvalidRolesError(f"{place}: expected names of persons and groups, got {ANY!r}")
    domains = _names(value, "domains", place) if "domains" in value else EVERYWHERE
    tenants = _names(value, "tenants", place) if "tenants" in value else EVERYWHERE
    for domain in sorted(domains - EVERYWHERE):
        if not _DOMAIN.fullmatch(domain):
            raise InvalidRolesError(f"{place}: expected a domain, got {domain!r}")
    return Binding(
        held=Held(role=Role(value["role"]), domains=domains, tenants=tenants), persons=persons, groups=groups
    )


def _names(value: dict[str, Any], name: str, place: str) -> frozenset[str]:
    names: Sequence[Any] = value.get(name, ())
    if (
        not isinstance(names, list | tuple)
        or len(names) > NAMES_MAX
        or not all(isinstance(each, str) and 0 < len(each) <= NAME_CHARACTERS_MAX for each in names)
    ):
        raise InvalidRolesError(f"{place}: expected a list of at most {NAMES_MAX} names as {name}")
    return frozenset(names)
