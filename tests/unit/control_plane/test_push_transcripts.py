"""Conversations in `transcripts/`, played against the state machine: what is said, and indented what follows."""

from pathlib import Path

import pytest

from control_plane.push import (
    Acked,
    Disconnected,
    Draining,
    Effect,
    Fact,
    GoAway,
    Hello,
    LeaseRenewed,
    Nacked,
    Parting,
    Published,
    Reported,
    ResyncAsked,
    SendFull,
    SendLease,
    SendRevocation,
    Stage,
    StartTimer,
    Subscriber,
    Timer,
    TimerFired,
)

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def fact_of(words: list[str], ticket: int) -> Fact:  # noqa: PLR0911 - one line of the language each
    match words:
        case ["node", "hello", "holds", generation, *rest]:
            options = dict(zip(rest[::2], rest[1::2], strict=True))
            return Hello(
                protocol_versions=frozenset(int(each) for each in options.get("speaks", "1").split(",")),
                generation=int(generation),
                lease_version=int(options.get("lease", "0")),
            )
        case ["node", "ack", generation, stage]:
            return Acked(generation=int(generation), stage=Stage(stage))
        case ["node", "nack", generation, *rest]:
            return Nacked(generation=int(generation), retryable=rest == ["retryable"])
        case ["node", "report"]:
            return Reported()
        case ["node", "resync"]:
            return ResyncAsked()
        case ["node", "leaves"]:
            return Disconnected()
        case ["cp", "publishes" | "revokes" as verb, generation, "lease", lease]:
            return Published(generation=int(generation), lease_version=int(lease), urgent=verb == "revokes")
        case ["cp", "lease", generation, "version", lease]:
            return LeaseRenewed(generation=int(generation), lease_version=int(lease))
        case ["cp", "drains"]:
            return Draining(reason=Parting.SHUTTING_DOWN)
        case ["cp", "replaces"]:
            return Draining(reason=Parting.REPLACED)
        case ["timer", which, "fires"]:
            return TimerFired(timer=Timer(which.upper()), ticket=ticket)
    raise ValueError(words)


def line_of(effect: Effect) -> str:
    match effect:
        case SendFull(generation=generation):
            return f"-> full {generation}"
        case SendRevocation(generation=generation):
            return f"-> revocation {generation}"
        case SendLease(generation=generation, lease_version=version):
            return f"-> lease {generation} version {version}"
        case GoAway(reason=reason):
            return f"-> goaway {reason}"
        case StartTimer(timer=Timer.ACK):
            return "-> timer ack"
        case StartTimer(after_s=after_s):
            return f"-> timer retry {after_s:g}"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_conversation(transcript: Path) -> None:
    said, expected = "", list[str]()
    subscriber, got, ticket = Subscriber(), list[str](), 0
    for number, line in enumerate(transcript.read_text().splitlines(), start=1):
        words = line.split()
        if not words or words[0] == "#":
            continue
        if line.startswith("  state"):
            assert subscriber.state == words[1], f"{transcript.name}:{number}"
            continue
        if line.startswith("  "):
            expected.append(line.strip())
            continue
        assert got == expected, f"{transcript.name}, after {said!r}"
        said, expected = line, []
        if words[:3] == ["cp", "starts", "at"]:
            subscriber, got = Subscriber(wanted=int(words[3]), lease_version=int(words[5])), []
            continue
        effects = subscriber.receive(fact_of(words, ticket))
        ticket = next((each.ticket for each in effects if isinstance(each, StartTimer)), ticket)
        got = [line_of(each) for each in effects]
    assert got == expected, f"{transcript.name}, after {said!r}"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) == 5
