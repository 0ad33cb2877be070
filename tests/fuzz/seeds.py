"""Valid inputs of each target, from which fuzzing starts: made by the product's own writers, so they stay valid.

``corpus/<target>/`` has more of them, which are hostile on purpose or were found.
"""

import io
import ipaddress
import json
import struct
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sandbox.engine import wat2wasm
from sandbox.file_protocol import (
    AT,
    LIST,
    OPEN,
    READ,
    RENAME,
    RESIZE,
    TIMES,
    WRITE,
    Entry,
    Errno,
    Kind,
    Mount,
    Open,
    Stat,
    pack_entry,
    pack_mounts,
    pack_reply,
    pack_request,
)
from sandbox.frames import Op, Ready, frame, pack_call, pack_done, pack_load, pack_log, pack_ready, pack_start
from sandbox.outcome import Failure, FailureKind, LogLine, Usage
from sandbox.recording import write
from sandbox.request import InvocationRequest
from templates.bundle import Bundle, compress
from tests.fuzz import file_targets, guest_calls
from tests.fuzz.targets import LIMITS
from tests.unit.sandbox.test_recording import WHOLE

_LINE = LogLine("info", "a line", 5)
_FROM_A_WORKER = (
    frame(Op.READY, 0, pack_ready(Ready("full", "f" * 64))),
    frame(Op.LOADED, 1),
    pack_call(2, "kv", "get", b'{"key":"k"}', fuel_used=3),
    pack_log(2, _LINE),
    pack_done(2, b"output", None, Usage(fuel=5), [_LINE], logs_cut=False),
    pack_done(3, None, Failure(FailureKind.FUEL, "spent"), Usage(fuel=9), [], logs_cut=True),
)
_TEMPLATE = {
    "schema": 1,
    "domain": "docs",
    "name": "summary",
    "version": "1.0.0",
    "role": 'é\n"',
    "default_config": {"a": [1, 2.5, None, True, {"b": "c"}]},
    "input_schema": {"type": "string", "maxLength": 5},
    "code": {"source": "agent.py", "image": "cpython"},
    "grants": {
        "kv": {"namespace": "notes", "bytes_max": 1024},
        "http": [{"binding": "api", "origin": "https://api.example.org", "methods": ["GET"], "path_prefixes": ["/v1"]}],
        "agents": ["docs/other"],
    },
    "limits": {"fuel": 1000, "wall_ms": 50},
    "callers": ["docs/*"],
}
_ADDRESSES = ("8.8.8.8", "127.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
              "2001:4860:4860::8888", "fe80::1", "2002:7f00:1::", "fd00:ec2::254")  # fmt: skip
_ORIGINS = ("https://api.example.org", "http://billing.example:8080", "https://xn--bcher-kva.example", "https://[::1]",
            "https://127.0.0.1", "https://0x7f.1", "https://user@example.org")  # fmt: skip
_MODULES = (
    '(module (memory (export "memory") 1 2) (table 3 funcref) (func (export "_start")))',
    """(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "env" "g" (global i32)) (memory 1) (data (i32.const 0) "x") (func $f (loop (br 0))) (start $f))""",
    "(component (core module (memory 1) (table 1 externref)) (component (core module (memory 2 3))))",
)


CORPUS = Path(__file__).parent / "corpus"


def kept(target: str) -> dict[str, bytes]:
    """Return what lies in the corpus of a target, by file name; ``.hex`` is written out."""
    return {
        path.name: bytes.fromhex(path.read_text(encoding="ascii")) if path.suffix == ".hex" else path.read_bytes()
        for path in sorted((CORPUS / target).glob("*"))
    }


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _stream() -> bytes:
    said = [{"index": 0, "delta": {"content": text}} for text in ("Hello ", "w\u00f6rld")]
    pieces = [_event({"model": "m", "choices": [each]}) for each in said]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return b": hello\r\n\r\n" + b"".join(pieces) + _event(end) + _event(usage) + b"data: [DONE]\n\n"


def _archive() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("agent.py", "from pkg import one\n")
        made.writestr("pkg/one.py", "x = 1\n" * 50, zipfile.ZIP_DEFLATED)
        made.writestr("data.bin", bytes(range(256)))
    return archive.getvalue()


def _file_request(operation: str, record: bytes, *closes: int) -> bytes:
    argument = pack_request(closes, record)
    return bytes([file_targets.OPERATIONS.index(operation)]) + len(argument).to_bytes(2, "big") + argument


def _file_requests() -> tuple[bytes, ...]:
    read_only, new = int(Open.READ), int(Open.READ | Open.WRITE | Open.CREATE)
    mount = _file_request("mounts", b"")
    return (
        mount + _file_request("open", OPEN.pack(2, read_only) + b"file") + _file_request("read", READ.pack(4, 0, 9)),
        mount
        + _file_request("open", OPEN.pack(3, new) + b"new")
        + _file_request("write", WRITE.pack(4, 5, 0) + b"text")
        + _file_request("resize", RESIZE.pack(4, 2))
        + _file_request("times", TIMES.pack(4, 1, 0, 2, 5))
        + _file_request("sync", AT.pack(4, 0)),
        mount + _file_request("mkdir", AT.pack(3, 0) + b"a") + _file_request("rmdir", AT.pack(3, 0) + b"a"),
        mount + _file_request("list", LIST.pack(2, 0)) + _file_request("stat", AT.pack(2, 1) + b"link", 4),
        mount + _file_request("rename", RENAME.pack(2, 3, 4) + b"filemine"),
        mount + _file_request("unlink", AT.pack(2, 0) + b"sub/up/canary"),
    )


