"""Any datagram is a request for one repository by its name, or refused."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.namespaces.requests import encode_request, parse_request


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        request = parse_request(data)
    except FormatError:
        return
    check_fqrn(request.name)
    assert encode_request(request) == data
