"""Other agents. Needs a grant ``agents`` that names the template; the other template's ``callers`` must allow it too.

    >>> from agentfactory_sdk import agents
    >>> agents.invoke("documentation/documentaliste", "# Title")
    'an outline of # Title'
    >>> agents.invoke("documentation/documentaliste", {"text": "# Title"})
    'an outline of {"text": "# Title"}'

The other agent runs with its template's default configuration.
"""

import json

from . import _host


def invoke(template: str, input: str | dict[str, object]) -> str:  # noqa: A002
    """The output of one invocation of ``template`` with its default configuration, inside this one's remaining budget.

    Args:
        template: ``domain/name`` (the active version) or ``domain/name@version``.
        input: text; a dictionary is sent as its JSON text.

    Raises:
        DeniedError: no grant, or the other template does not allow this caller.
        FailedError: the other agent failed; the message says how.
        BudgetError: what remains of this invocation's limits does not suffice.
    """
    text = input if isinstance(input, str) else json.dumps(input, ensure_ascii=False)
    return _host.current().agents_invoke(template, text)