def _calls() -> tuple[bytes, ...]:
    call = guest_calls.program
    name = b"file"
    opened = call("path_open", 3, 0, len(name), 4, 0, 2, 2, 0, 2_048)
    return (
        call("fd_write", 1, 0, 1, 8),
        call("random_get", 1_000, 64) + call("clock_time_get", 0, 1, 8) + call("environ_get", 8, 64),
        call("fd_prestat_get", 3, 2_048) + call("fd_prestat_dir_name", 3, 2_048, 9) + opened + name,
        opened + call("fd_pread", 4, 0, 1, 0, 8) + call("fd_seek", 4, 9, 1, 8) + call("fd_readdir", 3, 0, 64, 0, 8),
        call("call", 30, 6, 40, 2, 100, 50) + b"kv.get" + b"{}",
        call("poll_oneoff", 40, 512, 1, 768) + bytes(60),
        call("proc_exit", 1),
    )


def _paths() -> dict[str, tuple[bytes, ...]]:
    mounts = pack_mounts([Mount(1, True, b"/data"), Mount(2, False, b"/scratch")])
    entries = pack_entry(Entry(5, Kind.FILE, b"file")) + pack_entry(Entry(6, Kind.DIRECTORY, b"sub"))
    stat = Stat(Kind.FILE, 1, 2, 3, 4, 5, 6).pack()
    return {
        "file_replies": (mounts, entries, stat, pack_reply(Errno.SUCCESS, stat), pack_reply(Errno.NOENT)),
        "file_requests": _file_requests(),
        "guest_paths": (b"a/b/c", b"./a/../b//c/", b"\xc3\xa9", b"x" * 255, b"a/.."),
        "metadata": tuple(
            bytes([at]) + file_targets.generation()[name] for at, name in enumerate(file_targets.metadata_names())
        ),
        "receipts": (
            file_targets.receipt_world()[0].to_bytes(),
            file_targets.receipt_world()[0].statement,
            file_targets.receipt_world()[0].voucher.statement,
        ),
        "sealed_recordings": (file_targets.sealed_recording(),),
    }


def _egress() -> dict[str, tuple[bytes, ...]]:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0.5}
    schema = {"type": "json_schema", "json_schema": {"a": 1}}
    requests: tuple[Mapping[str, object], ...] = (
        {"method": "GET", "path": "/v1/a%20b", "query": {"q": ["x", "y"], "r": "z"}, "headers": {"accept": "a/b"}},
        {"method": "POST", "path": "/v2/things/", "body_base64": "AAA=", "headers": {"X-Trace": "1"}},
        {"method": "GET", "path": "/v1"},
    )
    return {
        "guest_requests": (
            b'{"template":"docs/other@1.0.0","input":"text"}',
            json.dumps(asked).encode(),
            json.dumps({**asked, "stop": ["a"], "response_format": schema, "cache": True}).encode(),
        ),
        "http_requests": tuple(json.dumps(each).encode() for each in requests),
        "llm_answers": (
            json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode(),
            json.dumps({"model": "m", "choices": [{"delta": {"content": "Hi"}}], "usage": usage}).encode(),
            b'{"error":{"message":"no"}}',
        ),
        "llm_streams": tuple(bytes([at]) + _stream() for at in range(5)),
        "names_of_callers": (
            b"spiffe://factory.test/tenant/acme/service/web",
            b"spiffe://factory.test/node/n1",
            b"YWdlbnQ=",
        ),
    }


@cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """Return the seeds of every target by its name."""
    request = InvocationRequest(
        code_id="c", abi="command", limits=LIMITS, input=b"in", granted=frozenset({"kv"}), invocation_id="i"
    )
    arguments = [b'{"key":"k"}', b'{"key":"k","value":"v","expected":3}', b'{"prefix":"p","cursor":"c","limit":5}']
    bundle = Bundle(files={"metadata/timestamp.json": b"{}", "targets/docs/templates/a@1.0.0.json": b"[]"})
    payload = json.dumps({"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": []})
    return {
        "addresses": (
            *(ipaddress.ip_address(text).packed for text in _ADDRESSES),
            *(text.encode() for text in _ORIGINS),
        ),
        "approvals": (payload.encode(), b"{}"),
        "archives": (_archive(),),
        "bundles": (bundle.to_bytes(), compress(b"text" * 50), b"AFB1" + struct.pack(">I", 0)),
        "documents": (json.dumps(_TEMPLATE, indent=1).encode(), json.dumps(_TEMPLATE).encode(), b'{"a":1,"a":2}'),
        "frames_from_a_worker": (b"".join(_FROM_A_WORKER), *_FROM_A_WORKER),
        "guest_calls": _calls(),
        "frames_to_a_worker": (pack_start(1, 2, 0, 10**12, request), pack_load(3, "component")),
        "host_arguments": tuple(bytes([at]) + each for at in range(4) for each in arguments),
        "modules": tuple(wat2wasm(text) for text in _MODULES),
        "payloads_from_a_worker": tuple(bytes([at]) + each[16:] for each in _FROM_A_WORKER for at in range(4)),
        "recordings": (write(WHOLE),),
        **_egress(),
        **_paths(),
    }
