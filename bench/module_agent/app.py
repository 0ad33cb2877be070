"""The smallest agent that is a CPython module of its own: nothing is loaded at run time."""

import wit_world  # type: ignore[import-not-found]  # made by componentize-py while it builds


class WitWorld(wit_world.WitWorld):  # type: ignore[misc]
    def process(self, input: str) -> str:  # noqa: A002 - the word of the interface
        return input.upper()
