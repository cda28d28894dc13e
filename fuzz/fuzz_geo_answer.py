"""Any answer of the geo API is an order of all servers, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.network.geo import GeoQuestion

_SERVERS = ("http://a", "http://b", "http://c")
_QUESTIONS = (
    GeoQuestion(_SERVERS),
    GeoQuestion(_SERVERS, ("f0", "f1")),
    GeoQuestion(_SERVERS, ("f0", "f1"), has_separator=True),
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    for question in _QUESTIONS:
        try:
            order = question.order(data)
        except FormatError:
            continue
        assert sorted(order.servers) == list(_SERVERS)
        assert sorted(order.fallback_groups) == list(
            range(len(question.fallback_names))
        )
