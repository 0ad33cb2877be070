"""An exported audit log, verified on this machine: from the root of trust that lies here, against what nodes hold."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from templates.audit_checkpoint import keys_of_chain, read_checkpoint
from templates.audit_entry import ENTRY_BYTES_MAX, AuditInvalidError
from templates.audit_verification import ChainVerifier, Verdict, Witnessed
from templates.canonical import NotCanonicalError
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError
from templates.strict_json import read_canonical

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

HEADER_BYTES_MAX: Final = 16 << 20
_CHECKPOINT: Final = b'{"payload":'
"""How a checkpoint's line begins, and an entry's never does: canonical JSON orders names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of an export. ``newest`` is the newest checkpoint that there was; empty for none."""

    environment: str
    is_extract: bool
    roots: Sequence[bytes]
    newest: bytes


def read_header(line: bytes) -> Header:
    """Read the first line; raise `AuditInvalidError` when it is none."""
    try:
        value = read_canonical(line, bytes_max=HEADER_BYTES_MAX, depth_max=4)
    except (InvalidDocumentError, NotCanonicalError) as error:
        raise AuditInvalidError(f"line 1: expected the header of an export, got: {error.message}") from None
    match value:
        case {
            "audit_export": 1,
            "environment": str(environment),
            "extract": bool(extract),
            "roots": list(roots),
            "checkpoint": str(newest),
            **rest,
        } if not rest and all(isinstance(root, str) for root in roots):
            pass
        case _:
            raise AuditInvalidError("line 1: expected the header of an export (audit_export 1)")
    try:
        decoded = [base64.b64decode(str(root), validate=True) for root in roots]
    except binascii.Error as error:
        raise AuditInvalidError(f"line 1: expected roots in base64, got {error}") from None
    return Header(environment=environment, is_extract=extract, roots=decoded, newest=newest.encode())


def verify_export(lines: Iterable[bytes], *, root: bytes, held_by_nodes: Mapping[str, bytes]) -> Verdict:
    """Verify an export line by line.

    Args:
        lines: as `agentctl audit export` wrote them, with or without their line feeds.
        root: the root of trust that this machine pinned.
        held_by_nodes: the checkpoint that each node holds, by the node's id; empty where it holds none.

    Raises:
        AuditInvalidError: it is no export, or an extract, or a node's checkpoint is none.
        AgentFactoryError: the roots in it do not follow from ``root``, or a node's checkpoint is not signed.
    """
    rest = (line.removesuffix(b"\n") for line in lines)
    header = read_header(next(rest, b""))
    if header.is_extract:
        raise AuditInvalidError("expected a whole export, got an extract: what was left out cannot be told from cuts")
    keys = keys_of_chain(root, header.roots)
    verifier = ChainVerifier(keys, list(_witnessed(held_by_nodes, keys)))
    for line in rest:
        if line.startswith(_CHECKPOINT):
            verifier.checkpoint(line)
        else:
            verifier.entry(line[: ENTRY_BYTES_MAX + 1])
    return verifier.finish(newest=header.newest or None)


def _witnessed(held: Mapping[str, bytes], keys: "Mapping[str, SSlibKey]") -> Iterator[Witnessed]:
    for node, document in sorted(held.items()):
        if not document:
            continue
        try:
            seen = read_checkpoint(document).verify(keys)
        except AgentFactoryError as error:
            raise AuditInvalidError(f"{node}: its checkpoint: {error.message}") from None
        yield Witnessed(node=node, sequence=seen.sequence, entry_sha256=seen.entry_sha256)


def verdict_values(verdict: Verdict, *, nodes: Sequence[str]) -> dict[str, Any]:
    """Return a verdict as plain values."""
    return {
        "whole": verdict.is_whole,
        "entries": verdict.entries,
        "first": verdict.first,
        "last": verdict.last,
        "removed": verdict.removed,
        "head": verdict.head,
        "signed": verdict.checkpoint.time.isoformat() if verdict.checkpoint else "",
        "nodes": list(nodes),
        "findings": [
            {"kind": str(each.kind), "first": each.first, "last": each.last, "message": each.message}
            for each in verdict.findings
        ],
    }
