"""What is fuzzed: functions from bytes to nothing that fail when a promise about hostile bytes is broken.

The promise is the same everywhere: the errors of the interface and no others, bounded memory, and, where two ways of
reading exist, one meaning. ``tests.fuzz`` feeds them by coverage (atheris), ``test_corpus`` with everything that was
ever found, ``test_properties`` with what hypothesis builds. Here: what workers, templates and modules say; what crosses
the broker is in ``egress_targets``, files are in ``file_targets``, guests that call anything in ``guest_calls``.
"""

import ipaddress
import json
import socket
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

from data_plane.broker.address_policy import refusal_of
from data_plane.broker.answers import HostRefusal, Members
from data_plane.broker.kv_grant import read_kv_request
from data_plane.broker.origin import InvalidOriginError, Origin
from sandbox.claims import Claimed, believed, believed_line
from sandbox.compiler_job import RefusedModuleError, inspect_module
from sandbox.frames import (
    HEADER_BYTES,
    TO_SUPERVISOR,
    TO_WORKER,
    FrameError,
    FrameReader,
    Op,
    read_call,
    read_done,
    read_load,
    read_log,
    read_ready,
    read_start,
)
from sandbox.inspection_walk import WalkError, walk
from sandbox.limits import SandboxLimits
from templates.approval import read_envelope
from templates.bundle import BundleInvalidError, FrameRefusedError, decompress, read_bundle
from templates.document import read_template
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError
from templates.strict_json import loads, parse
from tests.fuzz import egress_targets, file_targets
from tests.fuzz.guest_calls import guest_calls

Target = Callable[[bytes], None]
LIMITS = SandboxLimits(output_bytes=4_096, log_bytes=1_024, host_calls=4, fuel=1_000_000, wall_ms=1_000)
CLAIMED = Claimed(host_calls=0, elapsed_us=1_000_000)
PIECES = (1, 3, 16, 17, 4_096)


def _cut(data: bytes, piece: int, allowed: dict[int, int]) -> tuple[list[tuple[int, int, bytes]], bool]:
    """Return the frames of ``data``, fed in pieces, and whether the peer broke the protocol."""
    reader, frames = FrameReader(allowed), []
    for start in range(0, len(data), piece):
        try:
            for found in reader.feed(data[start : start + piece]):
                frames.append(found)  # noqa: PERF402 - what came before a broken frame counts
        except FrameError:
            return frames, True
        held = len(reader._rest)
        assert held <= HEADER_BYTES + max(allowed.values()), f"holds {held} bytes of one frame"
        assert held <= len(data), "holds more than it was sent"
    return frames, False


def frames_from_a_worker(data: bytes) -> None:
    """What a worker says: `FrameError` and nothing else, the same however the bytes are cut."""
    whole = _cut(data, max(1, len(data)), TO_SUPERVISOR)
    piece = PIECES[data[0] % len(PIECES)] if data else 1
    assert _cut(data, piece, TO_SUPERVISOR) == whole
    for op, _, payload in whole[0]:
        try:
            match op:
                case Op.READY:
                    read_ready(payload)
                case Op.CALL:
                    _, interface, function, _ = read_call(payload)
                    assert interface.isascii()
                    assert function.isascii()
                case Op.LOG:
                    believed_line(read_log(payload), CLAIMED)
                case Op.DONE:
                    outcome = believed(read_done(payload, LIMITS), LIMITS, CLAIMED)
                    assert len(outcome.output or b"") <= LIMITS.output_bytes
        except FrameError:
            continue


def payloads_from_a_worker(data: bytes) -> None:
    """The payloads alone: the first byte chooses which."""
    if not data:
        return
    readers: tuple[Callable[[bytes], object], ...] = (
        read_ready,
        read_call,
        lambda payload: believed_line(read_log(payload), CLAIMED),
        lambda payload: believed(read_done(payload, LIMITS), LIMITS, CLAIMED),
    )
    try:
        readers[data[0] % len(readers)](data[1:])
    except FrameError:
        return


