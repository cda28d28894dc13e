"""The routes to a repository's servers, tried once, for commands that tell of them."""

import os
import time
from typing import NamedTuple

from cvmfsexec.cli.environment import load_parameters
from cvmfsexec.cli.mounted import Mounted, mounted
from cvmfsexec.cli.output import utc_time
from cvmfsexec.cli.progress import waiting
from cvmfsexec.client.connections import network_settings
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.settings import ClientSettings
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.proxy_groups import ProxyGroup, without_credentials
from cvmfsexec.log import harmless
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.resolution import ProxyAddresses
from cvmfsexec.network.round_trip import (
    DOCUMENT,
    DOCUMENT_BYTES_MAX,
    without_patience,
)
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.statistics import RouteFailure


class Routes(NamedTuple):
    """What the configuration says, what the network says, and what a mount says.

    Attributes:
        configuration: Of the repository.
        settings: With proxies that were found for ``auto``.
        groups: All proxy groups, with addresses for names.
        addresses: Knows the names.
        http: The client that tried; its active route works, unless there is an error.
        is_geographic: Whether the servers themselves said in which order they are near.
        error: Why no route works; None if one does.
        mounted: The live state of a mount, if there is one.
    """

    configuration: Configuration
    settings: NetworkSettings
    groups: tuple[ProxyGroup, ...]
    addresses: ProxyAddresses
    http: HttpClient
    is_geographic: bool
    error: CvmfsError | None
    mounted: Mounted | None

    @property
    def servers(self) -> tuple[str, ...]:
        """Base URLs in the order in which they are asked, with user and password."""
        servers = self.settings.servers
        if not self.is_geographic:
            return servers[: self.settings.servers_max or None]
        by_shown_url = {without_credentials(server): server for server in servers}
        return tuple(by_shown_url[host] for host in self.http.hosts())

    @property
    def active_host(self) -> str:
        """Base URL of the server that works, without password."""
        return self.http.routes.active_host

    @property
    def active_proxy(self) -> str:
        """The proxy that works, without password, or ``DIRECT``."""
        return self.http.routes.active_proxy

    @property
    def failures(self) -> tuple[RouteFailure, ...]:
        """What failed while the routes were tried."""
        return self.http.failures()


def try_routes(fqrn: str, dist: str | None) -> Routes:
    """Ask for the manifest of a repository by the configured routes, each once.

    Raises:
        CvmfsError: It cannot be configured, or there is no proxy or server.
    """
    configuration = load_parameters(fqrn, dist)
    cache = ClientSettings.from_configuration(configuration).cache
    with waiting(f"looking for proxies of {configuration.fqrn}"):
        settings = network_settings(configuration, os.environ, cache)
    addresses = ProxyAddresses(settings.all_proxy_groups, settings.resolution)
    http = HttpClient(without_patience(settings), addresses=addresses)
    error: CvmfsError | None = None
    is_geographic = False
    with waiting(f"asking for {configuration.fqrn}"):
        try:
            http.fetch(DOCUMENT, limit_bytes=DOCUMENT_BYTES_MAX)
            is_geographic = _order(http, settings, cache.workspace, configuration.fqrn)
        except CvmfsError as failure:
            error = failure
        groups = addresses.groups(time.monotonic())
    return Routes(
        configuration,
        settings,
        groups,
        addresses,
        http,
        is_geographic,
        error,
        mounted(configuration.fqrn),
    )


def _order(
    http: HttpClient, settings: NetworkSettings, workspace: str, fqrn: str
) -> bool:
    """Ask which servers are near, if they are to be asked."""
    if not settings.uses_geo_api:
        return False
    from cvmfsexec.network.geo import GeoOrdering

    return GeoOrdering(http, settings, workspace, f"geo.{fqrn}").ask()


def failure_rows(failures: tuple[RouteFailure, ...]) -> list[dict[str, object]]:
    """Return failures in values that JSON has."""
    return [
        {**failure._asdict(), "at": utc_time(int(failure.at_s))} for failure in failures
    ]


def print_failures(routes: Routes) -> None:
    """Tell what failed, here and in a mount."""
    lines = [
        f"{utc_time(int(one.at_s))} {one.host} by {one.proxy}: {one.text}"
        for one in routes.failures
    ]
    for title, rows in (
        ("Failed now:", lines),
        ("Failed in the mount:", routes.mounted.failures if routes.mounted else ()),
    ):
        if rows:
            print(title)
        for row in rows:
            print(f"  {harmless(row)}")


def mounted_row(routes: Routes) -> dict[str, object] | None:
    """Return the live state of a mount in values that JSON has."""
    return None if routes.mounted is None else routes.mounted._asdict()
