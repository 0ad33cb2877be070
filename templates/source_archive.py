"""An author's source as bytes: one text, or a zip of texts and data, whose reading is bounded before it is begun.

Authors, the control plane, reviewers and nodes read the same bytes and must agree on what is in them. So the forms in
which zip readers differ are refused: names given twice, paths that leave the archive, links, encryption, other methods
than stored and deflated. The limits are also those of the image, which reads it again inside the sandbox (ADR 16).
"""

import io
import stat
import unicodedata
import zipfile
import zlib
from typing import Final

from templates.reasons import AgentFactoryError, Reason

MAGIC: Final = b"PK\x03\x04"
ENTRY: Final = "agent.py"
ENTRIES_MAX: Final = 1_000
UNPACKED_BYTES_MAX: Final = 8 << 20
NAME_CHARACTERS_MAX: Final = 200
_DECEPTIVE: Final = frozenset("\0\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1


class SourceInvalidError(AgentFactoryError):
    """The bytes are not the source that its name says, or text that reads otherwise than it runs."""

    reason = Reason.SOURCE_INVALID


def check_source(file: str, data: bytes) -> None:
    """Check the bytes of the source ``file``.

    Raises:
        SourceInvalidError: not the text or archive that its name says; what an archive may not hold; or text that shows
            reviewers other code than the interpreter sees (bidirectional controls, CVE-2021-42574).
    """
    if file.endswith(".zip") != data.startswith(MAGIC):
        raise SourceInvalidError(f"expected {file} to be {'a zip archive' if file.endswith('.zip') else 'text'}")
    if not file.endswith(".zip"):
        _check_text(file, data)
        return
    for name, content in read_archive(data).items():
        if name.endswith(".py"):
            _check_text(f"{file}:{name}", content)


def read_archive(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip of sources by their names, in the order of the archive.

    Raises:
        SourceInvalidError: it is damaged, too large, without ``agent.py``, or of a form that readers may read apart.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > ENTRIES_MAX:
                raise SourceInvalidError(f"expected at most {ENTRIES_MAX} files in the archive, got {len(entries)}")
            if (declared := sum(entry.file_size for entry in entries)) > UNPACKED_BYTES_MAX:
                raise SourceInvalidError(f"expected {UNPACKED_BYTES_MAX} bytes or less unpacked, got {declared}")
            files: dict[str, bytes] = {}
            for entry in entries:
                _check_entry(entry, files)
                files[entry.filename] = _content(archive, entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise SourceInvalidError(f"expected a zip archive, got a damaged one: {error}") from error
    if ENTRY not in files:
        found = ", ".join([*files][:10]) or "no files"
        raise SourceInvalidError(f"expected {ENTRY} at the top of the archive, got {found}")
    return files


def source_text(file: str, data: bytes) -> str:
    """Return a source as reviewers read it: of an archive every file under its name, data by its length alone.

    Raises:
        SourceInvalidError: as `read_archive`.
    """
    if not file.endswith(".zip"):
        return data.decode(errors="backslashreplace")
    parts = []
    for name, content in sorted(read_archive(data).items()):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = f"({len(content)} bytes of data)\n"
        parts.append(f"=== {name}\n{text}" + ("" if text.endswith("\n") else "\n"))
    return "".join(parts)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file's bytes; never more are unpacked than its header says, whatever the stream would give."""
    with archive.open(entry) as stream:
        data = stream.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise SourceInvalidError(f"expected {entry.filename} to have {entry.file_size} bytes, got another number")
    return data


def _check_entry(entry: zipfile.ZipInfo, files: dict[str, bytes]) -> None:
    name = entry.filename
    parts = name.split("/")
    if (
        name != entry.orig_filename
        or not 0 < len(name) <= NAME_CHARACTERS_MAX
        or "\\" in name
        or any(part in {"", ".", ".."} for part in parts)
        or any(unicodedata.category(character).startswith("C") for character in name)
    ):
        raise SourceInvalidError(f"expected plain file names inside the archive, got {name!a}")
    if name in files:
        raise SourceInvalidError(f"expected each name once in the archive, got {name} twice")
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise SourceInvalidError(f"expected {name} stored or deflated, got method {entry.compress_type} or encryption")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        raise SourceInvalidError(f"expected plain files in the archive, got {name} of another kind")


def _check_text(file: str, data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceInvalidError(f"expected {file} in UTF-8, got another byte at {error.start}") from None
    for line, content in enumerate(text.split("\n"), start=1):
        if found := _DECEPTIVE.intersection(content):
            raise SourceInvalidError(
                f"expected text that reads as it runs, got U+{ord(min(found)):04X} at {file}:{line}"
            )
