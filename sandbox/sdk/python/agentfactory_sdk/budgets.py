"""What is left of this invocation's limits.

    >>> from agentfactory_sdk import budget
    >>> budget().host_calls
    1000

An agent that can do with less, such as one that improves an answer as long as it may, asks before it goes on.
"""

import json
from dataclasses import dataclass

from . import _host


@dataclass(frozen=True, slots=True)
class Budget:
    """At the moment of the call; ``memory_bytes`` is the limit itself."""

    fuel: int
    wall_ms: int
    memory_bytes: int
    log_bytes: int
    host_calls: int


def budget() -> Budget:
    """Ask the node; this is not a host call and costs none."""
    left = json.loads(_host.current().budget())
    return Budget(**{name: left[name] for name in Budget.__slots__})
