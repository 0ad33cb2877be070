"""Paths as guests write them, taken apart before the kernel sees any of it.

A path is relative to a directory that the guest holds. ``.`` and ``..`` are resolved here, by the text alone: what
reaches the kernel are plain names, so that no ``..`` can race with somebody who moves directories about. (The price:
``nowhere/../file`` names ``file``, where POSIX says that ``nowhere`` must exist.)
"""

from dataclasses import dataclass

from sandbox.file_protocol import NAME_BYTES_MAX, PATH_BYTES_MAX, Errno, FileRefusal


@dataclass(frozen=True, slots=True)
class GuestPath:
    """Plain names, none for the directory itself. ``is_directory``: the path says so by a slash or a dot at its end."""

    names: tuple[bytes, ...]
    is_directory: bool


def parse_path(path: bytes) -> GuestPath:
    """Take a path apart.

    Raises:
        FileRefusal: PERM for one that is absolute or climbs out, NAMETOOLONG, INVAL for a NUL, ILSEQ for what is not
            UTF-8, NOENT for an empty one.
    """
    if len(path) > PATH_BYTES_MAX:
        raise FileRefusal(Errno.NAMETOOLONG)
    if not path:
        raise FileRefusal(Errno.NOENT)
    if b"\0" in path:
        raise FileRefusal(Errno.INVAL)
    if path.startswith(b"/"):
        raise FileRefusal(Errno.PERM)
    try:
        path.decode()
    except UnicodeDecodeError:
        raise FileRefusal(Errno.ILSEQ) from None
    names: list[bytes] = []
    pieces = path.split(b"/")
    for piece in pieces:
        if piece == b"..":
            if not names:
                raise FileRefusal(Errno.PERM)
            names.pop()
        elif len(piece) > NAME_BYTES_MAX:
            raise FileRefusal(Errno.NAMETOOLONG)
        elif piece not in {b"", b"."}:
            names.append(piece)
    return GuestPath(tuple(names), pieces[-1] in {b"", b".", b".."})
