"""Secrets: what a value must be, and whether the charter lets it go where a grant wants it.

Whether a template's injection is bound is judged here, at each call, by the charter of the active generation, and not
when the template is accepted: a charter that takes a binding away stops the next request on every node that has it,
whatever was approved before, and a template that wants a secret it may not have still does everything else (ADR 12).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.http_grant import OutgoingRequest, is_under_one
from templates.charter import UNBOUND, SecretBinding
from templates.grants import HttpInjection
from templates.names import TemplateName

SECRET_BYTES_MIN: Final = 8
SECRET_BYTES_MAX: Final = 4_096
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{1,40}")
_VALUE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class SecretUnusableError(Exception):
    """A secret is missing or malformed. The message never holds any of its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """``value`` is the whole value of the header, such as ``Bearer abc…``."""

    name: str
    value: str = field(repr=False)

    @classmethod
    def parse(cls, name: str, content: bytes) -> Self:
        """Check the content of a secret; one line end at its end is not part of it.

        A short value would be found everywhere in a response, and is no secret besides.

        Raises:
            SecretUnusableError
        """
        value = content.removesuffix(b"\n").removesuffix(b"\r")
        if not _VALUE.fullmatch(value):
            raise SecretUnusableError(f"expected the secret {name} as one line of printable ASCII")
        if len(value) > SECRET_BYTES_MAX:
            raise SecretUnusableError(f"expected the secret {name} in at most {SECRET_BYTES_MAX} bytes")
        secret = cls(name=name, value=value.decode("ascii"))
        if min(map(len, secret.parts()), default=0) < SECRET_BYTES_MIN:
            raise SecretUnusableError(f"expected the secret {name} to have at least {SECRET_BYTES_MIN} bytes")
        return secret

    def parts(self) -> tuple[str, ...]:
        """Return what must not come back: the credential without its scheme, and the password of ``Basic``.

        Whoever finds and replaces these has replaced the whole value too.
        """
        scheme, space, credential = self.value.partition(" ")
        if not space:
            return (self.value,)
        credential = credential.strip()
        if scheme.lower() == "basic":
            try:
                user_and_password = base64.b64decode(credential, validate=True).decode("latin-1")
            except (binascii.Error, ValueError):
                return (credential,)
            password = user_and_password.partition(":")[2]
            return (credential, user_and_password, *([password] if password else []))
        return (credential,)


class SecretKeeper(Protocol):
    """Where the values of secrets are kept."""

    async def secret(self, name: str) -> Secret:
        """Return the secret that the operator keeps under ``name``.

        Raises:
            SecretUnusableError: there is none, or it is not one.
        """
        ...


def require_name(name: str) -> str:
    """Return ``name``; raise `SecretUnusableError` unless it has the grammar of names."""
    if not _NAME.fullmatch(name):
        raise SecretUnusableError(f"expected the name of a secret, got {name[:60]!r}")
    return name


def require_bound(
    bindings: Mapping[str, SecretBinding], injection: HttpInjection, request: OutgoingRequest, template: TemplateName
) -> None:
    """Judge whether the charter lets this secret go with this request of this template.

    Raises:
        HostRefusal: kind ``denied``.
    """
    binding = bindings.get(injection.secret)
    path = request.target.partition("?")[0]
    if binding is None:
        why = UNBOUND
    elif refusal := binding.refusal(template=template, origin=request.grant.origin, header=injection.header):
        why = refusal
    elif request.method not in binding.methods:
        why = f"the charter does not bind it for {request.method}"
    elif not is_under_one(binding.path_prefixes, path):
        why = "the charter does not bind it for this path"
    else:
        return
    raise HostRefusal(ErrorKind.DENIED, f"the secret {injection.secret} may not be sent: {why}")
