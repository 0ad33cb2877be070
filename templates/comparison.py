"""How what is proposed differs from what is active: one line for each right, code and module included.

A right is *widened* when the new one permits anything that the old one did not, *narrowed* when it permits less,
*changed* when the two cannot be compared (other code, another image), *same* otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from templates.capabilities import Capabilities
from templates.document import LeaseExpiry
from templates.grants import Grants
from templates.limits import LIMIT_NAMES
from templates.names import TemplatePattern
from templates.problems import join
from templates.resolved import PinnedModule, PinnedSource

T = TypeVar("T")
_FROM_STRICTEST = (LeaseExpiry.STOP, LeaseExpiry.DRAIN, LeaseExpiry.NO_NEW_AGENTS, LeaseExpiry.CONTINUE)


class Direction(StrEnum):
    """What a difference means to someone who guards rights."""

    WIDENED = "widened"
    NARROWED = "narrowed"
    CHANGED = "changed"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a comparison: ``subject`` is a JSON pointer into the capabilities; texts are ready to show.

    ``old`` or ``new`` is empty where there is nothing.
    """

    direction: Direction
    subject: str
    old: str
    new: str


def difference(old: Capabilities | None, new: Capabilities) -> Sequence[Entry]:
    """Compare what is active with what is proposed; without ``old`` everything that ``new`` can do is widened."""
    return tuple(_entries(old, new))


def _entries(old: Capabilities | None, new: Capabilities) -> Iterator[Entry]:
    yield from _code_entries(old, new)
    yield from _set_entries("/imports", old.imports if old else (), new.imports, str.__eq__)
    yield from _set_entries("/interfaces", old.interfaces if old else (), new.interfaces, str.__eq__)
    yield from grant_entries(old.grants if old else Grants(), new.grants)
    for name in LIMIT_NAMES:
        before = None if old is None else int(getattr(old.limits, name))
        yield _entry(f"/limits/{name}", before, int(getattr(new.limits, name)), int.__ge__)
    yield from _set_entries("/callers", old.callers if old else (), new.callers, TemplatePattern.covers)
    expiry = None if old is None else old.on_lease_expiry
    yield _entry("/on_lease_expiry", expiry, new.on_lease_expiry, _is_as_lenient)


def _code_entries(old: Capabilities | None, new: Capabilities) -> Iterator[Entry]:
    before, after = _code_texts(old), _code_texts(new)
    for subject in sorted(before.keys() | after.keys()):
        was, now = before.get(subject, ""), after.get(subject, "")
        yield Entry(direction=Direction.SAME if was == now else Direction.CHANGED, subject=subject, old=was, new=now)


def _code_texts(capabilities: Capabilities | None) -> dict[str, str]:
    if capabilities is None:
        return {}
    texts = {"/template": str(capabilities.template), "/abi": capabilities.abi}
    match capabilities.code:
        case PinnedModule(module=module):
            texts["/code/module"] = f"{module.sha256} ({module.length} bytes)"
        case PinnedSource(source=source, file=file, image=image):
            texts["/code/source"] = f"{source.sha256} ({file}, {source.length} bytes)"
            texts["/code/image"] = f"{image.template} {image.sha256} ({image.length} bytes)"
        case None:
            pass
    return texts


def grant_entries(old: Grants, new: Grants) -> Iterator[Entry]:
    """Compare grants one by one; subjects are pointers that begin with ``/grants/``."""
    before, after = _single_grants(old), _single_grants(new)
    for subject in sorted(before.keys() | after.keys()):
        yield _entry(subject, before.get(subject), after.get(subject), Grants.covers, text=_grant_text)
    yield from _set_entries("/grants/agents", old.agents, new.agents, TemplatePattern.covers)


def _single_grants(grants: Grants) -> dict[str, Grants]:
    """Split grants by what the guest calls each thing; of several with one name, none hides another."""
    parts = [] if grants.kv is None else [("/grants/kv", Grants(kv=grants.kv))]
    parts += [(join("/grants/http", each.binding), Grants(http=(each,))) for each in grants.http]
    parts += [(join("/grants/llm", each.binding), Grants(llm=(each,))) for each in grants.llm]
    parts += [(join("/grants/files", each.mount), Grants(files=(each,))) for each in grants.files]
    singles: dict[str, Grants] = {}
    for subject, part in parts:
        known = singles.get(subject, Grants())
        singles[subject] = replace(
            part, http=known.http + part.http, llm=known.llm + part.llm, files=known.files + part.files
        )
    return singles


def _grant_text(grants: Grants) -> str:
    texts = [f"namespace {grants.kv.namespace}, at most {grants.kv.bytes_max} bytes"] if grants.kv else []
    for http in grants.http:
        secret = f", {http.inject.header} from the secret {http.inject.secret}" if http.inject else ""
        headers = f", may set {' '.join(http.headers)}" if http.headers else ""
        texts.append(f"{' '.join(http.methods)} {http.origin} below {' '.join(http.path_prefixes)}{headers}{secret}")
    for llm in grants.llm:
        cost = "" if llm.cost_max_microusd is None else f", {llm.cost_max_microusd / 1e6:g} USD"
        texts.append(f"{' '.join(llm.models)}, at most {llm.tokens_max} tokens{cost}")
    texts += [f"the export {file.export}, {file.mode}" for file in grants.files]
    return "; ".join(texts)


def _set_entries(subject: str, old: Iterable[T], new: Iterable[T], covers: Callable[[T, T], bool]) -> Iterator[Entry]:
    """Compare sets member by member; what only a wider member replaces is not an entry of its own."""
    before, after = {str(each): each for each in old}, {str(each): each for each in new}
    for name in sorted(before.keys() | after.keys()):
        if name in after:
            known = name in before
            covered = any(covers(each, after[name]) for each in before.values())
            direction = Direction.SAME if known else Direction.NARROWED if covered else Direction.WIDENED
            yield Entry(direction=direction, subject=join(subject, name), old=name if known else "", new=name)
        elif not any(covers(each, before[name]) for each in after.values()):
            yield Entry(direction=Direction.NARROWED, subject=join(subject, name), old=name, new="")


def _entry(
    subject: str, old: T | None, new: T | None, covers: Callable[[T, T], bool], *, text: Callable[[T], str] = str
) -> Entry:
    if old is None:
        direction = Direction.WIDENED
    elif new is None:
        direction = Direction.NARROWED
    elif covers(new, old):
        direction = Direction.SAME if covers(old, new) else Direction.WIDENED
    else:
        direction = Direction.NARROWED if covers(old, new) else Direction.WIDENED
    return Entry(
        direction=direction,
        subject=subject,
        old="" if old is None else text(old),
        new="" if new is None else text(new),
    )


def _is_as_lenient(ours: LeaseExpiry, theirs: LeaseExpiry) -> bool:
    return _FROM_STRICTEST.index(ours) >= _FROM_STRICTEST.index(theirs)
