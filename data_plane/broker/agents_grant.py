"""The agents grant: whether one template may invoke another, and with how much.

A child runs inside what its caller has left: the caller's limits for fuel and host calls, less what the caller burned
itself, less what earlier children and everything below them used, narrowed by the child's own template; and the
caller's own deadline. What a child burned is taken from the caller's fuel, so that the limit of the first bounds all.
"""

from dataclasses import dataclass, field, replace

from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from sandbox.limits import SandboxLimits
from sandbox.request import FuelMeter
from templates.grants import Grants
from templates.names import InvalidNameError, TemplateName, TemplateRef
from templates.resolved import ResolvedTemplate

WALL_MS_MIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequest:
    """``version`` is empty for "the active one"."""

    template: TemplateName
    version: str
    input: str


@dataclass(slots=True, kw_only=True)
class Budget:
    """What one running invocation may still give to children. ``deadline`` is monotonic, in seconds.

    ``fuel`` is its limit less what children used; what its own guest burned stands in ``meter``.
    """

    fuel: int
    host_calls: int
    deadline: float
    depth: int
    children: int = 0
    spent_fuel: int = 0
    spent_host_calls: int = 0
    meter: FuelMeter = field(default_factory=FuelMeter)

    @property
    def fuel_left(self) -> int:
        return max(0, self.fuel - self.meter.used)

    def spend(self, *, fuel: int, host_calls: int) -> None:
        """Take what a child, and everything below it, used."""
        self.children += 1
        self.spent_fuel += fuel
        self.meter.charged += fuel
        self.spent_host_calls += host_calls
        self.fuel = max(0, self.fuel - fuel)
        self.host_calls = max(0, self.host_calls - host_calls)


def read_child_request(function: str, members: Members) -> ChildRequest:
    """Check one request of a guest; raise `HostRefusal` (invalid)."""
    if function != "invoke":
        raise HostRefusal(ErrorKind.INVALID, f"expected invoke, got {function[:40]!r}")
    members.require_only("template", "input")
    text = members.text("template")
    try:
        if "@" in text:
            ref = TemplateRef.parse(text)
            return ChildRequest(template=ref.template_name, version=str(ref.version), input=members.text("input"))
        return ChildRequest(template=TemplateName.parse(text), version="", input=members.text("input"))
    except InvalidNameError as error:
        raise HostRefusal(ErrorKind.INVALID, error.message) from None


def require_permitted(caller: TemplateName, grants: Grants, request: ChildRequest) -> None:
    """Judge by the caller's grant, before it is known whether the callee exists: a guest learns nothing else.

    Raises:
        HostRefusal: kind ``denied``.
    """
    if not grants.permits_agent(request.template):
        raise HostRefusal(ErrorKind.DENIED, f"{caller} was not granted {request.template}")


def require_callee(caller: TemplateName, request: ChildRequest, callee: ResolvedTemplate | None) -> ResolvedTemplate:
    """Judge by what is active and by the callee's ``callers``.

    Raises:
        HostRefusal: ``not_found`` for a template or version that is not active, ``denied`` when ``callers`` lacks it.
    """
    if callee is None or (request.version and str(callee.ref.version) != request.version):
        wanted = f"{request.template}@{request.version}" if request.version else str(request.template)
        raise HostRefusal(ErrorKind.NOT_FOUND, f"expected an active template, got {wanted}")
    if not callee.permits_caller(caller):
        raise HostRefusal(ErrorKind.DENIED, f"{callee.ref.template_name} does not name {caller} among its callers")
    return callee


def child_limits(own: SandboxLimits, budget: Budget, *, depth_max: int, now: float) -> SandboxLimits:
    """Return the limits of a child: its own template's, narrowed by what the caller has left.

    Raises:
        HostRefusal: kind ``budget``: nothing is left, or the chain of callers is as long as it may be.
    """
    if budget.depth >= depth_max:
        raise HostRefusal(ErrorKind.BUDGET, f"expected at most {depth_max} agents below the first")
    wall_ms = int((budget.deadline - now) * 1000)
    if wall_ms < WALL_MS_MIN or budget.fuel_left < 1:
        raise HostRefusal(ErrorKind.BUDGET, "expected time and fuel for another agent, got too little of either")
    return replace(
        own,
        fuel=min(own.fuel, budget.fuel_left),
        host_calls=min(own.host_calls, budget.host_calls),
        wall_ms=min(own.wall_ms, wall_ms),
    )
