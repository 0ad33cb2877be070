"""The CPython image: runs an author's source, once, in an interpreter that was started while the image was built.

componentize-py snapshots the heap after this module was imported, so everything imported here is there without cost at
run time, and nothing else of the standard library exists. Whatever is computed here is the same in every invocation
(sandbox notes, engine fact 13): therefore `load` seeds `random` anew.
"""

import gc
import importlib
import json
import linecache
import random
import sys
import traceback
import types

import wit_world
from agentfactory_sdk import _host
from agentfactory_sdk._answer import answer_text
from agentfactory_sdk.errors import host_error
from componentize_py_types import Err
from wit_world.imports import agents, context, kv, log

STANDARD_LIBRARY = """
    __future__ abc argparse array ast base64 binascii bisect calendar cmath cmd codecs codeop collections collections.abc
    colorsys configparser contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib dis email.message
    email.parser email.policy email.utils encodings.ascii encodings.cp1252 encodings.idna encodings.latin_1
    encodings.punycode encodings.utf_16 encodings.utf_8_sig enum errno fnmatch fractions functools gc getopt gettext glob
    gzip hashlib heapq hmac html html.entities html.parser importlib.metadata importlib.resources inspect io ipaddress
    itertools json json.decoder json.encoder json.scanner keyword linecache locale logging math mimetypes numbers opcode
    operator optparse os os.path pathlib pickle pickletools platform posixpath pprint queue quopri random re reprlib
    sched secrets shlex shutil signal statistics string stringprep struct symtable sys tempfile textwrap threading time
    timeit token tokenize tomllib traceback types typing unicodedata unittest unittest.mock urllib.error urllib.parse uuid
    warnings weakref xml.dom.minidom xml.etree.ElementTree xml.sax.saxutils zipfile zlib zoneinfo _strptime
""".split()  # noqa: SIM905 - eighty quoted words are harder to read

FILE = "agent.py"
ERROR_BYTES_MAX = 16_384
FRAMES_MAX = 20
OUT_OF_MEMORY = '{"kind": "memory", "message": "MemoryError: the agent used up its memory_bytes"}'

absent = []
for name in STANDARD_LIBRARY:
    try:
        importlib.import_module(name)
    except ImportError:
        absent.append(name)


class WitHost:
    """The node, through the imports of the image's world."""

    def config(self):
        return context.config()

    def invocation_id(self):
        return context.invocation_id()

    def log(self, level, message):
        log.log(LEVELS[level], message)

    def kv_get(self, key):
        entry = answered(kv.get, text(key))
        return None if entry is None else (entry.value, entry.version)

    def kv_put(self, key, value, expected):
        return answered(kv.put, text(key), text(value), expected)

    def kv_delete(self, key, expected):
        answered(kv.delete, text(key), expected)

    def kv_list(self, prefix, cursor, limit):
        page = answered(kv.list, text(prefix), cursor, limit)
        return page.keys, page.cursor

    def agents_invoke(self, template, argument):
        return answered(agents.invoke, text(template), text(argument))


LEVELS = {level.name.lower(): level for level in log.Level}


def answered(function, *arguments):
    """Call the node; its typed error becomes the SDK's exception."""
    try:
        return function(*arguments)
    except Err as refusal:
        error = refusal.value
        raise host_error(error.kind.name.lower(), error.message) from None


def text(value):
    """``value`` if it is text that can travel: the bindings would trap on anything else."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    if not value.isascii():
        value.encode("utf-8")
    return value


class WitWorld(wit_world.WitWorld):
    """What the worker calls: ``load`` once, then ``process`` once."""

    def load(self, source):
        """Execute the author's source in a fresh module."""
        try:
            random.seed()
            module = types.ModuleType("agent")
            module.__file__ = FILE
            sys.modules["agent"] = module
            state.source = source
            exec(compile(source, FILE, "exec", dont_inherit=True), module.__dict__)
            process = module.__dict__.get("process")
            if not callable(process):
                raise LookupError(f"expected {FILE} to define process(text), got no such function")
            state.process = process
        except BaseException as failure:
            raise Err(report(failure)) from None

    def process(self, input):
        """The author's answer as text."""
        try:
            output = answer_text(state.process(input))
            flush()
        except BaseException as failure:
            raise Err(report(failure)) from None
        return output


class State:
    """Of this one invocation."""

    source = ""
    process = None
    reserve = bytearray(65_536)  # given back before a MemoryError is reported


state = State()


def flush():
    """What was printed without a line's end belongs to the log too."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()


def report(failure):
    """The typed error for the worker: JSON of kind, message and a traceback that shows the author's frames only."""
    state.reserve = None
    if isinstance(failure, MemoryError):
        return OUT_OF_MEMORY
    try:
        flush()
        linecache.cache[FILE] = (len(state.source), None, state.source.splitlines(keepends=True), FILE)
        return described(failure)
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as second:  # the author's own __str__ or streams may raise whatever they like
        return json.dumps(
            {"kind": "error", "message": f"{type(failure).__name__} ({type(second).__name__} while reporting it)"}
        )


def described(failure):
    """``report`` without its guards."""
    error = traceback.TracebackException.from_exception(failure, limit=-FRAMES_MAX, compact=True)
    while error.stack and error.stack[0].filename != FILE and not isinstance(failure, SyntaxError):
        error.stack.pop(0)
    message = "".join(error.format_exception_only()).strip()
    if isinstance(failure, SyntaxError):
        kind, message = "syntax", f"{FILE}:{failure.lineno}: {failure.msg}"
    elif isinstance(failure, SystemExit):
        kind, message = "exit", f"the agent called sys.exit({failure.code!r})"
    else:
        kind = "error"
    line = next((frame.lineno for frame in reversed(error.stack) if frame.filename == FILE), None)
    if isinstance(failure, SyntaxError):
        line = failure.lineno
    whole = "".join(error.format())
    return json.dumps(
        {
            "kind": kind,
            "message": cut(message, ERROR_BYTES_MAX // 4),
            "line": line,
            "traceback": cut(whole, ERROR_BYTES_MAX),
        }
    )


def cut(value, limit):
    """At most ``limit`` characters: the end says more than the beginning of a traceback."""
    return value if len(value) <= limit else "… " + value[-limit:]


_host.install(WitHost())
gc.collect()
gc.freeze()  # the collector need not walk, and so not copy, the pages of the snapshot
