"""@NAME@: counts words. Change `process`; try it with `agentctl template test` and `agentctl template run --watch`."""

from agentfactory_sdk import config, log


def process(text: str) -> dict[str, int]:
    words = text.split()[: config["words_max"]]
    log.info("counted", words=len(words))
    return {"words": len(words)}
