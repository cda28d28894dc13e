import pytest

from cvmfsexec.network.environment_proxies import EnvironmentProxies


def route(url: str, **environment: str) -> str:
    return EnvironmentProxies.from_environment(environment).route_to(url)


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://x.org/a", {}, "DIRECT"),
        ("https://x.org/a", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://x.org/a", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://x.org/a", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://x.org/a", {"http_proxy": "http://p:1"}, "DIRECT"),
        ("http://x.org/a", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("http://x.org/a", {"HTTP_PROXY": "http://p:1"}, "DIRECT"),
        ("http://x.org/a", {"all_proxy": "http://p:1"}, "http://p:1"),
        ("http://x.org/a", {"all_proxy": "p:1", "no_proxy": "y, x.org"}, "DIRECT"),
        ("http://a.x.org/a", {"all_proxy": "p:1", "no_proxy": ".X.org"}, "DIRECT"),
        ("http://ax.org/a", {"all_proxy": "p:1", "no_proxy": "x.org"}, "http://p:1"),
        ("http://x.org:8/a", {"all_proxy": "p:1", "no_proxy": "x.org:8"}, "DIRECT"),
        ("http://x.org/a", {"all_proxy": "p:1", "NO_PROXY": "*"}, "DIRECT"),
    ],
)
def test_variables_mean_what_they_mean_to_curl(
    url: str, environment: dict[str, str], expected: str
) -> None:
    assert route(url, **environment) == expected
