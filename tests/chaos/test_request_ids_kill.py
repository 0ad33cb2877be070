"""SIGKILL at many points while people repeat what they asked: each request id has one effect, and one answer.

Comments are the sharpest case: nothing else than the id keeps the same comment from being there twice.
"""

import threading
import uuid
from collections import Counter
from pathlib import Path
from random import Random

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2 as pb

from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import make_installation

ROUNDS = 10
DOCUMENT = {"schema": 1, "name": "base", "version": "1.0.0", "domain": "docs", "role": "r", "description": "d"}
GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

pytestmark = pytest.mark.chaos


class Requests:
    """What was asked so far, and what was answered; the last one may be in the dark."""

    def __init__(self, change: str) -> None:
        self.change = change
        self.asked: list[pb.CommentOnChangeRequest] = []
        self.answers: dict[str, bytes] = {}

    def say(self, person: PersonClient, request: pb.CommentOnChangeRequest) -> None:
        answer = person.changes.CommentOnChange(request, timeout=30).SerializeToString(deterministic=True)
        assert self.answers.setdefault(request.request_id, answer) == answer

    def work_until_killed(self, person: PersonClient) -> None:
        try:
            for _ in range(40):
                number = str(uuid.uuid4())
                self.asked.append(pb.CommentOnChangeRequest(name=self.change, text=number, request_id=number))
                self.say(person, self.asked[-1])
        except grpc.RpcError as error:
            if error.code() not in GONE:
                raise

    def repeat(self, person: PersonClient) -> None:
        """Ask everything again, in the dark or not, and count what there is."""
        for request in self.asked:
            self.say(person, request)
        said, token = Counter[str](), ""
        while True:
            page = person.changes.ListChangeEvents(
                pb.ListChangeEventsRequest(name=self.change, page_size=200, page_token=token)
            )
            said.update(each.text for each in page.events if each.action == "COMMENT")
            token = page.next_page_token
            if not token:
                break
        assert said == Counter(request.text for request in self.asked), "each of them once"


@pytest.mark.timeout(300)
def test_each_request_id_has_one_effect_whenever_the_process_dies(tmp_path: Path) -> None:
    random = Random(19)
    installation = make_installation(tmp_path / "installation")
    with ControlPlaneProcess(installation) as first, first.person("alice") as alice:
        requests = Requests(alice.submit(DOCUMENT).name)
    for _ in range(ROUNDS):
        plane = ControlPlaneProcess(installation).start()
        with plane.person("bob") as bob:
            requests.repeat(bob)
            killer = threading.Timer(random.uniform(0.002, 0.12), plane.kill)
            killer.start()
            requests.work_until_killed(bob)
            killer.join()
    with ControlPlaneProcess(installation) as last, last.person("bob") as bob:
        requests.repeat(bob)
    assert len(requests.asked) > ROUNDS, "some rounds got somewhere"
