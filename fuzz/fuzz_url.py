"""Any path becomes a URL of harmless characters, from which it can be read again."""

from contextlib import suppress

from cvmfsexec.format.url_path import escape_path
from cvmfsexec.network.local_transport import LocalTransport
from cvmfsexec.network.transport import Request, TransportFault

HARMLESS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/:.@+-_~[],%"
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    escaped = escape_path(data.decode("utf-8", "surrogateescape"))
    assert HARMLESS.issuperset(escaped)
    # No such directory: what is asked for is never there, whatever it is called.
    for path in (escaped, data.decode("utf-8", "surrogateescape")):
        request = Request(f"file:///nonexistent/{path}", "DIRECT", 0)
        with suppress(TransportFault):
            assert LocalTransport().get(request, _refuse).status == 404


def _refuse(_data: bytes) -> None:
    raise AssertionError("something was found")
