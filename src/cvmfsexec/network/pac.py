"""Proxy configuration files (PAC): download one, and ask it for proxies.

Such a file is found at a well-known place of the local network (WPAD) and is downloaded
without a proxy, as there is none yet. Nobody vouches for it. So it is a hint, taken
within limits: of time, of size, of what is run (``pac_evaluation``) and of what is
believed of its answer (``format.pac_answer``).

Source: docs/reference/client-behaviour.md, "Proxy auto-discovery".
"""

import time
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.format.pac_answer import parse_pac_answer
from cvmfsexec.format.proxy_groups import DIRECT, without_credentials
from cvmfsexec.network.local_address import OUTSIDE, address_towards
from cvmfsexec.network.pac_evaluation import PacFault, evaluate, host_of
from cvmfsexec.network.resolution import ResolutionPolicy, system_lookup
from cvmfsexec.network.transport import Request, TransportFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.transport import Transport

FILE_BYTES_MAX = 1 << 20  # ten thousand lines
DOWNLOAD_TIME_LIMIT_S = 10.0
CONNECT_TIME_LIMIT_S = 3


def ask_file(
    url: str,
    servers: "Sequence[str]",
    transport: "Transport",
    environment: "Mapping[str, str]",
) -> "tuple[ProxyGroup, ...]":
    """Return the proxies that a file names for the first server it knows one for.

    Args:
        url: Where the file is.
        servers: Base URLs, in order.
        transport: Downloads it.
        environment: Of the user.

    Raises:
        PacFault: It cannot be had, does not work, or names nothing of use.
    """
    script = download(url, transport)
    address = my_address(url, servers)
    urls = [f"{server}/.cvmfspublished" for server in servers]
    answers = evaluate(script, urls, address, environment=environment)
    for other in set(answers) - {answers[0]}:
        shown = without_credentials(url)
        log.info("%s has another answer for another server: %s", shown, _short(other))
    for answer in answers:
        try:
            groups = parse_pac_answer(answer)
        except FormatError as error:
            raise PacFault(str(error)) from error
        if groups:
            return groups
    raise PacFault(f"it names no HTTP proxy: {_short(answers[0])}")


def download(url: str, transport: "Transport") -> bytes:
    """Return the content of a file.

    Raises:
        PacFault: It cannot be had, in time, or is too large.
    """
    pieces: list[bytes] = []
    deadline_s = time.monotonic() + DOWNLOAD_TIME_LIMIT_S

    def take(piece: bytes) -> None:
        pieces.append(piece)
        if time.monotonic() > deadline_s:
            raise PacFault(f"it takes more than {DOWNLOAD_TIME_LIMIT_S:.0f} s")

    try:
        answer = transport.get(Request(url, DIRECT, FILE_BYTES_MAX), take)
    except PacFault:
        raise
    except TransportFault as fault:
        raise PacFault(f"{fault.kind.value} ({fault})") from fault
    except CvmfsError as error:
        raise PacFault(str(error)) from error
    if not answer.is_success:
        raise PacFault(f"HTTP status {answer.status}")
    return b"".join(pieces)


def my_address(url: str, servers: "Sequence[str]") -> str:
    """Return what ``myIpAddress`` is to tell: our address as seen on the way out.

    Where there is no way out, it is our address as seen from where the file is.
    """
    address = address_towards([*(host_of(server) for server in servers), *OUTSIDE])
    if address.startswith("127."):
        targets = system_lookup(host_of(url), ResolutionPolicy())
        address = address_towards(targets)
    return address


def _short(answer: str) -> str:
    return log.harmless(answer[:200]) or "nothing"
