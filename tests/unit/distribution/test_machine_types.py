import pytest

from cvmfsexec.distribution.machine_types import (
    MACHINE_TYPES,
    machine_type_of,
    machine_type_of_host,
)
from cvmfsexec.errors import DistributionError


@pytest.mark.parametrize("name", MACHINE_TYPES)
def test_every_type_of_the_original_is_known(name: str) -> None:
    assert str(machine_type_of(name)) == name


@pytest.mark.parametrize("name", ["", "rhel6-x86_64", "rhel9", "debian12-x86_64", "-"])
def test_others_are_not(name: str) -> None:
    with pytest.raises(DistributionError, match="not a supported machine type"):
        machine_type_of(name)


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"', "rhel9-x86_64"),
        ('ID=rhel\nVERSION_ID="10.0"', "rhel10-x86_64"),
        ('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"', "suse15-x86_64"),
        ('ID=debian\nVERSION_ID="11"', "rhel8-x86_64"),
        ('ID=debian\nVERSION_ID="12"', "rhel9-x86_64"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"', "rhel9-x86_64"),
        ("ID=arch", "linux-x86_64"),
        ("", "linux-x86_64"),
        ("$(reboot)\nID='rhel'\nVERSION_ID='x'", "linux-x86_64"),
    ],
)
def test_hosts_have_the_type_that_the_original_gives_them(
    os_release: str, expected: str
) -> None:
    assert str(machine_type_of_host(os_release, "x86_64")) == expected
