"""What a template becomes together with its parents: unions, deep merges, and rights that can only shrink.

==================================================  ==================================================================
``capabilities``, ``tools``                         ordered union, the parent's first
``default_config``                                  deep merge of objects; anything else is the child's
``labels``                                          the parent's, overridden one by one
``role``, ``description``, the schemas,             the child's, else the parent's
``examples``, ``code``, ``on_lease_expiry``
``grants``                                          the child's, absent means none; covered by the parent's
``limits``                                          the child's, absent means the parent's; none above the parent's
``callers``                                         the child's, absent means none
==================================================  ==================================================================
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from templates.canonical import JsonObject
from templates.document import LeaseExpiry, Template
from templates.fit import fit_problems
from templates.limits import DEFAULT_LIMITS, LIMIT_CEILINGS, Limits
from templates.names import TemplateName
from templates.problems import InvalidTemplateError, Problem, located
from templates.reasons import Reason
from templates.resolved import RESOLVED_BYTES_MAX, ParentPin, PinnedCode, ResolvedTemplate

DEPTH_MAX = 8  # templates in one line, the child included
DEFAULT_LEASE_EXPIRY = LeaseExpiry.CONTINUE
T = TypeVar("T")


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
        InvalidTemplateError: cycle, missing parent, depth, widened grants or limits, configuration or examples outside
            their schemas: every problem, each at its place in the child's text.
    """
    if line := [*_line_problems(child, ancestors)]:
        raise InvalidTemplateError(line)
    parent = ancestors[0] if ancestors else None
    merged = _merged(child, parent, author=author, code=code)
    problems = [*_widened(child, parent), *fit_problems(merged.to_json(), complete=True)]
    if (length := len(merged.to_bytes())) > RESOLVED_BYTES_MAX:
        message = f"expected at most {RESOLVED_BYTES_MAX} bytes together with the parents, got {length}"
        problems.append(Problem(code=Reason.DOCUMENT_TOO_LARGE, message=message))
    if problems:
        raise InvalidTemplateError(located(each, child.positions) for each in problems)
    return merged


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
    if child.parent is None:
        return ()
    parent = newest(child.parent)
    if parent is None:
        raise _missing(child, f"{child.parent}")
    line = [parent]
    while (pin := line[-1].parent) is not None and len(line) < DEPTH_MAX:
        above = pinned(pin)
        if above is None:
            raise _missing(child, _pin_text(pin))
        line.append(above)
    if problems := [*_line_problems(child, line)]:
        raise InvalidTemplateError(problems)
    return tuple(line)


def parents_first(templates: Iterable[Template]) -> tuple[Template, ...]:
    """Order documents that are submitted together so that each parent among them comes before its children.

    Raises:
        InvalidTemplateError: INHERITANCE_CYCLE, or the same template twice.
    """
    versions: dict[TemplateName, list[Template]] = {}
    for template in templates:
        same = versions.setdefault(template.ref.template_name, [])
        if any(each.ref == template.ref for each in same):
            message = f"expected each template once, got {template.ref} again"
            raise InvalidTemplateError([template.problem(Reason.DUPLICATE_TEMPLATE, message, "/name")])
        same.append(template)
    parents = {
        name: {each.parent for each in same if each.parent in versions} for name, same in sorted(versions.items())
    }
    try:
        names = tuple(TopologicalSorter(parents).static_order())
    except CycleError as error:
        cycle: list[TemplateName] = error.args[1]
        template = next(each for each in versions[cycle[1]] if each.parent == cycle[0])
        message = f"expected a line of parents that ends, got {' ← '.join(str(name) for name in cycle)}"
        raise InvalidTemplateError([template.problem(Reason.INHERITANCE_CYCLE, message, "/parent")]) from error
    return tuple(template for name in names for template in sorted(versions[name], key=lambda each: each.ref))