def frames_to_a_worker(data: bytes) -> None:
    """What the worker reads; it trusts the node, and is told by an error when the two do not fit."""
    frames, _ = _cut(data, max(1, len(data)), TO_WORKER)
    for op, _, payload in frames:
        try:
            match op:
                case Op.START:
                    read_start(payload)
                case Op.LOAD:
                    read_load(payload)
        except FrameError:
            continue


def documents(data: bytes) -> None:
    """JSON and template documents: typed problems whose places lie inside the text; two readers with one meaning."""
    lines = data.decode("utf-8", "replace").split("\n")
    try:
        read = parse(data)
    except InvalidDocumentError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines), problem
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
        meaning = None
    else:
        meaning = json.dumps(read.value)
    try:
        fast = json.dumps(loads(data, bytes_max=262_144, depth_max=32))
    except InvalidDocumentError:
        fast = None
    assert fast == meaning, "two readers of JSON disagree"
    try:
        read_template(data)
    except InvalidDocumentError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines), problem
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem


def modules(data: bytes) -> None:
    """The walk over any bytes, and what the compiler's child does with them: facts or a typed refusal."""
    with suppress(WalkError):
        walk(data)
    try:
        header, _ = inspect_module(data)
    except RefusedModuleError as error:
        assert len(str(error)) <= 2_000
    else:
        assert header["kind"] in {"module", "component"}
        json.dumps(header)


def bundles(data: bytes) -> None:
    """Archives of generations and compressed frames: two typed refusals, and no more bytes than were allowed."""
    try:
        bundle = read_bundle(data)
    except BundleInvalidError:
        pass
    else:
        assert bundle.to_bytes() == data, "one archive, two spellings"
    with suppress(FrameRefusedError):
        assert len(decompress(data, bytes_max=65_536)) <= 65_536


def approvals(data: bytes) -> None:
    """Envelopes and statements of approvals: errors of ours only."""
    try:
        read_envelope(data).statement()
    except AgentFactoryError:
        return


def addresses(data: bytes) -> None:
    """The rule for destinations, against a naive model over `ipaddress`; origins, against what they are written as."""
    for size, kind in ((4, ipaddress.IPv4Address), (16, ipaddress.IPv6Address)):
        if len(data) >= size:
            address = kind(data[:size])
            if refusal_of(address) is None:
                assert _may_be_reached(address), f"{address} is not globally routable"
    text = data.decode("utf-8", "replace")
    try:
        origin = Origin.parse(text)
    except InvalidOriginError:
        return
    assert str(origin) == text, "one origin, two spellings"
    split = urllib.parse.urlsplit(text)
    assert (split.scheme, split.hostname) == (origin.scheme, origin.host)
    assert (split.username, split.password, split.path, split.query, split.fragment) == (None, None, "", "", "")
    if origin.address is None:
        with pytest.raises(OSError):  # no resolver may take the name for a number
            socket.inet_aton(origin.host)


def _may_be_reached(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """What Python says, of the address and of the IPv4 address that a NAT64 one carries."""
    if isinstance(address, ipaddress.IPv6Address) and address in ipaddress.ip_network("64:ff9b::/96"):
        return _may_be_reached(ipaddress.IPv4Address(address.packed[12:]))
    embedded = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return embedded is None and address.is_global and not address.is_multicast


def host_arguments(data: bytes) -> None:
    """Arguments of host calls, in the node's own process: `HostRefusal` and nothing else."""
    if not data:
        return
    function = ("get", "put", "delete", "list")[data[0] % 4]
    try:
        read_kv_request(function, Members.parse(data[1:]))
    except HostRefusal:
        return


TARGETS: Mapping[str, Target] = {
    target.__name__: target
    for target in (
        addresses,
        approvals,
        bundles,
        documents,
        egress_targets.guest_requests,
        egress_targets.http_requests,
        egress_targets.llm_answers,
        egress_targets.llm_streams,
        egress_targets.names_of_callers,
        file_targets.archives,
        file_targets.file_replies,
        file_targets.file_requests,
        file_targets.guest_paths,
        file_targets.metadata,
        file_targets.receipts,
        file_targets.recordings,
        file_targets.sealed_recordings,
        frames_from_a_worker,
        frames_to_a_worker,
        guest_calls,
        host_arguments,
        modules,
        payloads_from_a_worker,
    )
}
