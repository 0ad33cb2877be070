"""What the outside answered while a template's examples ran, kept beside it: then they run again without a network.

``answers.json`` holds, by the number of the example, its calls of `http` and `llm` in their order, each with what was
asked and what came. Recorded answers passed the broker's rules, which took the values of secrets out of them. The file
is the author's: it is no part of the template, and neither reviewers nor nodes see it. Every other call (`kv`, `files`)
is carried out as ever.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.strict_json import loads

if TYPE_CHECKING:
    from sandbox.request import HostCalls

FILE: Final = "answers.json"
OUTSIDE: Final = frozenset({"http", "llm"})
_BYTES_MAX: Final = 64 << 20
_DEPTH_MAX: Final = 64
_SHOWN_CHARACTERS: Final = 200
_MEMBERS: Final = frozenset({"call", "argument", "answer"})

Call = dict[str, Any]
Answers = Mapping[int, Sequence[Call]]


class AnswersInvalidError(AgentFactoryError):
    """``answers.json`` is not what `agentctl template test --record` writes."""

    reason = Reason.INVALID_DOCUMENT


class AnswersHost(Protocol):
    """Host calls of one example around the local ones; ``problem`` says why its answers do not fit, if they do not."""

    @property
    def problem(self) -> str: ...

    async def call(self, interface: str, function: str, argument: bytes) -> bytes: ...


class Recorder:
    """Writes down what the outside answers."""

    problem = ""

    def __init__(self, inner: "HostCalls") -> None:
        self._inner = inner
        self.calls: list[Call] = []

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        answer = await self._inner.call(interface, function, argument)
        if interface in OUTSIDE:
            name = f"{interface}.{function}"
            self.calls.append({"call": name, "argument": _asked(argument), "answer": json.loads(answer)})
        return answer


class Recorded:
    """Answers what was written down, call by call; the first that differs ends that."""

    def __init__(self, inner: "HostCalls", calls: Sequence[Call]) -> None:
        self._inner = inner
        self._calls = calls
        self._next = 0
        self._problem = ""

    @property
    def problem(self) -> str:
        if not self._problem and self._next < len(self._calls):
            return f"{FILE}: expected {self._calls[self._next]['call']} as call {self._next + 1}, got none"
        return self._problem

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        if interface not in OUTSIDE:
            return await self._inner.call(interface, function, argument)
        asked = {"call": f"{interface}.{function}", "argument": _asked(argument)}
        number = self._next + 1
        if not self._problem and number > len(self._calls):
            self._problem = f"{FILE}: expected {len(self._calls)} calls, got one more: {_shown(asked)}"
        elif not self._problem:
            known = self._calls[self._next]
            if asked == {"call": known["call"], "argument": known["argument"]}:
                self._next = number
                return json.dumps(known["answer"], ensure_ascii=False).encode()
            self._problem = f"{FILE}: expected {_shown(known)} as call {number}, got {_shown(asked)}"
        return json.dumps({"error": {"kind": "failed", "message": self._problem}}).encode()


def read_answers(folder: Path) -> Answers | None:
    """Return the answers beside a template, None where there are none.

    Raises:
        AnswersInvalidError: see there.
    """
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        found: Any = loads(data, bytes_max=_BYTES_MAX, depth_max=_DEPTH_MAX)
    except InvalidDocumentError as error:
        raise AnswersInvalidError(f"{FILE}: {error.message}") from error
    if not isinstance(found, dict) or not all(_is_example(*each) for each in found.items()):
        raise AnswersInvalidError(
            f'{FILE}: expected {{"1": [{{"call", "argument", "answer"}}, …], …}} as '
            "`agentctl template test --record` writes it"
        )
    return {int(number): calls for number, calls in found.items()}


def write_answers(folder: Path, answers: Answers) -> None:
    """Write the answers beside the template; none, and the file goes."""
    file = folder / FILE
    if not any(answers.values()):
        file.unlink(missing_ok=True)
        return
    text = json.dumps({str(number): calls for number, calls in answers.items()}, ensure_ascii=False, indent=1)
    file.write_text(f"{text}\n", encoding="utf-8")


def _is_example(number: str, calls: Any) -> bool:
    is_list = number.isdecimal() and isinstance(calls, list)
    return is_list and all(isinstance(one, dict) and one.keys() == _MEMBERS for one in calls)


def _asked(argument: bytes) -> Any:
    """The argument with the request, which travels as text, as what it is: easier to read, and order says nothing."""
    asked = json.loads(argument)
    if isinstance(asked, dict) and isinstance(asked.get("request"), str):
        try:
            asked["request"] = json.loads(asked["request"])
        except ValueError:
            return asked
    return asked


def _shown(call: Mapping[str, Any]) -> str:
    return f"{call['call']} {json.dumps(call['argument'], ensure_ascii=False)}"[:_SHOWN_CHARACTERS]
