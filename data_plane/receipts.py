"""Receipts as this node signs them: from the record of an invocation, for whoever gets its answer or looks it up."""

from datetime import UTC, datetime, timedelta
from typing import Final

from agentfactory.agent.v1 import agent_pb2 as pb

from data_plane.agents.invocations import InvocationRecord, UsageRecord
from service.receipt_keys import ReceiptSigner
from templates.receipt import Draft, begin_statement, end_statement, stencil

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class ReceiptDesk:
    """Signs what the log says. Ed25519 is deterministic: looked up again, a receipt is the same until a restart."""

    def __init__(self, signer: ReceiptSigner, *, node_uri: str) -> None:
        self._signer = signer
        self._node_uri = node_uri
        self._key_id = signer.voucher.key_id

    def begin(self, made: pb.Receipt, record: InvocationRecord) -> Draft:
        """Prepare what can be said while the invocation runs; the salt goes out while it is still known."""
        made.key_id = self._key_id
        made.salt = record.salt
        common = stencil(
            node=self._node_uri,
            agent=record.agent_id,
            generation=record.generation,
            caller=record.caller,
            template=f"{record.template}@{record.version}",
            template_sha256=record.template_sha256,
            code_sha256=record.code_sha256,
            image_sha256=record.image_sha256,
            config_sha256=record.config_sha256,
        )
        return begin_statement(
            common,
            invocation=record.invocation_id,
            parent=record.parent_invocation_id,
            started_us=(record.started_at - _EPOCH) // _MICROSECOND,
            input_hmac_sha256=record.input_hmac_sha256,
        )

    def end(self, made: pb.Receipt, record: InvocationRecord, draft: Draft | None) -> None:
        """Say how it ended, and sign; an answer waits for this."""
        usage = record.usage
        statement = end_statement(
            draft or self.begin(made, record),
            outcome=record.outcome,
            output_hmac_sha256=record.output_hmac_sha256,
            usage=_amounts(usage),
        )
        made.statement = statement.decode()
        made.signature = self._signer.sign(statement)

    def key(self) -> pb.ReceiptKey:
        """Return the key's voucher, as callers get it."""
        voucher = self._signer.voucher
        return pb.ReceiptKey(
            key_id=voucher.key_id,
            statement=voucher.statement.decode(),
            signature=voucher.signature,
            certificates=voucher.certificates.decode(),
        )


def _amounts(usage: UsageRecord) -> dict[str, int]:
    """Return every amount in canonical order. Those of grants are named where any of them was used (ADR 15)."""
    amounts = {
        "child_invocations": usage.child_invocations,
        "fuel": usage.fuel,
        "guest_us": usage.guest_us,
        "host_calls": usage.host_calls,
        "input_bytes": usage.input_bytes,
        "log_bytes": usage.log_bytes,
        "output_bytes": usage.output_bytes,
        "received_bytes": usage.received_bytes,
        "sent_bytes": usage.sent_bytes,
        "tokens": usage.tokens,
        "wall_us": usage.wall_us,
        "wasi_calls": usage.wasi_calls,
    }
    return amounts if usage.grants is None else dict(sorted((amounts | usage.grants.amounts()).items()))
