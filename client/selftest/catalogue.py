"""Every attack of the package ``attacks``, found where it lies."""

import importlib
import pkgutil
from collections.abc import Iterable

from client.selftest import attacks
from client.selftest.attack import Attack, AttackClass, Case
from templates.names import nearest
from templates.reasons import AgentFactoryError, Reason


class UnknownAttackError(AgentFactoryError):
    """No attack has this name."""

    reason = Reason.INVALID_NAME


def all_cases() -> tuple[Case, ...]:
    """Return every attack, by class in the order of `AttackClass`, then by name."""
    return tuple(case for each in AttackClass for case in _of(each))


def _of(attack_class: AttackClass) -> list[Case]:
    package = importlib.import_module(f"{attacks.__name__}.{attack_class}")
    found = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        attack = module.ATTACK
        if not isinstance(attack, Attack):
            raise TypeError(f"expected an Attack in {module.__name__}, got {type(attack).__name__}")
        found.append(Case(name=info.name, attack_class=attack_class, text=module.__doc__ or "", attack=attack))
    return found


def chosen(cases: Iterable[Case], *, classes: Iterable[str] = (), names: Iterable[str] = ()) -> tuple[Case, ...]:
    """Return the cases of these classes that have these names; everything where nothing is named.

    Raises:
        UnknownAttackError
    """
    every = tuple(cases)
    wanted_classes, wanted = frozenset(classes), frozenset(names)
    known = {case.name for case in every}
    for name in sorted(wanted - known):
        close = nearest(name, known)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UnknownAttackError(f"expected the name of an attack, got {name!r}{hint}")
    return tuple(
        case
        for case in every
        if (not wanted_classes or str(case.attack_class) in wanted_classes) and (not wanted or case.name in wanted)
    )
