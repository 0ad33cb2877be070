"""Fuzz targets of files and of what lies in them: guests' paths and requests, archives, recordings, receipts, metadata.

See `targets`.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath

from cryptography import x509

from data_plane.recording_envelope import RecordingDamagedError, WrappedKey, open_envelope, seal
from sandbox.file_paths import parse_path
from sandbox.file_protocol import (
    NAME_BYTES_MAX,
    PATH_BYTES_MAX,
    Errno,
    FileRefusal,
    ProtocolError,
    Stat,
    read_entries,
    read_mounts,
    read_reply,
)
from sandbox.recording import RecordingFormatError, read, write
from service.identity import Identity
from service.local_ca import LocalCa
from service.receipt_keys import Envelope, ReceiptSigner, verify_envelope
from templates.bundle import Bundle
from templates.reasons import AgentFactoryError
from templates.receipt import ReceiptInvalidError, read_receipt, read_receipt_key
from templates.source_archive import UNPACKED_BYTES_MAX, SourceInvalidError, check_source, read_archive, source_text
from templates.trusted_set import Belief, accept, read_belief
from tests.file_world import files
from tests.trust_world import NODE, NOW, pinned, ready_world
from tests.unit.templates.test_receipt import FACTS, SALT, statement_bytes

_ISSUED = datetime(2026, 11, 18, 12, tzinfo=UTC)
_TENANT, _INVOCATION = "acme", "0a" * 16
OPERATIONS = ("mounts", "open", "read", "write", "list", "stat", "times", "resize", "sync", "mkdir", "rmdir", "unlink",
              "rename", "chmod")  # fmt: skip
_LENGTH_BYTES = 2


def guest_paths(data: bytes) -> None:
    """A path as a guest writes it: plain names below the directory, as POSIX reads it, or an error number."""
    try:
        path = parse_path(data)
    except FileRefusal:
        return
    assert len(data) <= PATH_BYTES_MAX
    for name in path.names:
        assert name not in {b"", b".", b".."}
        assert b"/" not in name
        assert b"\0" not in name
        assert len(name) <= NAME_BYTES_MAX
        name.decode()
    told = PurePosixPath(os.path.normpath(data.decode()))  # by the text alone, too
    assert told == PurePosixPath(*(name.decode() for name in path.names)), "another file than POSIX finds"


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="fuzz-files-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for folder in ("data/sub", "scratch", "outside"):
        (place / folder).mkdir(parents=True)
    (place / "outside" / "canary").write_text("canary")
    (place / "data" / "file").write_text("content")
    (place / "data" / "link").symlink_to("../outside/canary")
    (place / "data" / "sub" / "up").symlink_to("../../outside")
    os.mkfifo(place / "data" / "pipe")
    return place


def file_requests(data: bytes) -> None:
    """Requests of a hostile worker for files: a reply to each; nothing outside is read, nothing changes but scratch.

    The first byte of each request chooses the operation, the next two are its length.
    """
    place = _place()
    with files(place / "data", place / "scratch") as guest:
        while data:
            operation, length = (
                OPERATIONS[data[0] % len(OPERATIONS)],
                int.from_bytes(data[1 : 1 + _LENGTH_BYTES], "big"),
            )
            argument, data = data[1 + _LENGTH_BYTES :][:length], data[1 + _LENGTH_BYTES :][length:]
            reply = guest.session.perform(operation, argument)
            assert b"canary" not in reply
            with suppress(FileRefusal):
                result = read_reply(reply)
                if operation == "write":
                    assert result, "a write says how much it wrote"
    assert (place / "outside" / "canary").read_text() == "canary"
    assert (place / "data" / "file").read_text() == "content"
    assert sorted(os.listdir(place / "outside")) == ["canary"]  # noqa: PTH208 - names are enough
    assert sorted(os.listdir(place / "data")) == ["file", "link", "pipe", "sub"]  # noqa: PTH208 - names are enough
    for each in list((place / "scratch").iterdir()):
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def file_replies(data: bytes) -> None:
    """What a worker reads of the node's replies: `ProtocolError`, or an error number that exists."""
    for reader in (read_mounts, read_entries, Stat.unpack):
        with suppress(ProtocolError):
            reader(data)
    try:
        read_reply(data)
    except FileRefusal as refusal:
        assert refusal.errno in Errno