def merge_config(base: JsonObject, override: JsonObject) -> JsonObject:
    """Merge configurations deeply: objects member by member, everything else (lists, null) is ``override``'s."""
    merged = dict(base)
    for name, value in override.items():
        below = merged.get(name)
        merged[name] = merge_config(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _line_problems(child: Template, line: Sequence[ResolvedTemplate]) -> Iterator[Problem]:
    """Yield what is wrong with a line of parents, from the child upwards; each must be what the one below names."""
    nearest = line[0].ref.template_name if line else None
    if nearest != child.parent:
        message = f"expected the parent {child.parent}, got {nearest}"
        yield child.problem(Reason.MISSING_PARENT, message, "/parent")
    for below, above in zip(line, [*line[1:], None], strict=False):
        pin, found = below.parent, None if above is None else above.pin
        if pin != found and len(line) < DEPTH_MAX:  # a line of that length is cut, and refused as too long
            message = f"expected the ancestor {_pin_text(pin)}, got {_pin_text(found)}"
            yield child.problem(Reason.MISSING_PARENT, message, "/parent")
    names = [child.ref.template_name, *(each.ref.template_name for each in line)]
    if len(set(names)) < len(names):
        message = f"expected a line of parents without repetition, got {' ← '.join(str(name) for name in names)}"
        yield child.problem(Reason.INHERITANCE_CYCLE, message, "/parent")
    if len(names) > DEPTH_MAX:
        message = f"expected at most {DEPTH_MAX} templates in a line, got {len(names)} or more"
        yield child.problem(Reason.INHERITANCE_DEPTH, message, "/parent")


def _missing(child: Template, wanted: str) -> InvalidTemplateError:
    message = f"expected the approved parent {wanted}, got none"
    return InvalidTemplateError([child.problem(Reason.MISSING_PARENT, message, "/parent")])


def _pin_text(pin: ParentPin | None) -> str:
    return "none" if pin is None else f"{pin.template} with digest {pin.sha256}"


def _widened(child: Template, parent: ResolvedTemplate | None) -> Iterator[Problem]:
    if parent is not None:
        for place in parent.grants.excess(child.grants):
            message = f"{place.message}: wider than the parent {parent.ref}"
            yield Problem(code=Reason.WIDENED_GRANT, message=message, pointer=f"/grants{place.pointer}")
    bound, whose = (LIMIT_CEILINGS, "any template") if parent is None else (parent.limits, f"the parent {parent.ref}")
    for name in Limits.from_json(child.limits, base=bound).beyond(bound):
        message = f"expected at most {getattr(bound, name)}, as for {whose}, got {child.limits[name]}"
        yield Problem(code=Reason.WIDENED_LIMIT, message=message, pointer=f"/limits/{name}")


def _merged(
    child: Template, parent: ResolvedTemplate | None, *, author: str, code: PinnedCode | None
) -> ResolvedTemplate:
    own = ResolvedTemplate(
        ref=child.ref,
        author=author,
        role=child.role or "",
        description=child.description or "",
        labels=dict(child.labels),
        parent=None,
        capabilities=child.capabilities,
        tools=child.tools,
        default_config=child.default_config,
        config_schema=child.config_schema,
        input_schema=child.input_schema,
        output_schema=child.output_schema,
        examples=child.examples or (),
        code=code,
        grants=child.grants.ordered(),
        limits=Limits.from_json(child.limits, base=parent.limits if parent else DEFAULT_LIMITS),
        callers=tuple(sorted(set(child.callers))),
        on_lease_expiry=child.on_lease_expiry or DEFAULT_LEASE_EXPIRY,
    )
    if parent is None:
        return own
    return replace(
        own,
        parent=parent.pin,
        role=_or(child.role, parent.role),
        description=_or(child.description, parent.description),
        labels={**parent.labels, **child.labels},
        capabilities=tuple(dict.fromkeys((*parent.capabilities, *child.capabilities))),
        tools=tuple(dict.fromkeys((*parent.tools, *child.tools))),
        default_config=merge_config(parent.default_config, child.default_config),
        config_schema=_or(child.config_schema, parent.config_schema),
        input_schema=_or(child.input_schema, parent.input_schema),
        output_schema=_or(child.output_schema, parent.output_schema),
        examples=_or(child.examples, parent.examples),
        code=parent.code if child.code is None else code,
        on_lease_expiry=_or(child.on_lease_expiry, parent.on_lease_expiry),
    )


def _or(own: T | None, inherited: T) -> T:
    return inherited if own is None else own
