import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces.plan import Service, ServiceChannel, SessionPlan


def nothing(_channel: ServiceChannel) -> int:
    return 0


def plan_of(*services: Service, command: tuple[str, ...] = ("true",)) -> SessionPlan:
    return SessionPlan(
        command=command,
        environment={},
        cwd="/tmp",
        services=services,
        mountpoints=tuple(f"/cvmfs/{one.name}" for one in services),
    )


def test_services_in_order_are_accepted() -> None:
    config = Service("config.org", nothing)
    plan_of(config, Service("a.org", nothing, after=("config.org",))).check()


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(command=()),
        plan_of(Service("a", nothing), Service("a", nothing)),
        plan_of(Service("a", nothing, after=("b",)), Service("b", nothing)),
        plan_of(Service("a", nothing, after=("a",))),
        plan_of(Service("..", nothing)),
    ],
    ids=["no command", "same name", "waits for a later one", "for itself", "bad name"],
)
def test_impossible_plan_is_refused(plan: SessionPlan) -> None:
    with pytest.raises(NamespaceError):
        plan.check()


def test_plan_tells_what_will_happen_in_order() -> None:
    config = Service("config.org", nothing)
    other = Service("a.org", nothing, after=("config.org",))
    told = list(plan_of(config, other, command=("echo", "two words")).describe())
    order = [
        "create user, mount and pid namespaces; be uid 0 in them",
        "mount an empty tmpfs over /, as the new root",
        "mount a new proc on /proc",
        "start a file server for config.org",
        "start a file server for a.org, after config.org",
        "make directory /cvmfs/config.org",
        "make the new root the root, and detach the old one",
        "in /tmp, run: echo 'two words'",
    ]
    assert [line for line in told if line in order] == order
