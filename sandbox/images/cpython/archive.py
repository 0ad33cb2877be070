"""An author's zip of sources: read from memory, imported from memory, shown in tracebacks under its names in the zip.

The host hands a zip over as text, every byte one character. What was compiled once travels as byte code per file, which
is unmarshalled when a file is imported: a vendored package that an input does not need costs nothing.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import io
import linecache
import marshal
import sys
import types
import zipfile
import zlib
from collections.abc import Sequence

MAGIC = "PK\x03\x04"
ENTRIES_MAX = 1_000
BYTES_MAX = 8 << 20  # unpacked, in all: the same as templates.source_archive, for whoever reached this image otherwise
ENTRY = "agent.py"

Files = dict[str, bytes]
Compiled = dict[str, "tuple[bytes, str] | bytes"]
"""By name: byte code and source of a Python file (or the source alone where it does not compile), else the bytes."""


def is_archive(source: str) -> bool:
    return source.startswith(MAGIC)


def unpacked(source: str) -> Files:
    """Every file of the zip by its name.

    Raises:
        ValueError: it is broken, too large when unpacked, or holds no agent.py.
    """
    files: Files = {}
    left = BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(source.encode("latin-1"))) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > ENTRIES_MAX:
                raise ValueError(f"expected at most {ENTRIES_MAX} files in agent.zip, got {len(entries)}")
            for entry in entries:
                with archive.open(entry) as stream:
                    data = stream.read(left + 1)
                left -= len(data)
                if left < 0:
                    raise ValueError(f"expected agent.zip to unpack to at most {BYTES_MAX} bytes, got more")
                files[entry.filename] = data
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"expected a zip of sources, got a damaged one: {error}") from error
    if ENTRY not in files:
        raise ValueError(f"expected {ENTRY} at the top of agent.zip, got {', '.join(sorted(files)[:10])}")
    return files


def compiled(files: Files) -> Compiled:
    """Translate every Python file; one that does not compile says so when somebody imports it.

    Raises:
        SyntaxError: agent.py itself does not compile.
    """
    made: Compiled = {}
    for name, data in files.items():
        if not name.endswith(".py"):
            made[name] = data
            continue
        try:
            source = importlib.util.decode_source(data)
            made[name] = (marshal.dumps(compile(source, name, "exec", dont_inherit=True)), source)
        except (SyntaxError, ValueError):
            if name == ENTRY:
                raise
            made[name] = (b"", data.decode("utf-8", "replace"))
    return made


class Importer(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads modules among compiled files."""

    def __init__(self, files: Compiled) -> None:
        self.files = files

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: types.ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        base = fullname.replace(".", "/")
        for name, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if name in self.files:
                spec = importlib.machinery.ModuleSpec(fullname, self, origin=name, is_package=is_package)
                spec.has_location = True
                return spec
        if any(name.startswith(f"{base}/") and name.endswith(".py") for name in self.files):
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)  # a namespace package
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The default module."""

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__spec__.origin if module.__spec__ else None
        exec(self.code(str(name)), module.__dict__)

    def code(self, name: str) -> types.CodeType:
        """The code of one file; a file that did not compile is compiled again, for its error."""
        found = self.files[name]
        if isinstance(found, bytes):
            raise ImportError(f"expected Python in {name}")  # noqa: TRY004 - what import statements raise
        code, source = found
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        if not code:
            return compile(source, name, "exec", dont_inherit=True)
        loaded: types.CodeType = marshal.loads(code)  # noqa: S302 - our own, and this is the sandbox
        return loaded

    def get_source(self, fullname: str) -> str | None:
        spec = self.find_spec(fullname, None)
        found = self.files.get(str(spec.origin)) if spec else None
        return found[1] if isinstance(found, tuple) else None

    def get_data(self, path: str) -> bytes:
        """A file's bytes: what ``pkgutil.get_data`` asks for.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self.files.get(path)
        if found is None:
            raise FileNotFoundError(f"expected a file of agent.zip, got {path}")
        return found[1].encode() if isinstance(found, tuple) else found


def install(files: Compiled) -> Importer:
    """Let ``import`` find the files; they win over what the image has not imported yet."""
    importer = Importer(files)
    sys.meta_path.insert(0, importer)
    return importer
