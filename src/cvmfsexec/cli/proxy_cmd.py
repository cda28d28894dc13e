"""Tell which proxies were found, from where, which is active, and what failed."""

import argparse
import json
import re

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
from cvmfsexec.format.parameters import Parameter, quoted
from cvmfsexec.format.proxy_groups import DIRECT, ProxyGroup, without_credentials
from cvmfsexec.log import harmless
from cvmfsexec.network.round_trip import RoundTrip, measure_all

_PASSWORDS = re.compile(r"[^;|/\s][^;|/]*@")
_PARAMETERS = ("CVMFS_HTTP_PROXY", "CVMFS_FALLBACK_PROXY", "CVMFS_PAC_URLS")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try the routes, and tell about the proxies on them."""
    routes = try_routes(arguments.fqrn, arguments.dist)
    with waiting("asking every proxy"):
        round_trips = _measure(routes)
    if arguments.json:
        print(json.dumps(_as_json(routes, round_trips), indent=1))
    else:
        _print(routes, round_trips)
    if routes.error is None:
        return exit_codes.OK
    report_error("cvmfs", routes.error)
    return exit_codes.exit_status_of(routes.error)


def _measure(routes: Routes) -> dict[str, RoundTrip]:
    """Ask each proxy for the manifest; DIRECT is left to those who have to."""
    active = routes.active_host
    servers = routes.settings.servers
    if routes.error is None:
        servers = tuple(s for s in servers if without_credentials(s) == active)
    servers = tuple(s for s in servers if not s.startswith("file:"))
    members = dict.fromkeys(
        member for group in routes.groups for member in group.members
    )
    asked = [member for member in members if member != DIRECT and servers]
    several = [
        routes.settings._replace(
            servers=servers,
            proxy_groups=(ProxyGroup((member,)),),
            fallback_proxy_groups=(),
        )
        for member in asked
    ]
    return dict(zip(asked, measure_all(several), strict=True))


def _as_json(routes: Routes, round_trips: dict[str, RoundTrip]) -> dict[str, object]:
    found = routes.settings.discovery
    return {
        "repository": routes.configuration.fqrn,
        "parameters": {
            name: {"value": _shown_list(value), "source": source}
            for name, (value, source) in _parameters(routes).items()
        },
        "discovery": found
        and {"origin": found.origin, "failures": list(found.failures)},
        "groups": [
            {
                "is_fallback": index >= len(routes.settings.proxy_groups),
                "members": [
                    _member(routes, member, round_trips) for member in group.members
                ],
            }
            for index, group in enumerate(routes.groups)
        ],
        "active": None if routes.error else routes.active_proxy,
        "mounted": mounted_row(routes),
        "failures": failure_rows(routes.failures),
    }


def _member(
    routes: Routes, member: str, round_trips: dict[str, RoundTrip]
) -> dict[str, object]:
    round_trip = round_trips.get(member)
    return {
        "url": without_credentials(member),
        "name": without_credentials(routes.addresses.named_member(member)),
        "is_resolved": not routes.addresses.is_unresolved(member),
        "milliseconds": round_trip and round_trip.milliseconds,
        "failure": round_trip.failure if round_trip else "",
    }


def _print(routes: Routes, round_trips: dict[str, RoundTrip]) -> None:
    for name, (value, source) in _parameters(routes).items():
        print(f"{name}={quoted(_shown_list(value))}    # from {source}")
    found = routes.settings.discovery
    if found is not None:
        print(f"auto: {harmless(found.origin) or 'nothing found'}")
        for failure in found.failures:
            print(f"  in vain: {harmless(failure)}")
    print("Load-balance groups:")
    for index, group in enumerate(routes.groups):
        for number, member in enumerate(group.members):
            mark = f"[{index}]" if not number else " " * len(f"[{index}]")
            print(f"{mark} {_member_text(routes, member, round_trips)}")
    if routes.settings.fallback_proxy_groups:
        print(f"First fallback group: [{len(routes.settings.proxy_groups)}]")
    active = "none works" if routes.error else routes.active_proxy
    print(f"Active proxy: {active}")
    if routes.mounted is not None:
        print(
            f"Active in {routes.mounted.mountpoint}: {harmless(routes.mounted.proxy)}"
        )
    print_failures(routes)


def _member_text(routes: Routes, member: str, round_trips: dict[str, RoundTrip]) -> str:
    facts = []
    named = routes.addresses.named_member(member)
    if named != member:
        facts.append(without_credentials(named).partition("://")[2])
    if routes.addresses.is_unresolved(member):
        facts.append(":unresolved:")
    round_trip = round_trips.get(member)
    if round_trip is not None and round_trip.milliseconds is not None:
        facts.append(f"{round_trip.milliseconds:.1f} ms")
    elif round_trip is not None:
        facts.append(f"down: {harmless(round_trip.failure)}")
    shown = without_credentials(member)
    return f"{shown} ({', '.join(facts)})" if facts else shown


def _parameters(routes: Routes) -> dict[str, Parameter]:
    configuration = routes.configuration
    return {
        name: configuration[name] for name in _PARAMETERS if configuration.get(name)
    }


def _shown_list(value: str) -> str:
    """Return a list of proxies or places without passwords."""
    return _PASSWORDS.sub("", value)
