"""What the audit log is told: who is calling, and what was decided. The one seam for everything that decides (ADR 22).

Whoever changes records writes its decision in the transaction of the change, in one line:

    with store.writing() as connection:
        connection.execute(…)
        store.record(connection, Decision(resource="changes/7", digests={"template": sha256}))

Who asks, from where and what was called is known already: `control_plane.audit_recorder.AuditRecorder` notes it for
every call before a handler runs, and writes by itself what handlers cannot: refusals, and calls that changed nothing. A
handler that may refuse says early what it is about: ``about("changes/7")``.

Nothing here holds a payload: a decision has names, digests, codes and what a person gave as a reason.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from templates.audit_entry import Outcome

RESOURCE_CHARACTERS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 500
OWN_ACTION: Final = "ControlPlane/Act"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision, without who made it.

    Args:
        resource: what it is about: ``changes/7``, ``templates/docs/echo@1.0.0``, ``nodes/node-1``.
        digests: SHA-256 of what was decided about, 64 hexadecimal digits, by a short name.
        outcome: `Outcome.DONE` for an effect.
        code: stable reason, of a refusal.
        reason: what a person gave as one.
        details: further facts by short names: numbers, names, states. Never payloads.
        action: ``Noun/Verb``; by default the call that is being answered.
    """

    resource: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome = Outcome.DONE
    code: str = ""
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    action: str = ""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call as the log names it. ``resource`` is filled in by its handler, ``recorded`` counts its entries."""

    principal: str = ""
    roles: Sequence[str] = ()
    address: str = ""
    action: str = OWN_ACTION
    trace_id: str = ""
    resource: str = ""
    recorded: int = field(default=0, compare=False)


_current: ContextVar[Call | None] = ContextVar("audited_call", default=None)


def current_call() -> Call | None:
    """Return the call that is being answered; None for what the control plane does by itself."""
    return _current.get()


def begin(call: Call) -> None:
    """Let ``call`` be the one that this task, and every thread and task that it starts, answers."""
    _current.set(call)


def about(resource: str) -> None:
    """Say what the call is about, so that its refusal can name it. One line, early in a handler."""
    if (call := _current.get()) is not None:
        call.resource = resource


@contextmanager
def acting(call: Call) -> Iterator[None]:
    """Let what runs inside be done on behalf of ``call``: for work that no peer asked for."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def one_line(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return ``text`` on one line, cut, without control characters: it ends in logs and on terminals."""
    cleaned = "".join(each if each.isprintable() else " " for each in text[: characters_max * 2])
    return " ".join(cleaned.split())[:characters_max]


_NUMBERED: Final = re.compile(r"[a-z][A-Za-z]{0,30}/[0-9]{1,18}")


def resource_name(text: str) -> str:
    """Return ``text`` if it names one of many by its number, ``changes/7``, otherwise "": requests hold anything."""
    return text if _NUMBERED.fullmatch(text) else ""
