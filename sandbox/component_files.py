"""What stands behind the file handles of a component: directories and files, streams over them, listings, errors.

One table for all of them: a representation is a number above those that other resources of ours use, and names one
thing of one kind, whatever type of handle a component passes.
"""

from dataclasses import dataclass, field
from typing import Final, TypeVar

from sandbox.file_protocol import Entry, Errno
from sandbox.guest_files import File, GuestFiles
from sandbox.values import WrongKindError

_FIRST: Final = 1 << 16
T = TypeVar("T", bound="Held")


@dataclass(slots=True)
class OpenDescriptor:
    """A directory or a file."""

    file: File


@dataclass(slots=True)
class Reading:
    """An input stream."""

    file: File
    position: int


@dataclass(slots=True)
class Writing:
    """An output stream. ``appends``: wherever the file ends."""

    file: File
    position: int
    appends: bool


@dataclass(slots=True)
class Listing:
    """The entries of a directory, a block at a time; ``cookie`` counts those that were told."""

    file: File
    cookie: int = 0
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class StreamError:
    """Why an operation of a stream failed."""

    errno: Errno


Held = OpenDescriptor | Reading | Writing | Listing | StreamError


class ComponentFiles(GuestFiles):
    """Files and what refers to them."""

    __slots__ = ("_held", "_last")

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[int, Held] = {}
        self._last = _FIRST

    def keep(self, held: Held) -> int:
        """Return the representation for a new handle."""
        self._last += 1
        self._held[self._last] = held
        return self._last

    def keep_another(self, held: Held, file: File) -> int:
        """``keep`` for what holds a file that something else holds too."""
        file.holders += 1
        return self.keep(held)

    def find(self, representation: int, kind: type[T]) -> T:
        """Return what stands behind a handle.

        Raises:
            WrongKindError: nothing of this kind.
        """
        held = self._held.get(representation)
        if not isinstance(held, kind):
            raise WrongKindError(f"expected a handle of a {kind.__name__}, got another")
        return held

    def has(self, representation: int) -> bool:
        return representation in self._held

    def dropped(self, representation: int) -> None:
        """The component let a handle go; those of other resources are not in the table."""
        held = self._held.pop(representation, None)
        if held is not None and not isinstance(held, StreamError):
            self.let_go(held.file)
