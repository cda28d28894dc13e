"""Any values of network parameters are settings that make sense, or refused.

Each line is ``NAME=value``; names are put in front of lines that have none.
"""

from cvmfsexec.errors import ConfigurationError, NoRouteError
from cvmfsexec.format.parameters import Parameters
from cvmfsexec.network.settings import NetworkSettings

NAMES = (
    "CVMFS_SERVER_URL",
    "CVMFS_HTTP_PROXY",
    "CVMFS_FALLBACK_PROXY",
    "CVMFS_MAX_SERVERS",
    "CVMFS_TIMEOUT",
    "CVMFS_TIMEOUT_DIRECT",
    "CVMFS_LOW_SPEED_LIMIT",
    "CVMFS_MAX_RETRIES",
    "CVMFS_BACKOFF_INIT",
    "CVMFS_BACKOFF_MAX",
    "CVMFS_PROXY_RESET_AFTER",
    "CVMFS_HOST_RESET_AFTER",
    "CVMFS_FOLLOW_REDIRECTS",
    "CVMFS_FAILOVER_INDEFINITELY",
    "CVMFS_PAC_URLS",
    "CVMFS_IPFAMILY_PREFER",
    "CVMFS_DNS_MIN_TTL",
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    values = {"CVMFS_SERVER_URL": "http://s/@fqrn@", "CVMFS_HTTP_PROXY": "DIRECT"}
    for number, line in enumerate(lines):
        name, equals, value = line.partition("=")
        if equals and name in NAMES:
            values[name] = value
        else:
            values[NAMES[number % len(NAMES)]] = line
    parameters = Parameters.from_values("software.example.org", values)
    try:
        settings = NetworkSettings.from_parameters(parameters)
    except (ConfigurationError, NoRouteError):
        return
    assert settings.servers
    assert settings.all_proxy_groups
    assert settings.timeout_s >= 0
    assert settings.timeout_direct_s >= 0
    assert settings.failover.max_retries >= 0
    assert 0 <= settings.failover.backoff_init_s < 1 << 40
