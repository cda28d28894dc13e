"""Tell in which order servers are asked, how far they are, and what failed."""

import argparse
import json

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.cli.progress import waiting
from cvmfsexec.cli.report import report_error
from cvmfsexec.cli.routes import (
    Routes,
    failure_rows,
    mounted_row,
    print_failures,
    try_routes,
)
from cvmfsexec.format.proxy_groups import without_credentials
from cvmfsexec.log import harmless
from cvmfsexec.network.round_trip import RoundTrip, measure_all


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask each server by the configured proxies, and tell what came of it."""
    routes = try_routes(arguments.fqrn, arguments.dist)
    servers = routes.servers
    with waiting("asking every server"):
        several = [routes.settings._replace(servers=(one,)) for one in servers]
        round_trips = measure_all(several)
    if arguments.json:
        print(json.dumps(_as_json(routes, servers, round_trips), indent=1))
    else:
        _print(routes, servers, round_trips)
    if routes.error is None:
        return exit_codes.OK
    report_error("cvmfs", routes.error)
    return exit_codes.exit_status_of(routes.error)


def _as_json(
    routes: Routes, servers: tuple[str, ...], round_trips: list[RoundTrip]
) -> dict[str, object]:
    return {
        "repository": routes.configuration.fqrn,
        "is_geographically_ordered": routes.is_geographic,
        "servers": [
            {"url": without_credentials(server), **round_trip._asdict()}
            for server, round_trip in zip(servers, round_trips, strict=True)
        ],
        "active": None if routes.error else routes.active_host,
        "mounted": mounted_row(routes),
        "failures": failure_rows(routes.failures),
    }


def _print(
    routes: Routes, servers: tuple[str, ...], round_trips: list[RoundTrip]
) -> None:
    for index, (server, trip) in enumerate(zip(servers, round_trips, strict=True)):
        fact = (
            f"host down: {harmless(trip.failure)}"
            if trip.milliseconds is None
            else f"{trip.milliseconds:.1f} ms"
        )
        order = "geographically ordered, " if routes.is_geographic else ""
        print(f"  [{index}] {without_credentials(server)} ({order}{fact})")
    if routes.error is None:
        print(f"Active host: {routes.active_host}")
    else:
        print("Active host: none answers")
    if routes.mounted is not None:
        print(f"Active in {routes.mounted.mountpoint}: {harmless(routes.mounted.host)}")
    print_failures(routes)
