"""What failed attempts mean: who is to blame, what to try again, what to tell people.

One table decides for all of the client. Faults between us and the next hop are the
proxy's when there is one, else the server's; what a server said is the server's,
unless the answer shows that the proxy made it up.

Source: docs/reference/client-behaviour.md, "Requests, timeouts, failover".
"""

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import IntegrityError, TransferError
from cvmfsexec.network.transport import REDIRECTIONS, FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfsexec.network.transport import Answer

_ATTEMPTS_SHOWN_MAX = 4


class Blame(Enum):
    """Who has to be replaced for the next attempt."""

    HOST = "host"
    PROXY = "proxy"
    DATA = "data"
    """The bytes are wrong: perhaps a cache on the way holds them so."""
    NOBODY = "nobody"
    """Trying elsewhere is no help."""


class Failure(NamedTuple):
    """Why an attempt did not bring the wanted bytes.

    Attributes:
        blame: Who did it.
        text: For people.
        is_transfer: Passes by itself now and then: wait, and ask the same again.
        is_absence: The server says that it has no such thing, so that asking it by
            another way is no use.
        is_stall: A whole timeout was spent to find out.
        is_denial: The server does not let this user have it (by https).
    """

    blame: Blame
    text: str
    is_transfer: bool = False
    is_absence: bool = False
    is_stall: bool = False
    is_denial: bool = False


_BLAME_OF_FAULT = {
    # fault: (blame when direct, blame via a proxy, worth a repetition)
    FaultKind.PROXY_RESOLVE: (Blame.PROXY, Blame.PROXY, False),
    FaultKind.HOST_RESOLVE: (Blame.HOST, Blame.HOST, False),
    FaultKind.CONNECT: (Blame.HOST, Blame.PROXY, True),
    FaultKind.TOO_SLOW: (Blame.HOST, Blame.PROXY, True),
    FaultKind.CUT_OFF: (Blame.HOST, Blame.PROXY, True),
    FaultKind.HOST_CONNECTION: (Blame.HOST, Blame.HOST, True),
    FaultKind.OTHER: (Blame.NOBODY, Blame.NOBODY, False),
}


def failure_of_fault(kind: FaultKind, text: str, *, via_proxy: bool) -> Failure:
    """Judge a request that got no answer."""
    blame_direct, blame_via_proxy, is_transfer = _BLAME_OF_FAULT[kind]
    return Failure(
        blame_via_proxy if via_proxy else blame_direct,
        f"{kind.value} ({text})" if text else kind.value,
        is_transfer,
        is_stall=kind is FaultKind.TOO_SLOW,
    )


def failure_of_answer(
    answer: "Answer", *, via_proxy: bool, is_tunnelled: bool = False
) -> Failure | None:
    """Judge an answer by status and headers; None means that it is a success.

    Args:
        answer: What came.
        via_proxy: Whether there is a proxy.
        is_tunnelled: Whether it came by https, so that no proxy can have made it.
    """
    if answer.is_success:
        return None
    status = answer.status
    text = f"HTTP status {status}"
    if status == 429:
        return Failure(Blame.HOST, f"{text}, too many requests", is_transfer=True)
    if status in REDIRECTIONS:
        return Failure(Blame.HOST, f"{text}, a redirect (CVMFS_FOLLOW_REDIRECTS=no)")
    if via_proxy and not is_tunnelled and not _is_from_host(answer):
        return Failure(Blame.PROXY, f"{text} from the proxy")
    return Failure(
        Blame.HOST,
        text,
        is_absence=status == 404,
        is_denial=is_tunnelled and status in {401, 403},
    )


def failure_of_data(text: str) -> Failure:
    """Judge an answer that came whole, but is not what was asked for."""
    return Failure(Blame.DATA, f"corrupt data ({text})")


def error_after(
    path: str, attempts: "Sequence[tuple[str, Failure]]"
) -> TransferError | IntegrityError:
    """Return the error of a request that gives up.

    Args:
        path: What was asked for.
        attempts: Routes in the order in which they were tried, without passwords, and
            what failed; at least one.
    """
    routes = tuple(f"{route}: {failure.text}" for route, failure in attempts)
    tried = _enumerate(routes)
    last = attempts[-1][1]
    if last.blame is Blame.DATA:
        return IntegrityError(
            f"{path} is corrupt wherever it was fetched: {tried}",
            hint="tell the operators of the proxies and servers named",
        )
    if all(failure.is_absence for _, failure in attempts):
        return TransferError(
            f"no server has {path}: {tried}",
            routes=routes,
            hint="check the name of the repository and CVMFS_SERVER_URL",
        )
    return TransferError(
        f"cannot download {path}: {tried}", routes=routes, hint=_hint(attempts)
    )


def _is_from_host(answer: "Answer") -> bool:
    """Whether a proxy passed this error on, rather than making it."""
    if answer.status not in {400, 404} and not 500 <= answer.status < 600:
        return False
    made_by_squid = answer.header("X-Squid-Error")
    return not made_by_squid and "error=" not in answer.header("Proxy-Status")


def _hint(attempts: "Sequence[tuple[str, Failure]]") -> str:
    if attempts[-1][1].is_denial:
        return "the server wants to know who asks: see that your credential is valid"
    if any(failure.blame is Blame.PROXY for _, failure in attempts):
        return "check the network, and that CVMFS_HTTP_PROXY names working proxies"
    return (
        "check the network and CVMFS_SERVER_URL; where only proxies are let out, "
        "set CVMFS_HTTP_PROXY"
    )


def _enumerate(texts: tuple[str, ...]) -> str:
    unique = tuple(dict.fromkeys(texts))
    shown = "; ".join(unique[:_ATTEMPTS_SHOWN_MAX])
    more = len(unique) - _ATTEMPTS_SHOWN_MAX
    return f"{shown}; and {more} more" if more > 0 else shown
