"""Audit logs as a control plane writes them, made in memory: entries chained, checkpoints signed."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner

from templates.audit_checkpoint import Checkpoint, sign_checkpoint
from templates.audit_entry import NOTHING_BEFORE, RETENTION_ACTION, AuditEntry, Outcome, entry_digest
from templates.audit_verification import ChainVerifier, Verdict, Witnessed

BEGAN = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SIGNER = CryptoSigner.generate_ed25519()
STRANGER = CryptoSigner.generate_ed25519()
KEYS = {SIGNER.public_key.keyid: SIGNER.public_key}


def entry(sequence: int, previous: str, **members: object) -> AuditEntry:
    made = AuditEntry(
        sequence=sequence,
        previous=previous,
        time=BEGAN + timedelta(seconds=sequence),
        principal="spiffe://factory.test/person/alice",
        roles=("person",),
        address="127.0.0.1",
        action="ChangeService/ApproveChange",
        resource=f"changes/{sequence}",
        digests={"template": f"{sequence:064x}"},
        outcome=Outcome.DONE,
        code="",
        reason="",
        details={},
        trace_id="",
    )
    return replace(made, **members)  # type: ignore[arg-type]


@dataclass
class Log:
    """Lines in the order of an export: entries are bytes, checkpoints are `Signed`."""

    lines: "list[bytes | Signed]" = field(default_factory=list)
    _head: str = NOTHING_BEFORE
    _last: int = 0
    _checkpoint: str = NOTHING_BEFORE

    def write(self, **members: object) -> bytes:
        line = entry(self._last + 1, self._head, **members).to_bytes()
        self.lines.append(line)
        self._last, self._head = self._last + 1, entry_digest(line)
        return line

    def sign(self, signer: CryptoSigner = SIGNER) -> bytes:
        checkpoint = Checkpoint(
            environment="test",
            sequence=self._last,
            entry_sha256=self._head,
            previous=self._checkpoint,
            time=BEGAN.replace(microsecond=0),
        )
        self._checkpoint = checkpoint.digest
        document = sign_checkpoint(checkpoint, signer)
        self.lines.append(Signed(document, checkpoint))
        return document

    def remove(self, through: int) -> None:
        """Do what retention does: say so, and let the entries go; checkpoints stay."""
        self.write(action=RETENTION_ACTION, details={"through": str(through)})
        self.sign()
        gone = through
        kept: list[bytes | Signed] = []
        for line in self.lines:
            if isinstance(line, bytes) and gone:
                gone -= 1
            else:
                kept.append(line)
        self.lines = kept


@dataclass(frozen=True)
class Signed:
    document: bytes
    checkpoint: Checkpoint


def log_of(entries: int, checkpoints: Collection[int]) -> Log:
    """A log with checkpoints behind the entries of these numbers, and behind the last."""
    log = Log()
    for sequence in range(1, entries + 1):
        log.write()
        if sequence in checkpoints or sequence == entries:
            log.sign()
    return log


def judge(
    lines: "list[bytes | Signed]", *, newest: bytes | None = None, witnessed: Collection[Witnessed] = ()
) -> Verdict:
    verifier = ChainVerifier(KEYS, witnessed)
    for line in lines:
        if isinstance(line, Signed):
            verifier.checkpoint(line.document)
        else:
            verifier.entry(line)
    return verifier.finish(newest=newest)
