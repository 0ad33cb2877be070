"""The CPython image: runs an author's source, once, in an interpreter that was started while the image was built.

componentize-py snapshots the heap after this module was imported, so everything imported here is there without cost at
run time, and nothing else of the standard library exists. Whatever is computed here is the same in every invocation
(sandbox notes, engine fact 13): therefore ``load`` seeds ``random`` anew.
"""

import gc
import importlib
import json
import linecache
import marshal
import os
import random
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, ClassVar

import absent  # type: ignore[import-not-found]  # beside this file, on the path while the image is built
import archive  # type: ignore[import-not-found]
import wit_world  # type: ignore[import-not-found]  # made by componentize-py while it builds the image
from agentfactory_sdk import _host
from agentfactory_sdk._answer import answer_text
from agentfactory_sdk.errors import DeniedError, host_error
from componentize_py_types import Err  # type: ignore[import-not-found]

STANDARD_LIBRARY = """
    __future__ _strptime abc array ast base64 binascii bisect calendar cmath codecs collections collections.abc
    colorsys configparser contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib email.message
    email.parser email.policy encodings.ascii encodings.cp1252 encodings.cp437 encodings.idna encodings.latin_1
    encodings.utf_16 encodings.utf_8_sig enum errno fnmatch fractions functools gc gzip hashlib heapq hmac html
    html.entities html.parser inspect io ipaddress itertools json json.decoder json.encoder json.scanner keyword
    linecache locale logging math numbers operator os os.path pathlib pkgutil pprint quopri random re reprlib
    secrets shlex signal socket statistics string stringprep struct sys textwrap threading time token tokenize
    tomllib traceback types typing unicodedata urllib.error urllib.parse uuid warnings weakref xml.etree.ElementTree
    xml.sax.saxutils zipfile zlib zoneinfo
""".split()  # noqa: SIM905 - ninety quoted words are harder to read

FILE = "agent.py"
ERROR_CHARACTERS_MAX = 16_384
MESSAGE_CHARACTERS_MAX = 2_048
FRAMES_MAX = 20
OUT_OF_MEMORY = '{"kind": "memory", "message": "MemoryError: the agent used up its memory_bytes"}'


