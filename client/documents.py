"""Template documents as files: every refusal names its file, since a template and its parents are read together."""

from collections.abc import Iterable
from pathlib import Path

from templates.document import Template, read_template
from templates.problems import InvalidDocumentError, InvalidTemplateError, Problem


class InvalidFileError(InvalidTemplateError):
    """The document in ``file`` was refused."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        super().__init__(problems)
        self.file = file
        self.message = f"{file}:{self.message}"
        self.args = (self.message,)


def parse_file(file: str, data: bytes) -> Template:
    """Read the template document ``data``; ``file`` names it in messages.

    Raises:
        InvalidFileError: with every problem of the document.
    """
    try:
        return read_template(data)
    except InvalidDocumentError as error:
        raise InvalidFileError(file, error.problems) from error


def read_file(path: Path) -> Template:
    """Read the template document at ``path``.

    Raises:
        InvalidFileError: with every problem of the document.
        OSError: the file cannot be read.
    """
    return parse_file(str(path), path.read_bytes())
