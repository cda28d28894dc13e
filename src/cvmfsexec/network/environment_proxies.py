"""Proxies of the user's environment, for what is not a repository.

Variables and their meaning are curl's: ``http_proxy`` (in lower case only, since
requests can set ``HTTP_PROXY`` of web applications), ``https_proxy``, ``all_proxy``,
``no_proxy``. Repositories never use them: theirs are configured.
"""

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from cvmfsexec.format.proxy_groups import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping


class EnvironmentProxies(NamedTuple):
    """Which proxy is for which URL; an empty text stands for none.

    Attributes:
        http: For ``http`` URLs.
        https: For ``https`` URLs.
        exempt: Hosts and domains that are asked directly; ``*`` for all.
    """

    http: str = ""
    https: str = ""
    exempt: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: "Mapping[str, str]") -> "EnvironmentProxies":
        """Read the variables."""

        def value(name: str) -> str:
            return environment.get(name) or environment.get(name.upper(), "")

        every = value("all_proxy")
        names = (name.strip().lower() for name in value("no_proxy").split(","))
        return cls(
            environment.get("http_proxy", "") or every,
            value("https_proxy") or every,
            tuple(name.lstrip(".") for name in names if name),
        )

    def route_to(self, url: str) -> str:
        """Return the proxy for a URL, or ``DIRECT``."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._is_exempt(parts.hostname or "", parts.netloc.lower()):
            return DIRECT
        return proxy if "://" in proxy else f"http://{proxy}"

    def _is_exempt(self, host: str, authority: str) -> bool:
        return any(
            name in {"*", host, authority} or host.endswith(f".{name}")
            for name in self.exempt
        )
