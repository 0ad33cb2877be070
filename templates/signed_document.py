"""Reading the documents that are signed here: canonical bytes, the published schema, every problem in one refusal."""

import json
from datetime import UTC, datetime
from importlib.resources import files

import jsonschema_rs

from templates.canonical import JsonObject, JsonValue, NotCanonicalError
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError
from templates.strict_json import read_canonical

PROBLEMS_MAX = 20
DEPTH_MAX = 32
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class SignedDocument:
    """One kind of document, known by its schema ``templates/<name>.schema.json``."""

    def __init__(self, name: str, *, bytes_max: int, error: type[AgentFactoryError]) -> None:
        self._name = name
        self._bytes_max = bytes_max
        self._error = error
        schema = json.loads(files("templates").joinpath(f"{name}.schema.json").read_text(encoding="utf-8"))
        self._validator = jsonschema_rs.Draft202012Validator(schema, pattern_options=jsonschema_rs.RegexOptions())

    def read(self, data: bytes) -> JsonObject:
        """Return the object that ``data`` spells canonically; raise the kind's error with every problem."""
        try:
            value = read_canonical(data, bytes_max=self._bytes_max, depth_max=DEPTH_MAX)
        except (InvalidDocumentError, NotCanonicalError) as error:
            raise self._error(
                f"expected a canonical {self._name}, got: {error.message}", metadata=error.metadata
            ) from None
        return self.check(value)

    def check(self, value: JsonValue) -> JsonObject:
        self.refuse_if(self._problems(value))
        if not isinstance(value, dict):
            raise self._error(f"expected a {self._name}, which is an object, got {type(value).__name__}")
        return value

    def check_member(self, name: str, value: JsonValue) -> None:
        """Judge one member of a document that is not there yet; raise as `check` does."""
        place = f"/{name}"
        self.refuse_if([each for each in self._problems({name: value}) if each.startswith((f"{place}/", f"{place}:"))])

    def _problems(self, value: JsonValue) -> list[str]:
        return [
            f"/{'/'.join(str(step) for step in error.instance_path)}: {error.message}"
            for error in self._validator.iter_errors(value)
        ]

    def refuse_if(self, problems: list[str]) -> None:
        """Raise the kind's error if there are problems."""
        if problems:
            shown = "; ".join(problem[:300] for problem in problems[:PROBLEMS_MAX])
            raise self._error(f"expected a valid {self._name}, got {len(problems)} problem(s): {shown}")


def time_text(moment: datetime) -> str:
    """Return the one spelling of a moment in signed documents: UTC, whole seconds; a naive one is a `ValueError`."""
    if moment.tzinfo is None:
        raise ValueError("expected an aware time, got a naive one")
    return moment.astimezone(UTC).strftime(_TIME_FORMAT)


def read_time(text: str) -> datetime:
    """Read what `time_text` gives; raise `ValueError` for anything else."""
    moment = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    if time_text(moment) != text:
        raise ValueError(f"expected a time spelled {time_text(moment)}, got {text!r}")
    return moment