class Absent:
    """In the place of an interface that the world does not import: a module has only those that it was granted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, function: str) -> object:
        raise DeniedError(f"expected a grant for {self.name}, got none")


def imported(name: str) -> Any:
    try:
        return importlib.import_module(f"wit_world.imports.{name}")
    except ModuleNotFoundError:
        return Absent(name)


agents, context, http, kv, llm, log = (imported(name) for name in ("agents", "context", "http", "kv", "llm", "log"))
LEVELS = {level.name.lower(): level for level in log.Level}

for name in STANDARD_LIBRARY:
    importlib.import_module(name)


class WitHost:
    """The node, through the imports of the image's world."""

    def config(self) -> str:
        return str(context.config())

    def invocation_id(self) -> str:
        return str(context.invocation_id())

    def budget(self) -> str:
        return str(context.budget())

    def log(self, level: str, message: str) -> None:
        log.log(LEVELS[level], message)

    def kv_get(self, key: str) -> tuple[str, int] | None:
        entry = answered(kv.get, text(key))
        return None if entry is None else (entry.value, entry.version)

    def kv_put(self, key: str, value: str, expected: int | None, ttl_s: int | None) -> int:
        if ttl_s is None:
            return int(answered(kv.put, text(key), text(value), number(expected)))
        return int(answered(kv.put_for, text(key), text(value), number(expected), number(ttl_s)))

    def kv_delete(self, key: str, expected: int | None) -> None:
        answered(kv.delete, text(key), number(expected))

    def kv_list(self, prefix: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        page = answered(kv.list, text(prefix), None if cursor is None else text(cursor), number(limit, bits=32))
        return page.keys, page.cursor

    def llm_complete(self, binding: str, request: str) -> str:
        return str(answered(llm.complete, text(binding), text(request)))

    def llm_open(self, binding: str, request: str) -> int:
        return int(answered(llm.open, text(binding), text(request)))

    def llm_next(self, number_of: int) -> str | None:
        piece = answered(llm.next, number(number_of))
        return None if piece is None else str(piece)

    def llm_close(self, number_of: int) -> None:
        answered(llm.close, number(number_of))

    def http_fetch(self, binding: str, request: str) -> str:
        return str(answered(http.fetch, text(binding), text(request)))

    def agents_invoke(self, template: str, text_in: str) -> str:
        return str(answered(agents.invoke, text(template), text(text_in)))


def answered(function: Callable[..., Any], *arguments: object) -> Any:
    """Call the node; its typed error becomes the SDK's exception."""
    try:
        return function(*arguments)
    except Err as refusal:
        error = refusal.value
        raise host_error(error.kind.name.lower(), error.message) from None


def text(value: object) -> str:
    """``value`` if it is text that can travel: the bindings would trap on anything else."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    if not value.isascii():
        value.encode("utf-8")
    return value


def number(value: object, *, bits: int = 64) -> int | None:
    """``value`` if it is a number that can travel."""
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise TypeError(f"expected a whole number of {bits} bits, got {value!r}")
    return value


class Agent:
    """The author's source and its ``process``, of this one invocation."""

    files: ClassVar[dict[str, str]] = {}  # the author's sources by the names that tracebacks show
    process: Callable[[str], object]
    reserve: bytearray | None = bytearray(65_536)  # given back before a MemoryError is reported


class WitWorld(wit_world.WitWorld):  # type: ignore[misc]
    """What the worker calls: ``load`` once, then ``process`` once."""

    def load(self, source: str) -> None:
        """Execute the author's source in a fresh module."""
        try:
            load_translation(translated(source))
        except BaseException as failure:
            raise Err(report(failure)) from None

    def prepare(self, source: str) -> str:
        """The source and its byte code as text: every byte one character."""
        try:
            return marshal.dumps(translated(source)).decode("latin-1")
        except BaseException as failure:
            raise Err(report(failure)) from None

    def load_prepared(self, prepared: str) -> None:
        """``load`` without the compilation, which is most of the time that a long source takes."""
        try:
            load_translation(marshal.loads(prepared.encode("latin-1")))  # noqa: S302 - our own, and this is the sandbox
        except BaseException as failure:
            raise Err(report(failure)) from None

    def process(self, text_in: str) -> str:
        """The author's answer as text."""
        try:
            output = answer_text(Agent.process(text_in))
            flush()
        except BaseException as failure:
            raise Err(report(failure)) from None
        return output


def translated(source: str) -> Any:
    """The source and its code as a pair; of a zip ``archive.Compiled``, every file's."""
    if archive.is_archive(source):
        files = archive.unpacked(source)
        Agent.files = {FILE: files[FILE].decode("utf-8", "replace")}
        return archive.compiled(files)
    Agent.files = {FILE: source}
    return source, compile(source, FILE, "exec", dont_inherit=True)


def load_translation(made: Any) -> None:
    """Run the author's module out of what ``translated`` made, with what a zip holds beside it to import."""
    if isinstance(made, dict):
        importer = archive.install(made)
        Agent.files = {name: found[1] for name, found in made.items() if isinstance(found, tuple)}
        execute(importer.code(FILE))
    else:
        Agent.files = {FILE: made[0]}
        execute(made[1])


def execute(code: types.CodeType) -> None:
    """Run the author's module and find its ``process``."""
    random.seed(os.urandom(32))  # without an argument it would ask for 2,500 bytes, in ten calls
    module = types.ModuleType("agent")
    module.__file__ = FILE
    sys.modules["agent"] = module
    exec(code, module.__dict__)
    process = module.__dict__.get("process")
    if not callable(process):
        raise TypeError(f"expected {FILE} to define process(text), got {type(process).__name__}")
    Agent.process = staticmethod(process)


def flush() -> None:
    """What was printed without a line's end belongs to the log too."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()


def report(failure: BaseException) -> str:
    """The typed error for the worker: JSON of kind, message and a traceback that shows the author's frames."""
    Agent.reserve = None
    if isinstance(failure, MemoryError):
        return OUT_OF_MEMORY
    try:
        flush()
        for name, source in Agent.files.items():
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        return described(failure)
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as second:  # the author's own __str__ and streams may raise whatever they like
        kinds = f"{type(failure).__name__} ({type(second).__name__} while reporting it)"
        return json.dumps({"kind": "error", "message": kinds})


def described(failure: BaseException) -> str:
    """``report`` without its guards."""
    error = traceback.TracebackException.from_exception(failure, limit=-FRAMES_MAX, compact=True)
    while error.stack and error.stack[0].filename not in Agent.files:
        error.stack.pop(0)
    hint = absent.hint_for(failure)
    kind, message = "error", "".join(error.format_exception_only()).strip() + hint
    line = next((frame.lineno for frame in reversed(error.stack) if frame.filename == FILE), None)
    if isinstance(failure, SyntaxError) and failure.filename == FILE and not error.stack:
        kind, message, line = "syntax", f"{type(failure).__name__}: {failure.msg}", failure.lineno
    elif isinstance(failure, SystemExit):
        kind, message = "exit", f"the agent called sys.exit({failure.code!r})"
    return json.dumps(
        {
            "kind": kind,
            "message": message[:MESSAGE_CHARACTERS_MAX],
            "line": line,
            "traceback": cut("".join(error.format()) + hint),
        }
    )


def cut(value: str) -> str:
    """At most ``ERROR_CHARACTERS_MAX``: the end of a traceback says more than its beginning."""
    return value if len(value) <= ERROR_CHARACTERS_MAX else "… " + value[-ERROR_CHARACTERS_MAX:]


_host.install(WitHost())
gc.collect()
gc.freeze()  # the collector need not walk, and so not copy, the pages of the snapshot
