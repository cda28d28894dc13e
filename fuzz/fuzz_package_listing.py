"""Any page gives names of packages, and never more than a name."""

from cvmfsexec.distribution.sources import newest_packages
from cvmfsexec.format.directory_listing import packages_in_listing


def target(data: bytes) -> None:
    """Raise only on a finding."""
    names = packages_in_listing(data)
    assert all("/" not in name and not name.startswith(".") for name in names)
    assert set(newest_packages(list(names), "")) <= set(names)
