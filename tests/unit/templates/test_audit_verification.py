"""Verification finds every edit, deletion, insertion, reordering and truncation, and names the place."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.audit_checkpoint import (
    AuditForkedError,
    Checkpoint,
    follow,
    keys_of_chain,
    read_checkpoint,
    sign_checkpoint,
)
from templates.audit_entry import AuditInvalidError, entry_digest, read_audit_entry
from templates.audit_verification import FindingKind, Verdict, Witnessed
from templates.canonical import JsonValue, NotCanonicalError, canonical_bytes
from templates.keys import SignatureInvalidError
from tests.audit_world import KEYS, SIGNER, STRANGER, Log, Signed, entry, judge, log_of

Lines = list[bytes | Signed]


@st.composite
def logs(draw: st.DrawFn, entries_min: int = 2) -> Log:
    entries = draw(st.integers(entries_min, 24))
    return log_of(entries, draw(st.sets(st.integers(1, entries))))


EDITS: list[tuple[str, JsonValue]] = [
    ("principal", "spiffe://factory.test/person/mallory"),
    ("outcome", "REFUSED"),
    ("resource", "changes/999"),
    ("time", "2026-01-01T00:00:00.000000Z"),
    ("previous", "f" * 64),
    ("details", {"more": "x"}),
    ("count", 2),
]


def entry_places(lines: Lines) -> list[int]:
    return [at for at, line in enumerate(lines) if isinstance(line, bytes)]


def number(line: bytes | Signed) -> int:
    assert isinstance(line, bytes)
    return read_audit_entry(line).sequence


def names(verdict: Verdict, sequence: int, *, within: int = 2) -> bool:
    """Whether a finding names ``sequence``, in a range of at most ``within`` entries."""
    return any(each.first <= sequence <= each.last and each.last - each.first < within for each in verdict.findings)


@given(logs())
def test_a_log_that_nobody_touched_is_whole(log: Log) -> None:
    verdict = judge(log.lines)
    assert verdict.findings == ()
    assert (verdict.first, verdict.last) == (1, verdict.entries)
    assert verdict.checkpoint is not None
    assert verdict.checkpoint.entry_sha256 == verdict.head


@given(logs(), st.data())
def test_an_edited_field_is_found_at_its_entry(log: Log, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(entry_places(log.lines)))
    line = log.lines[at]
    assert isinstance(line, bytes)
    value = json.loads(line)
    name, to = data.draw(st.sampled_from(EDITS))
    verdict = judge([*log.lines[:at], canonical_bytes({**value, name: to}), *log.lines[at + 1 :]])
    # At the last entry before a checkpoint it is the checkpoint that shows it: at most its stretch is named.
    assert any(each.first <= value["sequence"] <= each.last for each in verdict.findings)
    following = log.lines[at + 1]
    if isinstance(following, bytes):
        assert names(verdict, value["sequence"], within=3)


@given(logs(), st.data())
def test_any_flipped_bit_of_any_line_is_found(log: Log, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(log.lines) - 1))
    line = log.lines[at]
    content = bytearray(line.document if isinstance(line, Signed) else line)
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    changed = replace(line, document=bytes(content)) if isinstance(line, Signed) else bytes(content)
    assert not judge([*log.lines[:at], changed, *log.lines[at + 1 :]]).is_whole


@given(logs(), st.data())
def test_deleted_entries_are_named(log: Log, data: st.DataObject) -> None:
    places = entry_places(log.lines)
    first = data.draw(st.integers(0, len(places) - 1))
    gone = places[first : first + data.draw(st.integers(1, 3))]
    verdict = judge([line for at, line in enumerate(log.lines) if at not in gone])
    for at in gone:
        low, high = number(log.lines[gone[0]]), number(log.lines[gone[-1]])
        sequence = number(log.lines[at])
        assert any(
            each.kind is FindingKind.MISSING and low <= each.first <= sequence <= each.last <= high
            for each in verdict.findings
        )


@given(logs(), st.data())
def test_an_inserted_entry_is_named(log: Log, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(entry_places(log.lines)))
    line = log.lines[at]
    assert isinstance(line, bytes)
    value = {**json.loads(line), "resource": "changes/1000"}
    where = data.draw(st.sampled_from([at, at + 1]))
    verdict = judge([*log.lines[:where], canonical_bytes(value), *log.lines[where:]])
    assert any(each.kind is FindingKind.INSERTED and each.first == value["sequence"] for each in verdict.findings)


@given(logs(), st.data())
def test_entries_that_changed_places_are_named(log: Log, data: st.DataObject) -> None:
    places = entry_places(log.lines)
    one, other = sorted(data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True)))
    lines = list(log.lines)
    lines[one], lines[other] = lines[other], lines[one]
    verdict = judge(lines)
    assert any(each.kind is FindingKind.REORDERED for each in verdict.findings)
    assert any(each.first <= number(log.lines[one]) <= each.last for each in verdict.findings)


@given(logs(), st.data())
def test_a_cut_end_is_found(log: Log, data: st.DataObject) -> None:
    newest = log.lines[-1]
    assert isinstance(newest, Signed)
    kept = data.draw(st.integers(0, len(log.lines) - 1))
    verdict = judge(log.lines[:kept], newest=newest.document)
    last = sum(isinstance(line, bytes) for line in log.lines[:kept])
    assert any(
        each.kind in {FindingKind.TRUNCATED, FindingKind.MISSING} and each.last >= max(last, 1)
        for each in verdict.findings
    )


@given(logs(entries_min=3), st.data())
def test_a_cut_beginning_is_found(log: Log, data: st.DataObject) -> None:
    places = entry_places(log.lines)
    first = data.draw(st.integers(1, len(places) - 1))
    for kept in (log.lines[places[first] :], [line for at, line in enumerate(log.lines) if at not in places[:first]]):
        verdict = judge(kept)
        assert any(each.kind is FindingKind.MISSING and each.first == 1 for each in verdict.findings)


@given(logs(), st.data())
def test_a_chain_that_was_computed_anew_does_not_fit_its_checkpoints(log: Log, data: st.DataObject) -> None:
    """Who may write the database but not sign: every link holds, the first checkpoint behind the edit does not."""
    edited = data.draw(st.integers(1, len(entry_places(log.lines))))
    forged, sequence, covered = Log(), 0, 0
    lines: Lines = []
    for line in log.lines:
        if isinstance(line, Signed):
            lines.append(line)
            covered = covered or (line.checkpoint.sequence if sequence >= edited else 0)
        else:
            sequence += 1
            lines.append(forged.write(**({"resource": "changes/1000"} if sequence == edited else {})))
    verdict = judge(lines)
    assert verdict.findings[0].kind is FindingKind.EDITED
    assert verdict.findings[0].first <= edited <= verdict.findings[0].last == covered


@given(logs(), st.data())
def test_a_log_signed_anew_is_found_by_what_nodes_saw(log: Log, data: st.DataObject) -> None:
    """Who may write the database and sign: nothing inside of the log shows it, a node's checkpoint does."""
    signed = [line.checkpoint for line in log.lines if isinstance(line, Signed)]
    seen = data.draw(st.sampled_from(signed))
    forged = Log()
    for line in log.lines:
        forged.sign() if isinstance(line, Signed) else forged.write(address="10.0.0.1")
    assert judge(forged.lines).is_whole
    witnessed = Witnessed(node="node-1", sequence=seen.sequence, entry_sha256=seen.entry_sha256)
    (finding,) = judge(forged.lines, witnessed=[witnessed]).findings
    assert (finding.kind, finding.first) == (FindingKind.WITNESS, seen.sequence)
    assert judge(log.lines, witnessed=[witnessed]).is_whole


