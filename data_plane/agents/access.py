"""Who may use which template.

Services are judged by tenant: the operator's ``tenant_templates`` says which templates the services of a tenant may
use; while it is empty, every service with a certificate of this installation may use every active template. Agents are
judged by templates: the calling template must hold an ``agents`` grant for the called one, whose ``callers`` must name
it. ``callers`` says nothing about services, whose names are of another kind: a tenant called like a domain gains
nothing by it (ADR 7).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from templates.names import TemplateName, TemplatePattern

EVERY_TENANT: Final = "*"


class ServiceAccess:
    """Deny by default once anything is set; without settings, open to every authenticated service."""

    def __init__(self, tenant_templates: Mapping[str, Sequence[str]]) -> None:
        """Raise `InvalidNameError` for a pattern that is not ``domain/name``, ``domain/*`` or ``*/*``."""
        self._patterns = {
            tenant: tuple(TemplatePattern.parse(each) for each in patterns)
            for tenant, patterns in tenant_templates.items()
        }

    def permits(self, tenant: str, template: TemplateName) -> bool:
        if not self._patterns:
            return True
        return any(pattern.matches(template) for pattern in self._patterns.get(tenant, ()))


class RecordingAccess:
    """Which invocations may be recorded: none, unless the operator says so. A recording holds inputs and answers."""

    def __init__(self, recording_templates: Mapping[str, Sequence[str]]) -> None:
        """``"*"`` stands for every tenant; raise `InvalidNameError` as `ServiceAccess` does."""
        self._patterns = {
            tenant: tuple(TemplatePattern.parse(each) for each in patterns)
            for tenant, patterns in recording_templates.items()
        }

    def permits(self, tenant: str, template: TemplateName) -> bool:
        patterns = (*self._patterns.get(tenant, ()), *self._patterns.get(EVERY_TENANT, ()))
        return any(pattern.matches(template) for pattern in patterns)
