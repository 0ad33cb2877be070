"""What a submission becomes, and every way in which one is refused: nothing is stored then."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from control_plane.lifecycle import ChangeState
from control_plane.submission import ARCHIVE_BYTES_MAX, DOCUMENT_BYTES_MAX, MODULE_BYTES_MAX, SOURCE_BYTES_MAX
from templates.approval import Envelope
from templates.capabilities import MemoryReport
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import BlobPin, PinnedSource, read_resolved
from tests.unit.control_plane.world import (
    COMMAND,
    SOURCE,
    World,
    document,
    fake_report,
    image_document,
    source_document,
)

COMMAND_CODE: dict[str, Any] = {"code": {"module": "tool.wasm", "abi": "command"}}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_source_template_is_resolved_and_pinned(world: World) -> None:
    await world.start()
    await world.publish_image("0.1.0")
    await world.publish_image("0.2.0")
    await world.publish(document("base", grants={"kv": {"namespace": "notes", "bytes_max": 1000}}))
    change = await world.submit(
        source_document(parent="docs/base", grants={"kv": {"namespace": "notes", "bytes_max": 10}}), SOURCE
    )
    resolved = read_resolved(change.resolved)
    assert (change.sha256, change.author, change.code_sha256) == (resolved.digest, "alice", sha256(SOURCE))
    assert resolved.parent is not None
    assert str(resolved.parent.template) == "docs/base@1.0.0"
    assert isinstance(resolved.code, PinnedSource)
    assert str(resolved.code.image.template) == "images/cpython@0.2.0"
    statement = Envelope(payload=change.statement, signatures={}).statement()
    assert (statement.sha256, statement.author, str(statement.template)) == (change.sha256, "alice", "docs/echo@1.0.0")
    assert statement.capabilities.grants.kv is not None
    assert statement.capabilities.grants.kv.bytes_max == 10


async def test_the_image_is_inspected_once_however_many_sources_use_it(world: World) -> None:
    await world.start()
    await world.publish_image()
    for version in ("1.0.0", "1.1.0"):
        await world.submit(source_document(version=version), SOURCE)
    assert len(world.inspected) == 1


async def test_submitting_the_same_bytes_again_returns_the_same_change(world: World) -> None:
    await world.start()
    first = await world.submit(document("tool", **COMMAND_CODE), COMMAND, request_id="r1")
    for author, request_id in (("alice", "r1"), ("alice", "r2"), ("alice", ""), ("bob", "r1")):
        again = await world.submit(document("tool", **COMMAND_CODE), COMMAND, author=author, request_id=request_id)
        assert again.number == first.number


async def test_a_hundred_at_once_make_one_change(world: World) -> None:
    await world.start()
    changes = await asyncio.gather(*(world.submit(document("tool", **COMMAND_CODE), COMMAND) for _ in range(100)))
    assert {change.number for change in changes} == {changes[0].number}
    assert len(world.store.changes()) == 1


async def test_validate_only_derives_and_stores_nothing(world: World) -> None:
    await world.start()
    change = await world.submit(document("tool", **COMMAND_CODE), COMMAND, validate_only=True)
    assert (change.number, change.state) == (0, ChangeState.IN_REVIEW)
    assert change.statement
    assert world.store.changes() == []
    assert not world.blobs.has(sha256(COMMAND))


async def test_another_content_under_the_same_version_is_refused(world: World) -> None:
    await world.start()
    await world.submit(document("tool", **COMMAND_CODE), COMMAND)
    for role, code in (("another", COMMAND), ("role", COMMAND + b"!")):
        with pytest.raises(AgentFactoryError) as refused:
            await world.submit({**document("tool", **COMMAND_CODE), "role": role}, code)
        assert refused.value.reason is Reason.VERSION_EXISTS
        assert refused.value.metadata == {"change": "changes/1"}


async def test_a_request_id_stands_for_one_content(world: World) -> None:
    await world.start()
    await world.submit(document("one"), request_id="r")
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(document("other"), request_id="r")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


REFUSALS: dict[str, tuple[Callable[[], tuple[Any, tuple[bytes, ...]]], Reason]] = {
    "not JSON": (lambda: (b"{", ()), Reason.INVALID_TEMPLATE),
    "duplicate key": (lambda: (b'{"schema":1,"schema":1}', ()), Reason.INVALID_TEMPLATE),
    "unknown field": (lambda: (document("base", colour="red"), ()), Reason.INVALID_TEMPLATE),
    "wrong type": (lambda: (document("base", role=7), ()), Reason.INVALID_TEMPLATE),
    "oversize document": (lambda: (b" " * (DOCUMENT_BYTES_MAX + 1), ()), Reason.SUBMISSION_TOO_LARGE),
    "unknown domain": (lambda: (document("base", domain="doc"), ()), Reason.DOMAIN_UNKNOWN),
    "unknown image": (
        lambda: (source_document(code={"source": "a.py", "image": "ruby"}), (SOURCE,)),
        Reason.IMAGE_UNKNOWN,
    ),
    "missing parent": (lambda: (document("child", parent="docs/nobody"), ()), Reason.INVALID_TEMPLATE),
    "its own parent": (lambda: (document("child", parent="docs/child"), ()), Reason.INVALID_TEMPLATE),
    "code announced, none sent": (lambda: (document("tool", **COMMAND_CODE), ()), Reason.CODE_MISSING),
    "code sent, none named": (lambda: (document("base"), (SOURCE,)), Reason.CODE_MISSING),
    "two files": (lambda: (document("tool", **COMMAND_CODE), (COMMAND, SOURCE)), Reason.CODE_MISSING),
    "empty source": (lambda: (source_document(), (b"",)), Reason.SUBMISSION_TOO_LARGE),
    "source not UTF-8": (lambda: (source_document(), (b"\xff\xfe",)), Reason.SOURCE_INVALID),
    "source with NUL": (lambda: (source_document(), (b"x = 1\0\n",)), Reason.SOURCE_INVALID),
    "Trojan source": (lambda: (source_document(), ("a = 1  # \u202e gnp\n".encode(),)), Reason.SOURCE_INVALID),
    "not a zip": (
        lambda: (source_document(code={"source": "agent.zip", "image": "cpython"}), (SOURCE,)),
        Reason.SOURCE_INVALID,
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_refused(world: World, case: tuple[Callable[[], tuple[Any, tuple[bytes, ...]]], Reason]) -> None:
    await world.start()
    await world.publish_image()
    make, reason = case
    content, code = make()
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(content, *code)
    assert refused.value.reason is reason
    assert len(world.store.changes()) == 1, "the image"


async def test_widened_grants_and_limits_are_refused_with_their_places(world: World) -> None:
    await world.start()
    await world.publish(document("base", limits={"fuel": 1000}))
    with pytest.raises(InvalidDocumentError) as refused:
        await world.submit(
            document("child", parent="docs/base", limits={"fuel": 1001}, grants={"agents": ["docs/other"]})
        )
    assert {problem.code for problem in refused.value.problems} == {Reason.WIDENED_LIMIT, Reason.WIDENED_GRANT}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"imports": ("env.system",)}, Reason.FORBIDDEN_IMPORT),
        ({"memories": (MemoryReport(bytes_min=1 << 30, bytes_max=None),)}, Reason.MODULE_MEMORY),
        ({"kind": "component"}, Reason.MODULE_MISMATCH),
        ({"exports": ("memory",)}, Reason.MODULE_MISMATCH),
    ],
)
async def test_a_module_that_does_not_go_with_its_template_is_refused(
    world: World, members: dict[str, Any], reason: Reason
) -> None:
    await world.start()
    world.reports[sha256(COMMAND)] = fake_report(COMMAND, **members)
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(document("tool", **COMMAND_CODE), COMMAND)
    assert refused.value.reason is reason
    assert world.store.changes() == []
    assert not world.blobs.has(sha256(COMMAND))


@pytest.mark.parametrize(
    ("announced", "sent", "reason"),
    [
        (BlobPin(sha256=sha256(COMMAND), length=len(COMMAND) + 1), COMMAND, Reason.BLOB_MISMATCH),
        (BlobPin(sha256=sha256(COMMAND), length=len(COMMAND) - 1), COMMAND, Reason.BLOB_MISMATCH),
        (BlobPin(sha256=sha256(SOURCE), length=len(COMMAND)), COMMAND, Reason.BLOB_MISMATCH),
        (BlobPin(sha256=sha256(COMMAND), length=MODULE_BYTES_MAX + 1), COMMAND, Reason.SUBMISSION_TOO_LARGE),
        (BlobPin(sha256=sha256(COMMAND), length=0), COMMAND, Reason.SUBMISSION_TOO_LARGE),
    ],
)
async def test_code_must_be_what_was_announced(world: World, announced: BlobPin, sent: bytes, reason: Reason) -> None:
    await world.start()
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(document("tool", **COMMAND_CODE), sent, announced=[announced])
    assert refused.value.reason is reason


@pytest.mark.parametrize(("file", "length"), [("agent.py", SOURCE_BYTES_MAX + 1), ("agent.zip", ARCHIVE_BYTES_MAX + 1)])
async def test_sources_have_a_size_of_their_own(world: World, file: str, length: int) -> None:
    await world.start()
    await world.publish_image()
    with pytest.raises(AgentFactoryError, match=f"to {length - 1} bytes"):
        await world.submit(
            source_document(code={"source": file, "image": "cpython"}),
            SOURCE,
            announced=[BlobPin(sha256=sha256(SOURCE), length=length)],
        )


async def test_pieces_have_a_size(world: World) -> None:
    await world.start()
    big = COMMAND + bytes(300_000)
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(document("tool", **COMMAND_CODE), big, piece_bytes=300_000)
    assert refused.value.reason is Reason.INVALID_REQUEST


async def test_an_abstract_image_is_no_image(world: World) -> None:
    await world.start()
    await world.publish(document("cpython", domain="images"))
    with pytest.raises(AgentFactoryError) as refused:
        await world.submit(source_document(), SOURCE)
    assert refused.value.reason is Reason.IMAGE_UNKNOWN


async def test_an_image_that_was_swapped_on_the_disk_is_noticed(world: World) -> None:
    await world.start()
    image = await world.publish(image_document(), b"\0asm image")
    assert image.code_sha256 is not None
    path = world.directory / "blobs" / image.code_sha256[:2] / image.code_sha256
    path.write_bytes(b"\0asm imagf")
    with pytest.raises(AgentFactoryError) as refused:
        world.blobs.read(image.code_sha256)
    assert refused.value.reason is Reason.BLOB_DAMAGED
