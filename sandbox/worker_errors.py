"""What a worker could not do for its supervisor's callers."""

from sandbox.jail import Level


class WorkerError(Exception):
    """The worker could not do what was asked: it did not start, refused code, or is gone."""


class IsolationError(WorkerError):
    """This host does not let a worker reach the level of isolation that is demanded."""

    def __init__(self, demanded: Level, reached: Level, missing: tuple[str, ...]) -> None:
        lacks = f" ({'; '.join(missing)})" if missing else ""
        super().__init__(f"expected a worker at isolation level {demanded}, got {reached}{lacks}")
        self.demanded, self.reached, self.missing = demanded, reached, missing