def test_a_log_cut_and_signed_anew_is_found_by_what_nodes_saw() -> None:
    log = log_of(5, ())
    witnessed = Witnessed(node="node-1", sequence=9, entry_sha256="a" * 64)
    assert [each.kind for each in judge(log.lines, witnessed=[witnessed]).findings] == [FindingKind.WITNESS]


@given(logs(), st.integers(1, 24))
def test_what_retention_removed_is_stood_for_by_a_checkpoint(log: Log, wanted: int) -> None:
    signed = [line.checkpoint for line in log.lines if isinstance(line, Signed)]
    through = next((each.sequence for each in signed if each.sequence >= wanted), signed[-1].sequence)
    log.remove(through)
    log.write()
    log.sign()
    verdict = judge(log.lines)
    assert verdict.findings == ()
    assert (verdict.removed, verdict.first) == (through, through + 1)
    seen = Witnessed(node="node-1", sequence=signed[0].sequence, entry_sha256=signed[0].entry_sha256)
    assert judge(log.lines, witnessed=[seen]).is_whole, "checkpoints outlive what they stand for"
    other = replace(seen, entry_sha256="b" * 64)
    assert [each.kind for each in judge(log.lines, witnessed=[other]).findings] == [FindingKind.WITNESS]


@given(logs(), st.data())
def test_a_missing_or_foreign_checkpoint_is_found(log: Log, data: st.DataObject) -> None:
    places = [at for at, line in enumerate(log.lines) if isinstance(line, Signed)]
    at = data.draw(st.sampled_from(places))
    without = judge([*log.lines[:at], *log.lines[at + 1 :]])
    assert not without.is_whole
    line = log.lines[at]
    assert isinstance(line, Signed)
    foreign = replace(line, document=sign_checkpoint(line.checkpoint, STRANGER))
    verdict = judge([*log.lines[:at], foreign, *log.lines[at + 1 :]])
    assert FindingKind.CHECKPOINT in {each.kind for each in verdict.findings}


