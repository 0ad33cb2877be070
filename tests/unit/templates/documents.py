"""Documents and values that the tests of this package share: the smallest that are right, to be spoilt one by one."""

import json
from typing import Any

from hypothesis import strategies as st

from templates.canonical import JsonValue
from templates.capabilities import MemoryReport, ModuleReport, host_interface
from templates.document import Abi, Template, read_template
from templates.grants import FileGrant, Grants, HttpGrant, HttpInjection, KvGrant, LlmGrant
from templates.inheritance import resolve
from templates.limits import LIMIT_CEILINGS, LIMIT_NAMES, Limits
from templates.names import TemplatePattern, TemplateRef
from templates.problems import InvalidDocumentError
from templates.resolved import BlobPin, ImagePin, PinnedModule, PinnedSource, ResolvedTemplate

SOURCE = PinnedSource(
    source=BlobPin(sha256="a" * 64, length=120),
    file="agent.py",
    image=ImagePin(template=TemplateRef.parse("images/cpython@0.1.0"), sha256="b" * 64, length=20_000_000),
)
MODULE = PinnedModule(module=BlobPin(sha256="c" * 64, length=3_000), abi=Abi.COMPONENT)
COMMAND = PinnedModule(module=BlobPin(sha256="c" * 64, length=3_000), abi=Abi.COMMAND)


def document(**members: Any) -> dict[str, Any]:
    base = {"schema": 1, "domain": "documentation", "name": "documentaliste", "version": "1.0.0"}
    return {name: value for name, value in {**base, **members}.items() if value is not None}


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def template(**members: Any) -> Template:
    return read_template(as_bytes(document(**members)))


def resolved(
    *ancestors: ResolvedTemplate, code: PinnedSource | PinnedModule | None = None, **members: Any
) -> ResolvedTemplate:
    """Resolve a document; with ``ancestors`` the first is its parent."""
    if ancestors:
        members.setdefault("parent", str(ancestors[0].ref.template_name))
    files = {
        PinnedSource: {"source": "agent.py", "image": "cpython"},
        PinnedModule: {"module": "a.wasm", "abi": "component"},
    }
    if code is not None:
        members.setdefault("code", files[type(code)])
    return resolve(template(**members), ancestors, author="alice", code=code)


def report(**members: Any) -> ModuleReport:
    """Report on `MODULE`: a component that asks for nothing but the log."""
    base: dict[str, Any] = {
        "sha256": "c" * 64,
        "length": 3_000,
        "kind": "component",
        "imports": (host_interface("log"), "wasi:io/streams@0.2.0"),
        "exports": ("process",),
        "memories": (MemoryReport(bytes_min=1_048_576, bytes_max=None),),
    }
    return ModuleReport(**{**base, **members})


def codes(error: InvalidDocumentError) -> list[tuple[str, str]]:
    """Return (code, pointer) of every problem, in the order of the text."""
    return [(str(problem.code), problem.pointer) for problem in error.problems]


words = st.from_regex(r"[a-z][a-z0-9_-]{1,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not 2**53 - 1 < abs(number) < 1e21
)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
_some = st.sampled_from
patterns = st.builds(
    lambda domain, name: TemplatePattern(domain, "*" if domain == "*" else name),
    _some(["docs", "code", "*"]),
    _some(["base", "writer", "*"]),
)


def _tuple(values: st.SearchStrategy[Any], *, min_size: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=min_size, max_size=3, unique_by=str).map(tuple)


grants = st.builds(
    Grants,
    kv=st.none() | st.builds(KvGrant, namespace=_some(["notes", "cache", "*"]), bytes_max=st.integers(1, 5)),
    http=_tuple(
        st.builds(
            HttpGrant,
            binding=_some(["crossref", "search", "*"]),
            origin=_some(["https://a.example", "https://b.example", "*"]),
            methods=_tuple(_some(["GET", "POST", "*"]), min_size=1),
            path_prefixes=_tuple(_some(["/", "/works", "/works/", "/works/x", "/workshop"]), min_size=1),
            headers=_tuple(_some(["x-api-version", "cookie", "*"])),
            inject=st.none()
            | st.builds(HttpInjection, header=_some(["X-Key", "Authorization"]), secret=_some(["one", "two", "*"])),
        )
    ),
    llm=_tuple(
        st.builds(
            LlmGrant,
            binding=_some(["default", "large", "*"]),
            models=_tuple(_some(["small", "big", "*"]), min_size=1),
            tokens_max=st.integers(1, 5),
        )
    ),
    agents=_tuple(patterns),
    files=_tuple(
        st.builds(FileGrant, mount=_some(["/data", "/in"]), export=_some(["corpus", "*"]), mode=_some(["ro", "rw"]))
    ),
)
limits = st.fixed_dictionaries(
    {name: st.integers(65_536 if name == "memory_bytes" else 1, getattr(LIMIT_CEILINGS, name)) for name in LIMIT_NAMES}
).map(lambda amounts: Limits(**amounts))
