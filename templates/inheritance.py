"""What a template becomes together with its parents: unions, deep merges, and rights that can only shrink."""

from collections.abc import Callable, Iterable, Sequence

from templates.document import Template
from templates.names import TemplateName
from templates.resolved import ParentPin, PinnedCode, ResolvedTemplate

DEPTH_MAX = 8  # templates in one line, the child included


def resolve(
    child: Template, ancestors: Sequence[ResolvedTemplate], *, author: str, code: PinnedCode | None
) -> ResolvedTemplate:
    """Return the effective template.

    Args:
        child: the document.
        ancestors: its parent, that one's parent and so on, as `ancestors_of` finds them; empty without a parent.
        author: id of the person who submits it, in the charter's words (``alice``).
        code: the child's own code, pinned; None when it has none (its parent's applies).

    Raises:
        InvalidTemplateError: cycle, missing parent, depth, widened grants or limits, configuration outside its schema:
            every problem, each at its place in the child's text.
    """
    raise NotImplementedError


def ancestors_of(
    child: Template,
    *,
    newest: Callable[[TemplateName], ResolvedTemplate | None],
    pinned: Callable[[ParentPin], ResolvedTemplate | None],
) -> tuple[ResolvedTemplate, ...]:
    """Look up the line of parents: the nearest by name in its newest approved version, the others by their pins.

    Raises:
        InvalidTemplateError: MISSING_PARENT, INHERITANCE_CYCLE or INHERITANCE_DEPTH.
    """
    raise NotImplementedError


def parents_first(templates: Iterable[Template]) -> tuple[Template, ...]:
    """Order documents that are submitted together so that each parent among them comes before its children.

    Raises:
        InvalidTemplateError: INHERITANCE_CYCLE, or the same template twice.
    """
    raise NotImplementedError