def test_a_line_hashes_to_what_the_next_one_says_with_common_tools() -> None:
    log = log_of(3, ())
    lines = [line for line in log.lines if isinstance(line, bytes)]
    assert json.loads(lines[1])["previous"] == entry_digest(lines[0])
    assert all(b"\n" not in line for line in lines)


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"null", b"\xff", b'{"schema":1}', b"9" * 20_000])
def test_what_is_no_entry_and_no_checkpoint_is_refused(line: bytes) -> None:
    with pytest.raises(AuditInvalidError):
        read_audit_entry(line)
    with pytest.raises(AuditInvalidError):
        read_checkpoint(line)


@given(
    st.text(max_size=40),
    st.integers(1, 2**53 - 1),
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), st.text(max_size=9), max_size=4),
)
def test_the_quick_reading_takes_exactly_what_the_canonical_form_allows(
    text: str, count: int, details: dict[str, str]
) -> None:
    made = entry(3, "a" * 64, reason=text, count=count, details=details)
    try:
        line = made.to_bytes()
    except NotCanonicalError:
        return
    assert read_audit_entry(line) == made
    for other in (
        line.replace(b'"count":', b'"count": '),
        line.replace(b'"count":' + str(count).encode(), b'"count":' + str(count).encode() + b".0"),
        line.replace(b'"schema":1', b'"schema":1,"schema":1'),
        line.replace(b'"code":""', b'"code":"\\u0041"'),
        json.dumps(json.loads(line), sort_keys=False).encode(),
        line + b"\n",
        b"[" * 9_000,
    ):
        with pytest.raises(AuditInvalidError):
            read_audit_entry(other)


# What nodes hold


def documents(log: Log) -> list[bytes]:
    return [line.document for line in log.lines if isinstance(line, Signed)]


@given(logs(), st.data())
def test_a_node_moves_on_along_the_chain_only(log: Log, data: st.DataObject) -> None:
    chain = documents(log)
    held = data.draw(st.integers(0, len(chain) - 1))
    if held + 1 < len(chain):
        assert follow(chain[held], chain[held + 1 :], keys=KEYS, environment="test") == chain[-1]
    assert follow(chain[held], [chain[held]], keys=KEYS, environment="test") is None
    assert follow(None, [chain[held]], keys=KEYS, environment="test") == chain[held]
    skipped = chain[held + 2 :]
    older = chain[:held]
    forged = documents(log_of(40, set(range(1, 40))))
    for offered in (skipped, older, forged[30:]):
        if offered:
            with pytest.raises(AuditForkedError):
                follow(chain[held], offered, keys=KEYS, environment="test")


def test_a_node_takes_no_checkpoint_of_a_stranger_or_another_environment() -> None:
    log = log_of(2, ())
    (document,) = documents(log)
    stranger = sign_checkpoint(read_checkpoint(document).checkpoint, STRANGER)
    with pytest.raises(SignatureInvalidError):
        follow(None, [stranger], keys=KEYS, environment="test")
    with pytest.raises(AuditInvalidError):
        follow(None, [document], keys=KEYS, environment="production")
    with pytest.raises(AuditInvalidError):
        follow(None, [], keys=KEYS, environment="test")


def test_a_signature_of_one_kind_stands_for_no_other() -> None:
    """The same key signs TUF metadata: what is signed here is a DSSE encoding, which no metadata is."""
    checkpoint = read_checkpoint(documents(log_of(1, ()))[0]).checkpoint
    plain = SIGNER.sign(checkpoint.to_payload())
    signed = read_checkpoint(sign_checkpoint(checkpoint, SIGNER))
    with pytest.raises(SignatureInvalidError):
        replace(signed, signature=plain).verify(KEYS)


def test_old_checkpoints_verify_after_the_root_has_moved_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    from templates.repository import RoleKeys, RootSpec, build_root
    from tests.installation import make_installation

    installation = make_installation(tmp_path_factory.mktemp("keys") / "one")
    online = installation.online
    newer = build_root(
        RootSpec(
            environment="test",
            mode=installation.charter.mode,
            version=2,
            expires=installation.expires,
            root=RoleKeys(keys=(installation.root.public_key,)),
            targets=RoleKeys(keys=(installation.targets.public_key,)),
            snapshot=RoleKeys(keys=(SIGNER.public_key,)),
            timestamp=RoleKeys(keys=(online.timestamp.public_key,)),
        ),
        [installation.root],
    )
    pinned = installation.trust.roots[0]
    assert set(keys_of_chain(pinned, [pinned])) == {online.snapshot.public_key.keyid}
    assert set(keys_of_chain(pinned, [pinned, newer])) == {online.snapshot.public_key.keyid, SIGNER.public_key.keyid}
    assert set(keys_of_chain(newer, [pinned, newer])) == {SIGNER.public_key.keyid}


def test_checkpoints_are_made_once() -> None:
    checkpoint = Checkpoint(
        environment="test",
        sequence=1,
        entry_sha256="a" * 64,
        previous="0" * 64,
        time=read_checkpoint(documents(log_of(1, ()))[0]).checkpoint.time,
    )
    assert read_checkpoint(sign_checkpoint(checkpoint, SIGNER)).checkpoint == checkpoint
