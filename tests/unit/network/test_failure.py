import pytest

from cvmfsexec.network.failure import (
    _BLAME_OF_FAULT,
    Blame,
    failure_of_answer,
    failure_of_data,
    failure_of_fault,
)
from cvmfsexec.network.transport import Answer, FaultKind

SQUID_MARK = (b"HTTP/1.1 503 x\r\n", b"X-Squid-Error: ERR_CONNECT_FAIL 111\r\n")
PROXY_STATUS = (b"HTTP/1.1 502 x\r\n", b"proxy-status: p; error=dns_error\r\n")
HARMLESS_PROXY_STATUS = (b"Proxy-Status: p; next-hop=a\r\n",)


@pytest.mark.parametrize(
    ("status", "headers", "direct", "via_proxy"),
    [
        (200, (), None, None),
        (206, (), None, None),
        (301, (), Blame.HOST, Blame.HOST),
        (302, (), Blame.HOST, Blame.HOST),
        (303, (), Blame.HOST, Blame.HOST),
        (307, (), Blame.HOST, Blame.HOST),
        (308, (), Blame.HOST, Blame.PROXY),
        (304, (), Blame.HOST, Blame.PROXY),
        (400, (), Blame.HOST, Blame.HOST),
        (401, (), Blame.HOST, Blame.PROXY),
        (403, (), Blame.HOST, Blame.PROXY),
        (404, (), Blame.HOST, Blame.HOST),
        (407, (), Blame.HOST, Blame.PROXY),
        (429, (), Blame.HOST, Blame.HOST),
        (500, (), Blame.HOST, Blame.HOST),
        (503, (), Blame.HOST, Blame.HOST),
        (599, (), Blame.HOST, Blame.HOST),
        (600, (), Blame.HOST, Blame.PROXY),
        (503, SQUID_MARK, Blame.HOST, Blame.PROXY),
        (404, SQUID_MARK, Blame.HOST, Blame.PROXY),
        (502, PROXY_STATUS, Blame.HOST, Blame.PROXY),
        (502, HARMLESS_PROXY_STATUS, Blame.HOST, Blame.HOST),
        (429, SQUID_MARK, Blame.HOST, Blame.HOST),
    ],
)
def test_status(
    status: int,
    headers: tuple[bytes, ...],
    direct: Blame | None,
    via_proxy: Blame | None,
) -> None:
    answer = Answer(status, headers)
    blames = [
        failure and failure.blame
        for failure in (
            failure_of_answer(answer, via_proxy=False),
            failure_of_answer(answer, via_proxy=True),
        )
    ]
    assert blames == [direct, via_proxy]


def test_only_too_many_requests_is_worth_a_repetition() -> None:
    failures = [
        failure_of_answer(Answer(status), via_proxy=via_proxy)
        for status in range(100, 700)
        for via_proxy in (False, True)
    ]
    repeated = {failure.text for failure in failures if failure and failure.is_transfer}
    assert repeated == {"HTTP status 429, too many requests"}


@pytest.mark.parametrize(("status", "is_absence"), [(404, True), (400, False)])
def test_only_the_server_can_say_that_something_is_absent(
    status: int, *, is_absence: bool
) -> None:
    failure = failure_of_answer(Answer(status), via_proxy=True)
    assert failure is not None
    assert failure.is_absence is is_absence
    made_by_squid = failure_of_answer(Answer(status, SQUID_MARK), via_proxy=True)
    assert made_by_squid is not None
    assert not made_by_squid.is_absence


@pytest.mark.parametrize(
    ("kind", "direct", "via_proxy", "is_transfer"),
    [
        (FaultKind.PROXY_RESOLVE, Blame.PROXY, Blame.PROXY, False),
        (FaultKind.HOST_RESOLVE, Blame.HOST, Blame.HOST, False),
        (FaultKind.CONNECT, Blame.HOST, Blame.PROXY, True),
        (FaultKind.TOO_SLOW, Blame.HOST, Blame.PROXY, True),
        (FaultKind.CUT_OFF, Blame.HOST, Blame.PROXY, True),
        (FaultKind.HOST_CONNECTION, Blame.HOST, Blame.HOST, True),
        (FaultKind.OTHER, Blame.NOBODY, Blame.NOBODY, False),
    ],
)
def test_fault(
    kind: FaultKind, direct: Blame, via_proxy: Blame, *, is_transfer: bool
) -> None:
    for is_via_proxy, blame in ((False, direct), (True, via_proxy)):
        failure = failure_of_fault(kind, "why", via_proxy=is_via_proxy)
        assert failure.blame is blame
        assert failure.is_transfer is is_transfer
        assert failure.text == f"{kind.value} (why)"


def test_no_proxy_is_blamed_for_what_came_by_https() -> None:
    for status in (401, 403, 407, 418, 503):
        answer = Answer(status, SQUID_MARK)
        failure = failure_of_answer(answer, via_proxy=True, is_tunnelled=True)
        assert failure is not None
        assert failure.blame is Blame.HOST
        assert failure.is_denial is (status in {401, 403})


def test_only_what_took_a_timeout_is_a_stall() -> None:
    stalls = {kind for kind in FaultKind
              if failure_of_fault(kind, "", via_proxy=True).is_stall}  # fmt: skip
    assert stalls == {FaultKind.TOO_SLOW}


def test_every_fault_is_judged() -> None:
    assert set(_BLAME_OF_FAULT) == set(FaultKind)


def test_wrong_bytes_are_nobodys_fault_yet() -> None:
    assert failure_of_data("hash").blame is Blame.DATA


def test_header_of_an_answer_is_found_in_any_case() -> None:
    lines = (b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n", b"a : 2\r\n", b"odd\r\n", b"\r\n")
    answer = Answer(200, lines)
    assert answer.header("A") == "2"
    assert answer.header("odd") == ""
    assert answer.header("HTTP/1.1 200 OK") == ""
