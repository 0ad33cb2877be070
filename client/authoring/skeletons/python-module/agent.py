"""@NAME@: counts words, as a module: this file is started while it is built, so what it needs at hand is there at once.

The configuration does not exist before an invocation: read it inside `process`.
"""

import agentfactory_sdk as af


def process(text: str) -> dict[str, int]:
    words = text.split()[: af.config["words_max"]]
    af.log.info("counted", words=len(words))
    return {"words": len(words)}
