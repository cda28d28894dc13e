from itertools import pairwise

import pytest

from cvmfsexec.errors import FormatError
from cvmfsexec.format.package import PACKAGE_BYTES_MAX, parse_package, version_key
from tests.support.packages import build_deb, build_rpm

FILES = {"/etc/cvmfs/a": b"a"}


def test_the_first_bytes_say_which_kind_it_is() -> None:
    assert parse_package(build_rpm("x", FILES)).is_rpm
    assert not parse_package(build_deb("x", FILES)).is_rpm


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", bytes(100)])
def test_what_is_no_package_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="neither an RPM nor a Debian package"):
        parse_package(data)


def test_what_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(FormatError, match="more than"):
        parse_package(bytes(PACKAGE_BYTES_MAX + 1))


def test_versions_are_ordered_as_package_managers_do() -> None:
    ordered = ["1.0~rc1", "1.0", "1.0.1", "1.2-1", "1.2-2", "1.10-1", "2.0", "10.0"]
    keys = [version_key(version) for version in ordered]
    assert all(earlier < later for earlier, later in pairwise(keys))
