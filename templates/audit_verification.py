"""Whether an audit log is whole: any edit, deletion, insertion, reordering or truncation, and where (ADR 22).

Feed a `ChainVerifier` every line in the order in which it stands in an export: an entry, or the checkpoint that covers
the entry before it. It keeps no more than the last digest, so a log may be as long as it likes.

What shows what:

    an entry's bytes were changed          the next entry's `previous`, or the next checkpoint
    an entry is gone                       a number is left out
    an entry was put in                    a number stands twice
    entries changed places                 a number comes late
    all of it was written anew             the next checkpoint, which cannot be signed anew
    the end was cut                        a checkpoint of entries that are not there; no checkpoint covers the end
    the beginning was cut                  no removal by retention speaks of it, or no checkpoint stands for it
    it was signed anew, with a stolen key  checkpoints that nodes hold
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from securesystemslib.signer import SSlibKey

from templates.audit_checkpoint import Checkpoint, is_first, read_checkpoint
from templates.audit_entry import NOTHING_BEFORE, RETENTION_ACTION, AuditInvalidError, entry_digest, read_audit_entry
from templates.keys import SignatureInvalidError

FINDINGS_MAX = 100


@unique
class FindingKind(StrEnum):
    EDITED = "EDITED"
    MISSING = "MISSING"
    INSERTED = "INSERTED"
    REORDERED = "REORDERED"
    TRUNCATED = "TRUNCATED"
    UNREADABLE = "UNREADABLE"
    CHECKPOINT = "CHECKPOINT"  # a checkpoint is not signed, not of this log, or out of its chain
    WITNESS = "WITNESS"  # a node saw another log


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with entries ``first`` to ``last``."""

    kind: FindingKind
    first: int
    last: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """``node`` saw a signed checkpoint by which entry ``sequence`` has this digest."""

    node: str
    sequence: int
    entry_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Entries ``first`` to ``last`` were read, the last of them with the digest ``head``; 0 when there was none.

    ``checkpoint`` is the newest one that verifies. ``removed`` is the last entry that retention removed.
    """

    entries: int
    first: int
    last: int
    head: str
    checkpoint: Checkpoint | None
    removed: int
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        return not self.findings


@dataclass(slots=True)
class ChainVerifier:
    """Call `entry` and `checkpoint` in order, then `finish`.

    Args:
        keys: that may sign checkpoints.
        witnessed: what nodes hold.
    """

    keys: Mapping[str, SSlibKey]
    witnessed: Iterable[Witnessed] = ()
    _findings: list[Finding] = field(default_factory=list)
    _missing: list[tuple[int, int]] = field(default_factory=list)
    _throughs: set[int] = field(default_factory=set)
    _entries: int = 0
    _first: int = 0
    _last: int = 0
    _digest: str = NOTHING_BEFORE
    _unsure: bool = False
    _newest: Checkpoint | None = None
    _seen: dict[int, list[Witnessed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in self.witnessed:
            self._seen.setdefault(each.sequence, []).append(each)

    def entry(self, line: bytes) -> None:
        """Take the next entry, as it stands there."""
        self._entries += 1
        digest = entry_digest(line)
        try:
            entry = read_audit_entry(line)
        except AuditInvalidError as error:
            at = self._last + 1
            self._find(FindingKind.UNREADABLE, at, at, f"expected entry {at}, got bytes that are none: {error.message}")
            self._last, self._digest, self._unsure = at, digest, True
            self._first = self._first or at
            return
        if not self._first:
            self._begin(entry.sequence, entry.previous)
        if entry.sequence <= self._last:
            self._late(entry.sequence)
            return
        if entry.sequence > self._last + 1:
            self._missing.append((self._last + 1, entry.sequence - 1))
            self._unsure = False
        elif entry.previous != self._digest:
            self._broken_link(entry.sequence)
        else:
            self._unsure = False
        self._last, self._digest = entry.sequence, digest
        if entry.action == RETENTION_ACTION and entry.details.get("through", "").isdecimal():
            self._throughs.add(int(entry.details["through"]))
        self._compare(entry.sequence, digest)

    def checkpoint(self, document: bytes) -> None:
        """Take a checkpoint, which stands behind the entry that it covers, or before all entries that are left."""
        try:
            signed = read_checkpoint(document)
            found = signed.verify(self.keys)
        except (AuditInvalidError, SignatureInvalidError) as error:
            self._find(FindingKind.CHECKPOINT, self._last, self._last, f"after entry {self._last}: {error.message}")
            return
        before = self._newest
        if before is None:
            linked = is_first(found) or not self._first
        else:
            linked = found.previous == before.digest and found.sequence > before.sequence
        if not linked:
            self._find(
                FindingKind.CHECKPOINT,
                before.sequence if before else 1,
                found.sequence,
                f"the checkpoint of entry {found.sequence} does not continue the one before: one is missing or moved",
            )
        self._newest = found
        if not self._first:  # retention removed what this one covers
            self._digest, self._last = found.entry_sha256, found.sequence
        elif found.sequence > self._last:
            self._missing.append((self._last + 1, found.sequence))
            self._last, self._digest, self._unsure = found.sequence, found.entry_sha256, False
        elif found.sequence < self._last:
            self._find(
                FindingKind.REORDERED,
                found.sequence,
                self._last,
                f"expected the checkpoint of entry {found.sequence} behind it, got it after entry {self._last}",
            )
        elif found.entry_sha256 != self._digest:
            self._rewritten(before, found)
        self._compare(found.sequence, found.entry_sha256)

    def finish(self, *, newest: bytes | None = None) -> Verdict:
        """Judge the whole.

        Args:
            newest: the newest checkpoint that there was when the log was read, if that is known from elsewhere.
        """
        covered = 0 if self._newest is None else self._newest.sequence
        if newest is not None:
            self._require_newest(newest, covered)
        if self._entries and self._last > covered:
            self._find(
                FindingKind.TRUNCATED,
                covered + 1,
                self._last,
                f"no checkpoint covers entries {covered + 1} to {self._last}: the end was cut, or changed",
            )
        if not self._entries and covered:
            self._missing.append((1, covered))
        for low, high in self._missing:
            self._find(FindingKind.MISSING, low, high, f"{_entries(low, high)} missing")
        if self._first > 1 and self._first - 1 not in self._throughs:
            self._find(
                FindingKind.MISSING,
                1,
                self._first - 1,
                f"{_entries(1, self._first - 1)} missing, and no entry says that retention removed them",
            )
        for sequence, seen in sorted(self._seen.items()):
            for each in seen:
                self._find(
                    FindingKind.WITNESS,
                    sequence,
                    sequence,
                    f"{each.node} saw entry {sequence}, which is not there: the log ends at {self._last}",
                )
        return Verdict(
            entries=self._entries,
            first=self._first,
            last=self._last,
            head=self._digest,
            checkpoint=self._newest,
            removed=max(self._first - 1, 0),
            findings=tuple(sorted(self._findings, key=lambda each: (each.first, each.last))),
        )

    def _begin(self, sequence: int, previous: str) -> None:
        self._first = sequence if self._newest is not None or sequence == 1 else 1
        if self._newest is None:
            return
        if sequence != self._newest.sequence + 1 or previous != self._newest.entry_sha256:
            covered = self._newest.sequence
            self._find(
                FindingKind.MISSING,
                covered + 1,
                max(sequence - 1, covered + 1),
                f"expected entry {covered + 1} behind the checkpoint that stands for what was removed, got {sequence}",
            )
        self._last, self._digest = sequence - 1, previous

    def _late(self, sequence: int) -> None:
        for at, (low, high) in enumerate(self._missing):
            if low <= sequence <= high:
                rest = [(low, sequence - 1), (sequence + 1, high)]
                self._missing[at : at + 1] = [each for each in rest if each[0] <= each[1]]
                message = f"entry {sequence} stands after entry {self._last}"
                self._find(FindingKind.REORDERED, sequence, sequence, message)
                return
        self._find(FindingKind.INSERTED, sequence, sequence, f"entry {sequence} stands there more than once")

    def _broken_link(self, sequence: int) -> None:
        """Two links in a row are broken where the entry between was changed, its own link included."""
        if self._unsure:
            last = self._findings[-1]
            if last.kind is FindingKind.EDITED and last.last == sequence - 1:
                self._findings.pop()
                self._edited(last.first, sequence - 1)
                return
        self._edited(sequence - 1, sequence)
        self._unsure = True

    def _edited(self, low: int, high: int) -> None:
        message = f"{_entries(low, high)} changed: the digest of one is not what the next one says"
        self._find(FindingKind.EDITED, low, high, message)

    def _rewritten(self, before: Checkpoint | None, found: Checkpoint) -> None:
        low = 1 if before is None else before.sequence + 1
        if any(each.first <= found.sequence and each.last >= low for each in self._findings):
            return  # the place is known better than that
        message = f"{_entries(low, found.sequence)} rewritten: the signed checkpoint has another digest"
        self._find(FindingKind.EDITED, low, found.sequence, message)

    def _require_newest(self, newest: bytes, covered: int) -> None:
        try:
            known = read_checkpoint(newest).verify(self.keys)
        except (AuditInvalidError, SignatureInvalidError) as error:
            self._find(FindingKind.CHECKPOINT, covered, covered, f"the newest checkpoint: {error.message}")
            return
        if known.sequence > covered:
            self._find(
                FindingKind.TRUNCATED,
                covered + 1,
                known.sequence,
                f"the log went on to entry {known.sequence}, and what is here ends at {self._last}",
            )

    def _compare(self, sequence: int, digest: str) -> None:
        for each in self._seen.pop(sequence, ()):
            if each.entry_sha256 != digest:
                self._find(
                    FindingKind.WITNESS,
                    sequence,
                    sequence,
                    f"{each.node} saw another entry {sequence}: this log was rewritten up to it",
                )

    def _find(self, kind: FindingKind, low: int, high: int, message: str) -> None:
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Finding(kind=kind, first=low, last=high, message=message))


def _entries(low: int, high: int) -> str:
    return f"entry {low} is" if low == high else f"entries {low} to {high} are"
