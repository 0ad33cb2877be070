"""A control plane that has turned: with its own identity and every online key it pushes what no reviewer approved.

It is the attacker whom the quorum is for. Everything it signs is signed correctly; only the reviewers' signatures are
missing.
"""

import hashlib
import json
import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import grpc
from agentfactory.distribution.v1 import distribution_pb2 as pb
from agentfactory.distribution.v1.distribution_pb2_grpc import (
    DistributionServiceServicer,
    add_DistributionServiceServicer_to_server,
)

from client.local_fleet import CONTROL_PLANE
from client.profile import Profile
from service.keystore import passphrase_from, read_key
from service.tls import server_credentials
from templates.approval import read_envelope, sign
from templates.bundle import Bundle, compress
from templates.canonical import sha256_hex
from templates.names import TemplateName, TemplateRef, Version
from templates.plan import read_plan
from templates.repository import Library, OfflineTrust, OnlineSigners, Validity
from templates.repository import publish as build_generation
from templates.resolved import BlobPin, PinnedSource, ResolvedTemplate, read_resolved

EVIL_SOURCE: Final = b"def process(text):\n    return 'every secret that I could find'\n"
_SERVE_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A generation that nobody approved, correctly signed with every online key."""

    generation: int
    template: TemplateRef
    bundle: bytes
    blobs: Mapping[str, bytes]


def read_online_signers(profile: Profile) -> OnlineSigners:
    """Read every online key, as whoever owns the control plane's machine can."""
    directory = profile.directory / "control-plane" / "keys"
    secret = passphrase_from(value=None, file=directory / "passphrase")
    return OnlineSigners(
        snapshot=read_key(directory / "snapshot.pem", passphrase=secret),
        timestamp=read_key(directory / "timestamp.pem", passphrase=secret),
        plan=read_key(directory / "plan.pem", passphrase=secret),
        library=read_key(directory / "library.pem", passphrase=secret),
    )


def forge(
    bundle: Bundle, *, trust: OfflineTrust, victim: TemplateName, signers: OnlineSigners, now: datetime
) -> Forgery:
    """Put an unapproved version of ``victim`` into the newest generation, and sign all that the online keys can."""
    plan = read_plan(bundle.targets["plan.json"])
    libraries = _libraries(bundle)
    entry = next(one for one in plan.entries if one.template.template_name == victim)
    library = libraries[victim.domain]
    genuine = read_resolved(library.templates[entry.template])
    evil = _evil(genuine)
    envelope = _self_signed(library.approvals[entry.template], evil, signers)
    digest = hashlib.sha256(EVIL_SOURCE).hexdigest()
    libraries[victim.domain] = Library(
        templates={**library.templates, evil.ref: evil.to_bytes()},
        approvals={**library.approvals, evil.ref: envelope},
        code={**library.code, digest: len(EVIL_SOURCE)},
    )
    entries = tuple(
        replace(one, template=evil.ref, sha256=evil.digest) if one.template == entry.template else one
        for one in plan.entries
    )
    generation = build_generation(
        trust=trust,
        libraries=libraries,
        plan=replace(plan, entries=entries),
        signers=signers,
        validity=Validity(lease_s=3600),
        now=now,
        previous=bundle.metadata,
    )
    return Forgery(
        generation=generation.number,
        template=evil.ref,
        bundle=generation.bundle().to_bytes(),
        blobs={digest: EVIL_SOURCE},
    )


def _evil(genuine: ResolvedTemplate) -> ResolvedTemplate:
    code = genuine.code
    if not isinstance(code, PinnedSource):
        raise TypeError(f"expected a victim that is source, got {genuine.ref}")
    pin = BlobPin(sha256=hashlib.sha256(EVIL_SOURCE).hexdigest(), length=len(EVIL_SOURCE))
    version = Version(99, 0, 0)
    return replace(genuine, ref=genuine.ref.template_name.at(version), code=replace(code, source=pin))


def _self_signed(genuine: bytes, evil: ResolvedTemplate, signers: OnlineSigners) -> bytes:
    """An approval of the forgery, signed with a key at hand, which is no reviewer's."""
    statement = read_envelope(genuine).statement()
    forged = replace(
        statement,
        template=evil.ref,
        sha256=evil.digest,
        capabilities=replace(statement.capabilities, template=evil.ref, code=evil.code),
    )
    return sign(forged.to_payload(), signers.library).to_bytes()


def _libraries(bundle: Bundle) -> dict[str, Library]:
    libraries: dict[str, Library] = {}
    for name, data in bundle.metadata.items():
        role = name.removesuffix(".json").partition(".")[2]
        if not role.startswith("library-"):
            continue
        domain = role.removeprefix("library-")
        listed: dict[str, Any] = json.loads(data)["signed"]["targets"]
        templates: dict[TemplateRef, bytes] = {}
        approvals: dict[TemplateRef, bytes] = {}
        code: dict[str, int] = {}
        for path, target in listed.items():
            _, kind, file = path.split("/")
            if kind == "code":
                code[file] = int(target["length"])
            elif path in bundle.targets:
                reference = TemplateRef.parse(f"{domain}/{file.removesuffix('.json').removesuffix('.dsse')}")
                (templates if kind == "templates" else approvals)[reference] = bundle.targets[path]
        libraries[domain] = Library(templates=templates, approvals=approvals, code=code)
    return libraries


class _Traitor(DistributionServiceServicer):
    def __init__(self, forgery: Forgery, nacks: "queue.Queue[tuple[str, pb.Nack]]") -> None:
        self._forgery = forgery
        self._nacks = nacks

    def Subscribe(  # noqa: N802
        self, request_iterator: Iterator[pb.SubscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SubscribeResponse]:
        peer = _peer(context)
        for message in request_iterator:
            if message.HasField("hello"):
                yield pb.SubscribeResponse(
                    snapshot_full=pb.SnapshotFull(
                        generation=self._forgery.generation,
                        bundle_zstd=compress(self._forgery.bundle),
                        bundle_sha256=bytes.fromhex(sha256_hex(self._forgery.bundle)),
                    )
                )
            elif message.HasField("nack"):
                self._nacks.put((peer, message.nack))

    def FetchBlobs(  # noqa: N802
        self, request: pb.FetchBlobsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FetchBlobsResponse]:
        del context
        for digest in request.sha256:
            data = self._forgery.blobs.get(digest.hex())
            if data is not None:
                yield pb.FetchBlobsResponse(sha256=digest, length=len(data), piece_zstd=compress(data), last=True)


def _peer(context: grpc.ServicerContext) -> str:
    names = context.auth_context().get("peer_spiffe_id") or [b"?"]
    name = names[0] if isinstance(names, list) else b"?"
    return name.decode().rpartition("/")[2]


@contextmanager
def serving(profile: Profile, forgery: Forgery) -> "Iterator[queue.Queue[tuple[str, pb.Nack]]]":
    """Serve the forgery at the control plane's address, with its identity; yields (node, Nack) as they come."""
    nacks: queue.Queue[tuple[str, pb.Nack]] = queue.Queue()
    server = grpc.server(ThreadPoolExecutor(_SERVE_THREADS), options=(("grpc.so_reuseport", 0),))
    add_DistributionServiceServicer_to_server(_Traitor(forgery, nacks), server)
    port = profile.control_plane.rpartition(":")[2]
    server.add_secure_port(f"127.0.0.1:{port}", server_credentials(profile.tls(CONTROL_PLANE)))
    server.start()
    try:
        yield nacks
    finally:
        server.stop(grace=None).wait()
