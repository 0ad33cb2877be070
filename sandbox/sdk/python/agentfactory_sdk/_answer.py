"""What an agent may answer; the image and ``testing`` share it."""

import json


def answer_text(answer: object) -> str:
    """What ``process`` may return, as the text that travels.

    Raises:
        TypeError: neither text nor a dictionary or list.
        ValueError: text that is not Unicode (lone surrogates), or JSON with NaN.
    """
    if isinstance(answer, dict | list):
        answer = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    if not isinstance(answer, str):
        raise TypeError(f"expected process() to return text, a dict or a list, got {type(answer).__name__}")
    answer.encode("utf-8")
    return answer
