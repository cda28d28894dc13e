"""Any bytes are a name or path that leaves its directory nowhere, or refused."""

from contextlib import suppress

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.names import (
    ROOT,
    base_name,
    check_entry_name,
    check_fqrn,
    is_below,
    normalize_path,
    parent_path,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with suppress(FormatError):
        check_entry_name(data)
        assert 0 < len(data) < 256
        assert data not in (b".", b"..")
        assert not {0, ord("/")} & set(data)
    with suppress(ConfigurationError):
        fqrn = check_fqrn(data.decode("utf-8", "surrogateescape"))
        assert fqrn.isascii()
        assert "/" not in fqrn
        assert not fqrn.startswith((".", "-"))
    with suppress(ConfigurationError):
        _check_path(normalize_path(data))


def _check_path(path: bytes) -> None:
    assert normalize_path(path) == path
    assert path == ROOT or path.startswith(b"/")
    assert b".." not in path.split(b"/")
    assert is_below(path, parent_path(path))
    if path != ROOT:
        assert parent_path(path) + b"/" + base_name(path) == path
