"""What this image lacks of the Python that people know, and what to use instead: added to the author's own error."""

import re

_THREADS = "the sandbox has one thread; agents.invoke runs another agent, and time.sleep costs nothing but time"
_SOCKETS = "there are no sockets; use agentfactory_sdk.http with the grant http"
_TLS = "the node carries TLS out; use agentfactory_sdk.http with the grant http"
_PROCESSES = "there are no processes; agents.invoke runs another agent"
_LOOP = "there is no event loop: write process(text) without async; the SDK's calls wait by themselves"
_PACKED = "the image has zlib and gzip alone"
_FILES = "there is no disk: keep text in kv, or in files beside agent.py in agent.zip (pkgutil.get_data)"

MODULES = {
    "ssl": _TLS,
    "_ssl": _TLS,
    "http": _SOCKETS,
    "http.client": _SOCKETS,
    "urllib.request": _SOCKETS,
    "requests": _SOCKETS,
    "httpx": _SOCKETS,
    "aiohttp": _SOCKETS,
    "urllib3": _SOCKETS,
    "socketserver": _SOCKETS,
    "smtplib": _SOCKETS,
    "ftplib": _SOCKETS,
    "asyncio": _LOOP,
    "concurrent": _THREADS,
    "multiprocessing": _PROCESSES,
    "subprocess": _PROCESSES,
    "queue": _THREADS,
    "ctypes": "no native code runs here; a module in C, Zig or Go is a template of its own",
    "sqlite3": "use agentfactory_sdk.kv with the grant kv",
    "dbm": "use agentfactory_sdk.kv with the grant kv",
    "bz2": _PACKED,
    "lzma": _PACKED,
    "tempfile": _FILES,
    "shutil": _FILES,
}
_NATIVE = frozenset({"numpy", "pandas", "scipy", "lxml", "cryptography", "PIL", "pydantic_core", "orjson", "torch"})
_OF_SOCKETS = ("/socket.py", "/http/client.py", "/urllib/request.py")
_LOOKUPS = frozenset({"gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"})
"""Functions of the module `socket` in C: they are in no traceback, but in the names of the code that called them."""
_ABSENT = re.compile(r"No module named '([\w.]+)'")


def hint_for(failure: BaseException) -> str:
    """What to add to the message of ``failure``; empty when there is nothing to say."""
    if isinstance(failure, ModuleNotFoundError):
        match = _ABSENT.match(str(failure))
        return _about_module(match[1]) if match else ""
    text = str(failure)
    if isinstance(failure, RuntimeError) and "can't start new thread" in text:
        return f" ({_THREADS})"
    if isinstance(failure, RuntimeError) and text.startswith("asyncio.run"):
        return f" ({_LOOP})"
    if isinstance(failure, TypeError) and text.endswith("got coroutine"):
        return f" ({_LOOP})"
    if isinstance(failure, AttributeError) and "no attribute 'HTTPSConnection'" in text:
        return f" ({_TLS})"
    return f" ({_SOCKETS})" if _is_of_sockets(failure) else ""


def _is_of_sockets(failure: BaseException | None) -> bool:
    """Whether ``failure``, or one that it was raised after, as urllib's is, comes from what would use a socket."""
    while isinstance(failure, OSError):
        trace = failure.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = trace.tb_frame.f_code if trace else None
        if code and (code.co_filename.endswith(_OF_SOCKETS) or _LOOKUPS.intersection(code.co_names)):
            return True
        failure = failure.__context__
    return False


def _about_module(name: str) -> str:
    top = name.partition(".")[0]
    if hint := MODULES.get(name) or MODULES.get(top):
        return f" (the image has no {name}: {hint})"
    if top in _NATIVE:
        return f" (the image has no {name}: it is made of native code, which does not run here)"
    return (
        f" (the image has no {name}: a package of pure Python can be vendored into agent.zip with"
        " `agentctl template build`; of the standard library there is what text, data and computation need)"
    )
