"""Breadcrumb files: read, or refused; what was read can be written again."""

from cvmfsexec.cache.breadcrumb import Breadcrumb
from cvmfsexec.errors import FormatError


def target(data: bytes) -> None:
    try:
        breadcrumb = Breadcrumb.parse(data)
    except FormatError:
        return
    assert Breadcrumb.parse(breadcrumb.serialize()) == breadcrumb
