"""Documents of the earlier system, made into templates; whatever is dropped or assumed is said."""

from dataclasses import dataclass

from templates.canonical import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One decision of the conversion: the place in the old document, and a sentence."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """``template`` passes `read_template`; it has no code, grants or limits of its own until its author adds them."""

    template: JsonObject
    dropped: tuple[Note, ...]
    assumed: tuple[Note, ...]

    def to_bytes(self) -> bytes:
        """Return the template as an indented document for its author to edit."""
        raise NotImplementedError


def convert(data: bytes, *, domain: str | None = None) -> Conversion:
    """Convert one document of the earlier system.

    Args:
        data: its bytes.
        domain: the domain to use when the document names none.

    Raises:
        InvalidTemplateError: not JSON, or nothing in it from which a name could be made.
    """
    raise NotImplementedError
