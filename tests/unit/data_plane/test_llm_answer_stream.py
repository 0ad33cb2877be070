"""Names that an endpoint gives in a stream are scrubbed as its text is."""

import json

from data_plane.broker.llm_answer_stream import AnswerStream, Scrubbing

KEY = "sk-0123456789"


def scrub(text: str) -> str:
    return text.replace(KEY, "[secret]")


async def scrub_long(text: str) -> str:
    return scrub(text)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def test_a_secret_in_the_models_name_or_the_reason_of_the_end_does_not_come_back() -> None:
    stream = AnswerStream(model="asked", scrubbing=Scrubbing(scrub=scrub, scrub_long=scrub_long, reach=len(KEY)))
    choice = {"index": 0, "delta": {"content": f"the key is {KEY}"}, "finish_reason": f"stop {KEY}"}
    text = stream.feed(event({"model": f"model {KEY}", "choices": [choice]}) + b"data: [DONE]\n\n")
    answer = stream.answer(text + stream.end())
    assert (answer.text, answer.model, answer.finish_reason) == (
        "the key is [secret]",
        "model [secret]",
        "stop [secret]",
    )
