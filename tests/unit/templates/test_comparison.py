from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from templates.capabilities import Capabilities, derive
from templates.comparison import Direction, Entry, difference
from templates.document import LeaseExpiry
from templates.grants import Grants
from templates.limits import DEFAULT_LIMITS, Limits
from templates.names import TemplatePattern
from templates.resolved import BlobPin, PinnedSource
from tests.unit.templates import documents
from tests.unit.templates.documents import COMMAND, SOURCE, report, resolved

BASE = derive(
    resolved(
        code=SOURCE,
        grants={
            "kv": {"namespace": "notes", "bytes_max": 100},
            "http": [
                {
                    "binding": "crossref",
                    "origin": "https://api.crossref.org",
                    "methods": ["GET"],
                    "path_prefixes": ["/works"],
                    "inject": {"header": "Authorization", "secret": "token"},
                }
            ],
            "llm": [{"binding": "default", "models": ["small"], "tokens_max": 10}],
            "agents": ["code/*"],
            "files": [{"mount": "/data", "export": "corpus", "mode": "ro"}],
        },
        callers=["docs/writer"],
        on_lease_expiry="drain",
    ),
    report(sha256="b" * 64, length=20_000_000, exports=("load", "process")),
)
HTTP = BASE.grants.http[0]


def _found(old: Capabilities | None, new: Capabilities) -> dict[str, Entry]:
    return {entry.subject: entry for entry in difference(old, new) if entry.direction is not Direction.SAME}


def _with_grants(**members: Any) -> Capabilities:
    return replace(BASE, grants=replace(BASE.grants, **members))


def test_what_is_the_same_is_said_to_be_the_same() -> None:
    entries = difference(BASE, BASE)
    assert {entry.direction for entry in entries} == {Direction.SAME}
    subjects = {entry.subject for entry in entries}
    assert {"/limits/fuel", "/grants/kv", "/callers/docs~1writer", "/code/source", "/code/image"} <= subjects


def test_a_first_version_is_all_new() -> None:
    entries = difference(None, BASE)
    rights = [entry for entry in entries if entry.subject.split("/")[1] not in {"code", "abi", "template"}]
    assert {entry.direction for entry in rights} == {Direction.WIDENED}
    assert all(entry.old == "" and entry.new for entry in entries)


def _source(**members: Any) -> PinnedSource:
    return replace(SOURCE, **members)


@pytest.mark.parametrize(
    ("new", "subject", "direction"),
    [
        (replace(BASE, limits=replace(BASE.limits, fuel=1)), "/limits/fuel", "narrowed"),
        (replace(BASE, limits=replace(BASE.limits, wall_ms=10_001)), "/limits/wall_ms", "widened"),
        (_with_grants(kv=None), "/grants/kv", "narrowed"),
        (_with_grants(kv=replace(BASE.grants.kv, bytes_max=99)), "/grants/kv", "narrowed"),  # type: ignore[type-var]
        (_with_grants(kv=replace(BASE.grants.kv, bytes_max=101)), "/grants/kv", "widened"),  # type: ignore[type-var]
        (_with_grants(kv=replace(BASE.grants.kv, namespace="other")), "/grants/kv", "widened"),  # type: ignore[type-var]
        (_with_grants(http=()), "/grants/http/crossref", "narrowed"),
        (_with_grants(http=(replace(HTTP, methods=("GET", "POST")),)), "/grants/http/crossref", "widened"),
        (_with_grants(http=(replace(HTTP, inject=None),)), "/grants/http/crossref", "narrowed"),
        (_with_grants(llm=(replace(BASE.grants.llm[0], models=("big",)),)), "/grants/llm/default", "widened"),
        (_with_grants(files=(replace(BASE.grants.files[0], mode="rw"),)), "/grants/files/~1data", "widened"),
        (_with_grants(agents=()), "/grants/agents/code~1*", "narrowed"),
        (replace(BASE, on_lease_expiry=LeaseExpiry.STOP), "/on_lease_expiry", "narrowed"),
        (replace(BASE, on_lease_expiry=LeaseExpiry.CONTINUE), "/on_lease_expiry", "widened"),
        (replace(BASE, imports=()), "/imports/wasi:io~1streams@0.2.0", "narrowed"),
        (replace(BASE, imports=(*BASE.imports, "wasi:io/poll@0.2.0")), "/imports/wasi:io~1poll@0.2.0", "widened"),
        (replace(BASE, interfaces=(*BASE.interfaces, "x")), "/interfaces/x", "widened"),
        (replace(BASE, code=_source(source=BlobPin(sha256="e" * 64, length=5))), "/code/source", "changed"),
        (replace(BASE, code=_source(image=replace(SOURCE.image, sha256="f" * 64))), "/code/image", "changed"),
        (replace(BASE, abi="component"), "/abi", "changed"),
    ],
)  # fmt: skip
def test_one_difference_is_one_entry(new: Capabilities, subject: str, direction: str) -> None:
    found = _found(BASE, new)
    if subject.startswith("/imports") and direction == "narrowed":
        assert found[subject].direction == direction
    else:
        assert {name: str(entry.direction) for name, entry in found.items()} == {subject: direction}


def test_a_pattern_that_replaces_a_narrower_one_is_one_widening() -> None:
    wider = replace(BASE, callers=(TemplatePattern("docs", "*"),))
    assert list(_found(BASE, wider)) == ["/callers/docs~1*"]
    assert _found(BASE, wider)["/callers/docs~1*"].direction is Direction.WIDENED
    assert {str(entry.direction) for entry in _found(wider, BASE).values()} == {"narrowed"}


def test_another_kind_of_code_is_a_change_of_everything_about_it() -> None:
    found = _found(BASE, replace(BASE, abi="command", code=COMMAND))
    assert {name: str(entry.direction) for name, entry in found.items()} == dict.fromkeys(
        ["/abi", "/code/image", "/code/module", "/code/source"], "changed"
    )
    assert found["/code/module"].new == f"{'c' * 64} (3000 bytes)"
    abstract = replace(BASE, abi="abstract", code=None)
    assert _found(abstract, BASE)["/code/image"].old == ""


def test_texts_are_for_people() -> None:
    found = _found(BASE, _with_grants(http=(replace(HTTP, path_prefixes=("/",)),)))
    entry = found["/grants/http/crossref"]
    assert entry.old == "GET https://api.crossref.org below /works, Authorization from the secret token"
    assert entry.new == "GET https://api.crossref.org below /, Authorization from the secret token"
    headers = _found(BASE, _with_grants(http=(replace(HTTP, headers=("cookie",)),)))["/grants/http/crossref"]
    assert (
        headers.new == "GET https://api.crossref.org below /works, may set cookie, Authorization from the secret token"
    )
    kv = _found(BASE, _with_grants(kv=None))["/grants/kv"]
    assert (kv.old, kv.new) == ("namespace notes, at most 100 bytes", "")


@given(documents.grants, documents.grants)
def test_no_widened_right_goes_unsaid(old: Grants, new: Grants) -> None:
    before, after = replace(BASE, grants=old), replace(BASE, grants=new)
    widened = [entry for entry in difference(before, after) if entry.direction is Direction.WIDENED]
    assert old.covers(new) or widened


@given(documents.limits)
def test_limits_are_compared_one_by_one(limits: Limits) -> None:
    found = _found(replace(BASE, limits=DEFAULT_LIMITS), replace(BASE, limits=limits))
    widened = {
        entry.subject.removeprefix("/limits/") for entry in found.values() if entry.direction is Direction.WIDENED
    }
    assert widened == set(limits.beyond(DEFAULT_LIMITS))
