"""What reads ahead for one client."""

import pytest

from cvmfsexec.client.reading_ahead import with_less_patience
from cvmfsexec.network.settings import NetworkSettings


@pytest.mark.parametrize(("timeout_s", "less_s"), [(0, 0), (1, 1), (5, 3), (30, 15)])
def test_what_is_fetched_ahead_is_given_up_sooner(timeout_s: int, less_s: int) -> None:
    settings = NetworkSettings(
        ("http://s",), timeout_s=timeout_s, timeout_direct_s=timeout_s
    )
    less = with_less_patience(settings)
    assert (less.timeout_s, less.timeout_direct_s) == (less_s, less_s)
