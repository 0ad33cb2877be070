"""Valid inputs of each target, from which fuzzing starts: made by the product's own writers, so they stay valid."""

import ipaddress
import json
import struct

from sandbox.engine import wat2wasm
from sandbox.frames import Op, Ready, frame, pack_call, pack_done, pack_load, pack_log, pack_ready, pack_start
from sandbox.outcome import Failure, FailureKind, LogLine, Usage
from sandbox.request import InvocationRequest
from templates.bundle import Bundle, compress
from tests.fuzz.targets import LIMITS

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
        "bundles": (bundle.to_bytes(), compress(b"text" * 50), b"AFB1" + struct.pack(">I", 0)),
        "documents": (json.dumps(_TEMPLATE, indent=1).encode(), json.dumps(_TEMPLATE).encode(), b'{"a":1,"a":2}'),
        "frames_from_a_worker": (b"".join(_FROM_A_WORKER), *_FROM_A_WORKER),
        "frames_to_a_worker": (pack_start(1, 2, 0, 10**12, request), pack_load(3, "component")),
        "host_arguments": tuple(bytes([at]) + each for at in range(4) for each in arguments),
        "modules": tuple(wat2wasm(text) for text in _MODULES),
        "payloads_from_a_worker": tuple(bytes([at]) + each[16:] for each in _FROM_A_WORKER for at in range(4)),
    }
