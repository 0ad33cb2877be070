"""What an attack is: hostile guests, how they are used, and what must come of it.

Each attack is one file ``attacks/<class>/<name>.py`` that binds ``ATTACK``; its class and its name are where it lies.
Its docstring says what is tried, its source, and what is expected.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from client.selftest.stage import Stage


@unique
class AttackClass(StrEnum):
    """What is attacked; each is a package under ``attacks``."""

    CPU_AND_TIME = "cpu_and_time"
    MEMORY_AND_RESOURCES = "memory_and_resources"
    COMPILATION_AND_ADMISSION = "compilation_and_admission"
    OUTPUT = "output"
    NETWORK = "network"
    LLM = "llm"
    FILES = "files"
    SECRETS_AND_TENANTS = "secrets_and_tenants"
    HOST = "host"
    TRUST_AND_DISTRIBUTION = "trust_and_distribution"
    PEOPLE_AND_SERVICES = "people_and_services"


@unique
class Timed(StrEnum):
    """Whose calls beside an attack must be as quick as without it. Every neighbour must be answered rightly, always."""

    EVERYBODY = "everybody"
    OTHER_TENANTS = "other tenants"
    NOBODY = "nobody"


LIMITS: Final[Mapping[str, int]] = {
    "fuel": 100_000_000,
    "wall_ms": 5_000,
    "memory_bytes": 16 << 20,
    "input_bytes": 65_536,
    "output_bytes": 65_536,
    "log_bytes": 4_096,
    "host_calls": 10,
}
"""Of a guest that says nothing else: small, so that an attack that is stopped is stopped soon."""

PYTHON_MEMORY_BYTES: Final = 64 << 20


class BreachError(Exception):
    """What must hold did not: the attack succeeded, or ended in another way than it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A template of the throw-away node. ``wat`` is a whole module or component, ``python`` an author's source."""

    wat: str = ""
    python: str = ""
    abi: str = "command"
    limits: Mapping[str, int] = field(default_factory=dict)
    grants: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effective_limits(self) -> dict[str, int]:
        """`LIMITS` with the guest's own; an interpreter has the memory that it needs."""
        wide = {"memory_bytes": PYTHON_MEMORY_BYTES, "fuel": 2_000_000_000} if self.python else {}
        return {**LIMITS, **wide, **self.limits}

    def placed(self, placeholder: str, origin: str) -> "Guest":
        """Return the guest with ``origin`` in its grants where ``placeholder`` stands."""
        grants = json.loads(json.dumps(dict(self.grants)).replace(placeholder, origin))
        return replace(self, grants=grants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came back to the attacker: an output, or the reason and message of a typed error."""

    output: str | None
    reason: str
    message: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    invocation_id: str = ""


class Expectation(Protocol):
    """What must come back; raises `BreachError` when something else did."""

    def check(self, seen: Seen) -> None: ...


@dataclass(frozen=True, slots=True)
class Fails:
    """A typed failure: one of ``reasons``, and ``message`` somewhere in its text."""

    reasons: tuple[str, ...]
    message: str = ""

    def check(self, seen: Seen) -> None:
        """Raise `BreachError` unless ``seen`` is that failure."""
        wanted = " or ".join(self.reasons)
        if seen.output is not None:
            raise BreachError(f"expected {wanted}, got an answer: {seen.output[:200]!r}")
        if seen.reason not in self.reasons:
            raise BreachError(f"expected {wanted}, got {seen.reason}: {seen.message[:300]}")
        if self.message not in seen.message:
            raise BreachError(f"expected {wanted} that says {self.message!r}, got {seen.message[:300]!r}")


def fails(*reasons: str, message: str = "") -> Fails:
    """Expect one of these failures."""
    return Fails(reasons, message)


@dataclass(frozen=True, slots=True)
class Answers:
    """An ordinary answer: the attack is without effect."""

    output: str

    def check(self, seen: Seen) -> None:
        """Raise `BreachError` unless ``seen`` is that answer."""
        if seen.output is None:
            raise BreachError(f"expected the answer {self.output[:100]!r}, got {seen.reason}: {seen.message[:300]}")
        if seen.output != self.output:
            raise BreachError(f"expected the answer {self.output[:100]!r}, got {seen.output[:200]!r}")


Procedure = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack. Without ``run`` the only guest is invoked once, with ``input``; ``expect`` judges the answer.

    ``kills_worker``: the attack is the death of a worker; elsewhere none may die. ``timed``: many invocations of one
    tenant share its worker, so there only the others are timed; a burst of requests shares the node's front with
    everybody while it lasts.
    """

    guests: Mapping[str, Guest] = field(default_factory=dict)
    run: Procedure | None = None
    input: str = ""
    expect: Expectation | None = None
    kills_worker: bool = False
    timed: Timed = Timed.EVERYBODY

    def __post_init__(self) -> None:
        if (self.run is None) is (self.expect is None):
            raise ValueError("expected either a procedure or an expectation of one invocation")
        if self.expect is not None and len(self.guests) != 1:
            raise ValueError(f"expected one guest, got {len(self.guests)}")

    async def carry_out(self, stage: "Stage") -> None:
        """Do it once; raises `BreachError` when what must hold did not."""
        if self.run is not None:
            await self.run(stage)
        elif self.expect is not None:
            self.expect.check(await stage.invoke(next(iter(self.guests)), self.input))


def once(guest: Guest, *, expect: Expectation, text: str = "") -> Attack:
    """One guest, invoked once."""
    return Attack(guests={"guest": guest}, expect=expect, input=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An attack with its place. ``text`` is the file's docstring, ``summary`` its first line."""

    name: str
    attack_class: AttackClass
    text: str
    attack: Attack

    @property
    def summary(self) -> str:
        return self.text.strip().partition("\n")[0]

    @property
    def timed(self) -> Timed:
        """Whose calls must be in time.

        Forged generations are brought to nodes of their own: what those take from the neighbours is the machine's, and
        says nothing about the node.
        """
        return Timed.NOBODY if self.attack_class is AttackClass.TRUST_AND_DISTRIBUTION else self.attack.timed

    def template(self, guest: str) -> str:
        """Return the name of a guest's template: short, because names are, and unlike any other's."""
        number = sorted(self.attack.guests).index(guest)
        return f"attacks/{self.name[:36]}-{number}"


def template_names(cases: Sequence[Case]) -> dict[str, tuple[Case, Guest]]:
    """Return every guest by its template's name.

    Raises:
        ValueError: two would have the same name.
    """
    found: dict[str, tuple[Case, Guest]] = {}
    for case in cases:
        for key, guest in case.attack.guests.items():
            name = case.template(key)
            if name in found:
                raise ValueError(f"expected one template {name}, got those of {found[name][0].name} and {case.name}")
            found[name] = case, guest
    return found
