"""The transport of an ordinary client: a local directory or HTTP, as the URL says."""

from typing import TYPE_CHECKING

from cvmfsexec.network.curl_transport import CurlTransport
from cvmfsexec.network.local_transport import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Answer, Request


class DefaultTransport:
    """A ``Transport`` for ``http``, ``https`` and ``file`` URLs."""

    def __init__(self, settings: "NetworkSettings") -> None:
        self._local = LocalTransport()
        self._http = CurlTransport(settings)

    def get(self, request: "Request", sink: "Callable[[bytes], object]") -> "Answer":
        """Ask once, as ``Transport.get`` says."""
        if request.url.startswith("file:"):
            return self._local.get(request, sink)
        return self._http.get(request, sink)