def archives(data: bytes) -> None:
    """A zip of sources: refused, or plain names with as many bytes as may be unpacked, and shown whole to reviewers."""
    try:
        found = read_archive(data)
    except SourceInvalidError:
        with suppress(SourceInvalidError):
            check_source("agent.py", data)
        return
    assert sum(map(len, found.values())) <= UNPACKED_BYTES_MAX
    for name in found:
        path = PurePosixPath(name)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert str(path) == name, "one file, two spellings"
        assert name.isprintable()
    with suppress(SourceInvalidError):
        check_source("agent.zip", data)
        text = source_text("agent.zip", data)
        assert all(f"=== {name}\n" in text for name in found)


def recordings(data: bytes) -> None:
    """A recording from anywhere: `RecordingFormatError`, or what is written again and means the same."""
    try:
        found = read(data)
    except RecordingFormatError:
        return
    assert read(write(found)) == found


class _Keys:
    """One key for the one tenant; the keeper of real ones has tests of its own."""

    async def wrap(self, tenant: str, data_key: bytes) -> WrappedKey:
        return WrappedKey(tenant, data_key[::-1])

    async def unwrap(self, tenant: str, wrapped: WrappedKey) -> bytes:
        if wrapped.key_id != tenant:
            raise RecordingDamagedError("expected another key")
        return wrapped.wrapped[::-1]


SEALED = b"what was sealed"


async def _open(data: bytes) -> bytes:
    return await open_envelope(data, tenant=_TENANT, invocation_id=_INVOCATION, keys=_Keys())


@cache
def sealed_recording() -> bytes:
    """One envelope; no two are alike."""
    return asyncio.run(seal(SEALED, tenant=_TENANT, invocation_id=_INVOCATION, keys=_Keys()))


def sealed_recordings(data: bytes) -> None:
    """An envelope on the node's disk: what was sealed, or `RecordingDamagedError`."""
    try:
        opened = asyncio.run(_open(data))
    except RecordingDamagedError:
        return
    assert opened == SEALED, "another envelope opens"


@cache
def receipt_world() -> tuple[Envelope, tuple[x509.Certificate, ...]]:
    """A node's genuine receipt, and who vouches for the node."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        authority = LocalCa.create(place / "ca", trust_domain="factory.test", now=_ISSUED - timedelta(days=1))
        tls = authority.issue(Identity.node("factory.test", "n1"), now=_ISSUED).write(place / "n1")
        signer = ReceiptSigner.create(tls, now=_ISSUED)
        statement = statement_bytes(**{**FACTS, "started_us": int(_ISSUED.timestamp() * 1e6)})
        envelope = Envelope(statement=statement, signature=signer.sign(statement), voucher=signer.voucher, salt=SALT)
        return envelope, tuple(x509.load_pem_x509_certificates(authority.certificate))


def receipts(data: bytes) -> None:
    """A receipt's file, its statements, and whom they convince: typed refusals, or the node's own words."""
    for reader in (read_receipt, read_receipt_key):
        with suppress(ReceiptInvalidError):
            reader(data)
    try:
        envelope = Envelope.parse(data)
    except ReceiptInvalidError:
        return
    again = Envelope.parse(envelope.to_bytes())
    assert (again.statement, again.signature, again.salt) == (envelope.statement, envelope.signature, envelope.salt)
    genuine, authorities = receipt_world()
    try:
        verify_envelope(envelope, authorities)
    except AgentFactoryError:
        return
    assert envelope.statement == genuine.statement, "a forged receipt convinces"


@cache
def _world() -> tuple[Belief, dict[str, bytes]]:
    world = ready_world()
    return pinned(world), dict(world.publish().bundle().files)


def generation() -> dict[str, bytes]:
    """Return the files of one honest generation, whose keys are this process's, by name."""
    return _world()[1]


@cache
def metadata_names() -> tuple[str, ...]:
    return tuple(sorted(name for name in generation() if name.startswith("metadata/")))


def metadata(data: bytes) -> None:
    """A generation with one file of its metadata replaced: typed refusals, unless it is the honest one.

    The first byte chooses the file.
    """
    if not data:
        return
    name, content = metadata_names()[data[0] % len(metadata_names())], data[1:]
    offered = Bundle(files={**generation(), name: content})
    with suppress(AgentFactoryError):
        read_belief(content)
    try:
        accept(offered, belief=_world()[0], installation=NODE, now=NOW)
    except AgentFactoryError:
        return
    assert content == generation()[name] or "root" in name, "another file is believed"
