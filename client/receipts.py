"""Receipts that leave the client library: with everything that verifies them, and what their holder checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agentfactory.agent.v1 import agent_pb2 as pb
from cryptography import x509

from client.values import Receipt
from client.wire import receipt_of
from service.receipt_keys import Envelope, ReceiptUntrustedError, Voucher, verify_envelope
from service.status import RemoteError
from service.tls import TlsFilesError
from templates.receipt import Receipt as Statement
from templates.receipt import ReceiptInvalidError, require_committed

if TYPE_CHECKING:
    from collections.abc import Sequence


def voucher_of(message: pb.ReceiptKey) -> Voucher:
    """Return what a node says about its key."""
    return Voucher(
        key_id=message.key_id,
        statement=message.statement.encode(),
        signature=message.signature,
        certificates=message.certificates.encode(),
    )


def envelope_of(receipt: Receipt, vouchers: Mapping[str, Voucher]) -> Envelope:
    """Join a receipt and the voucher of its key.

    Raises:
        ReceiptUntrustedError: no node has that key: it was restarted. Look the invocation up, which signs anew.
    """
    if not receipt.statement:
        raise ReceiptInvalidError("expected a signed receipt, got one of a list; look the invocation up by its id")
    voucher = vouchers.get(receipt.key_id)
    if voucher is None:
        raise ReceiptUntrustedError(
            f"expected a node with the receipt key {receipt.key_id[:16]}…, got none: it was restarted since; "
            f"look invocation {receipt.invocation_id} up again"
        )
    return Envelope(
        statement=receipt.statement.encode(),
        signature=bytes.fromhex(receipt.signature),
        voucher=voucher,
        salt=bytes.fromhex(receipt.salt),
    )


def verify_receipt(
    data: bytes,
    *,
    authorities: Path | str,
    input: str | bytes | None = None,  # noqa: A002 -- what it is called everywhere
    output: str | bytes | None = None,
) -> Statement:
    """Return what a receipt file says, if an authority vouches for it; needs no node and no network.

    Args:
        data: what ``receipt_file`` returned, or `agentctl agent invoke --receipt` wrote.
        authorities: PEM file of the authorities to trust.
        input: what was asked; the receipt must speak of it.
        output: what was answered; the receipt must speak of it.

    Raises:
        TlsFilesError: ``authorities`` are none.
        ReceiptInvalidError: not a receipt, or the salt that input and output need was taken out.
        ReceiptUntrustedError: nobody trusted vouches for it.
        ReceiptMismatchError: it speaks of another input or output.
    """
    trusted = _certificates(Path(authorities))
    envelope = Envelope.parse(data)
    statement = verify_envelope(envelope, trusted)
    if input is not None or output is not None:
        if not envelope.salt:
            raise ReceiptInvalidError("expected a receipt with its salt to compare input or output, got one without")
        require_committed(statement, salt=envelope.salt, input_=_bytes(input), output=_bytes(output))
    return statement


def receipt_of_error(error: RemoteError) -> Receipt | None:
    """Return the receipt of a failed invocation, None when it was refused before it ran."""
    for detail in error.details:
        if detail.Is(pb.Receipt.DESCRIPTOR):
            message = pb.Receipt()
            detail.Unpack(message)
            return receipt_of(message)
    return None


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _certificates(path: Path) -> "Sequence[x509.Certificate]":
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise TlsFilesError(f"expected certificates in PEM, got {error.strerror}: {path}") from error
    except ValueError as error:
        raise TlsFilesError(f"expected certificates in PEM, got something else: {path}") from error
