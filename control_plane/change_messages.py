"""Changes as protobuf messages, with what the present charter says of each: threshold, reviewers, who is waited for."""

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from typing import Final

from agentfactory.admin.v1 import admin_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane import review
from control_plane.lifecycle import ChangeState
from control_plane.publisher import Publisher, Reviewed
from control_plane.review import Change, ChangeEvent
from templates.acceptance import Tally

STATES: Final = MappingProxyType({state: pb.ChangeState.Value(f"CHANGE_STATE_{state}") for state in ChangeState})
STATE_OF: Final = MappingProxyType({value: state for state, value in STATES.items()})


def change_to_proto(change: Change, publisher: Publisher, tally: Tally | None = None) -> pb.Change:
    """Return ``change`` with the threshold and reviewers that the present charter gives it."""
    present = publisher.present
    reviewers: Iterable[str] = ()
    waiting: Iterable[str] = ()
    warnings = list(change.warnings)
    if change.ref.domain in present.charter.domains:
        tally = tally or change.tally(present.charter, present.revocations)
        reviewers = review.reviewers_of(change, present.charter)
        waiting = review.waiting_for(
            change, tally, charter=present.charter, revocations=present.revocations, now=publisher.now()
        )
        if tally.above_ceiling:
            warnings.append(f"above the ceiling of {change.ref.domain}: {'; '.join(tally.above_ceiling)}")
    stored = change.number > 0
    return pb.Change(
        name=change.name if stored else "",
        state=STATES[change.state] if stored else pb.CHANGE_STATE_UNSPECIFIED,
        template=str(change.ref),
        sha256=bytes.fromhex(change.sha256),
        author=change.author,
        create_time=time_of(change.created_at),
        statement=change.statement,
        threshold=tally.needed if tally else 0,
        approvers=sorted(tally.counted) if tally else (),
        reviewers=reviewers,
        reject_reason=change.state_reason if change.state is ChangeState.REJECTED else "",
        generation=change.generation,
        warnings=warnings,
        etag=change.etag if stored else "",
        waiting_for=waiting if stored else (),
        state_reason=change.state_reason,
        update_time=time_of(change.updated_at or change.created_at),
        planned=is_planned(change, publisher),
    )


def reviewed_to_proto(reviewed: Reviewed, publisher: Publisher) -> pb.Change:
    return change_to_proto(reviewed.change, publisher, reviewed.tally)


def event_to_proto(event: ChangeEvent) -> pb.ChangeEvent:
    return pb.ChangeEvent(
        name=f"changes/{event.change}/events/{event.number}",
        create_time=time_of(event.at),
        person=event.by,
        action=str(event.action),
        before=STATES[event.before] if event.before else pb.CHANGE_STATE_UNSPECIFIED,
        after=STATES[event.after],
        text=event.text,
    )


def is_planned(change: Change, publisher: Publisher) -> bool:
    """Whether nodes run this version: a deprecated one may still be what the plan names."""
    if change.state is ChangeState.ACTIVE:
        return True
    named = {(entry.template, entry.sha256) for entry in publisher.present.material.plan.entries}
    return change.state is ChangeState.DEPRECATED and (change.ref, change.sha256) in named


def time_of(at: datetime) -> Timestamp:
    return Timestamp(seconds=int(at.timestamp()))
