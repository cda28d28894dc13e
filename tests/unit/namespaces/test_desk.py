"""The desk: who waits, who is turned away, and what a failing start does."""

import errno
import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from cvmfsexec.namespaces import messages, requests
from cvmfsexec.namespaces.desk import STARTING_COUNT_MAX, WAITING_COUNT_MAX, Desk
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.plan import Interface, Service
from cvmfsexec.namespaces.services import OnSettled, Stage


class Services:
    """Stands for the processes, which a unit test does not start."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self.started: dict[str, OnSettled] = {}
        self.refusal: OSError | None = None

    def stage_of(self, name: str) -> Stage | None:
        return self.stages.get(name)

    def start(self, one: Service, on_settled: OnSettled) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.stages[one.name] = Stage.STARTING
        self.started[one.name] = on_settled

    def settle(self, name: str, topic: Topic, text: str = "") -> None:
        is_ready = topic is Topic.READY
        self.stages[name] = Stage.READY if is_ready else Stage.FAILED
        self.started.pop(name)(Message(topic, name, text=text))

    def ready(self) -> Iterator[Service]:
        for name, stage in self.stages.items():
            if stage is Stage.READY:
                yield Service(name, lambda _: 0)


class Site:
    def __init__(self) -> None:
        self.services = Services()
        self.asked: list[socket.socket] = []
        interface = Interface(lambda name: (Service(name, lambda _: 0),), lambda *_: 0)
        channel = requests.make_channel()
        native = frozenset({"native.org"})
        self.desk = Desk(interface, self.services, native, channel)  # type: ignore[arg-type]
        self.client = socket.socket(fileno=os.dup(self.desk.inner))

    def request(self, text: str) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rights = array("i", [theirs.fileno()]).tobytes()
        kind = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        self.client.sendmsg([text.encode()], [(*kind, rights)])
        theirs.close()
        self.desk._hear()
        ours.settimeout(0)
        self.asked.append(ours)
        return ours


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    descriptors = site.desk.descriptors[:2]
    waiting = [one for some in site.desk._waiting.values() for _, one in some]
    for requester in (*waiting, *(one for _, one in site.desk._line)):
        requester.answer(Message(Topic.LOST))
    for asked in (site.client, *site.asked):
        asked.close()
    for descriptor in descriptors:
        os.close(descriptor)


def answer(asked: socket.socket) -> Message | None:
    try:
        data = asked.recv(4096)
    except BlockingIOError:
        return None
    asked.close()
    return messages.decode(data[2:])


def test_requests_for_the_same_name_wait_for_one_start(site: Site) -> None:
    asked = [site.request("MOUNTREPO a.org") for _ in range(3)]
    assert list(site.services.started) == ["a.org"]
    assert answer(asked[0]) is None
    site.services.settle("a.org", Topic.READY)
    for one in asked:
        assert answer(one) == Message(Topic.READY, "a.org")


def test_what_is_there_is_answered_at_once(site: Site) -> None:
    site.services.stages["a.org"] = Stage.READY
    for name in ("a.org", "native.org"):
        assert answer(site.request(f"MOUNTREPO {name}")) == Message(Topic.READY, name)
    assert site.services.started == {}


def test_a_short_name_is_completed_first(site: Site) -> None:
    asked = [site.request("MOUNTREPO a"), site.request("UMOUNTREPO a")]
    assert list(site.services.started) == ["a"]
    site.services.settle("a", Topic.NAMED, "a.org")
    assert list(site.services.started) == ["a.org"]
    refused = answer(asked[1])
    assert refused is not None
    assert (refused.number, refused.text) == (errno.EINVAL, "a.org not mounted")
    site.services.settle("a.org", Topic.FAILED, "no")
    assert answer(asked[0]) == Message(Topic.FAILED, "a.org", text="no")


def test_few_start_at_once_and_the_others_stand_in_line(site: Site) -> None:
    asked = [site.request(f"MOUNTREPO a{n}.org") for n in range(20)]
    assert len(site.services.started) == STARTING_COUNT_MAX
    asked[STARTING_COUNT_MAX].close()  # gone before it is its turn
    site.services.settle("a0.org", Topic.READY)
    names = set(site.services.started)
    assert f"a{STARTING_COUNT_MAX}.org" not in names
    assert f"a{STARTING_COUNT_MAX + 1}.org" in names


def test_who_comes_when_the_line_is_full_is_turned_away(site: Site) -> None:
    for number in range(WAITING_COUNT_MAX):
        site.request(f"MOUNTREPO a{number}.org")
    refused = answer(site.request("MOUNTREPO b.org"))
    assert refused is not None
    assert refused.number == errno.EAGAIN


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EAGAIN, "no process"), OSError(errno.EMFILE, "no file")]
)
def test_a_start_that_fails_at_once_is_everybodys_answer(
    site: Site, refusal: OSError
) -> None:
    asked = [site.request(f"MOUNTREPO a{n}.org") for n in range(WAITING_COUNT_MAX)]
    site.services.refusal = refusal
    site.services.settle("a0.org", Topic.READY)
    told = [answer(one) for one in asked[STARTING_COUNT_MAX:]]
    assert {one.topic for one in told if one} == {Topic.REFUSED}
    assert None not in told


def test_garbage_is_answered_and_starts_nothing(site: Site) -> None:
    told = answer(site.request("MOUNTREPO ../etc"))
    assert told is not None
    assert told.topic is Topic.FAILED
    assert site.services.started == {}


def test_what_is_lost_before_it_is_ready_is_its_requesters_business(
    site: Site,
) -> None:
    asked = site.request("MOUNTREPO a.org")
    site.services.settle("a.org", Topic.LOST, "killed")
    assert answer(asked) == Message(Topic.LOST, "a.org", text="killed")
