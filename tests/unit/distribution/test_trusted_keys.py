import hashlib
from pathlib import Path

import pytest

from cvmfsexec.distribution.trusted_keys import (
    TrustedKey,
    check_pins,
    read_pins,
    trusted_keys,
)
from cvmfsexec.errors import ConfigurationError, UntrustedPackageError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind

PEM = b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
KEY = TrustedKey("keys/a.pub", "a" * 64)
OTHER = TrustedKey("keys/b.pub", "b" * 64)
PACKAGE = "c" * 64


def file(path: bytes, content: bytes) -> ArchiveEntry:
    return ArchiveEntry(path, EntryKind.FILE, content)


def test_keys_are_found_by_name_and_by_content() -> None:
    entries = (
        file(b"keys/a.pub", b"anything"),
        file(b"odd", PEM),
        file(b"default.d/50.conf", b"X=1"),
        ArchiveEntry(b"keys/link.pub", EntryKind.LINK, target=b"a.pub"),
    )
    assert trusted_keys(entries) == (
        TrustedKey("keys/a.pub", hashlib.sha256(b"anything").hexdigest()),
        TrustedKey("odd", hashlib.sha256(PEM).hexdigest()),
    )


@pytest.mark.parametrize(
    ("keys", "pins"),
    [
        ((KEY, OTHER), {KEY.sha256, OTHER.sha256}),
        ((KEY, OTHER), {PACKAGE}),
        ((), {PACKAGE}),
    ],
)
def test_what_is_pinned_is_accepted(
    keys: tuple[TrustedKey, ...], pins: set[str]
) -> None:
    check_pins("x", PACKAGE, keys, frozenset(pins))


@pytest.mark.parametrize(
    ("keys", "pins", "named"),
    [
        ((KEY, OTHER), {KEY.sha256}, OTHER.sha256),
        ((KEY,), set(), KEY.sha256),
        ((), {KEY.sha256}, PACKAGE),
    ],
)
def test_what_is_not_pinned_is_refused_by_its_hash(
    keys: tuple[TrustedKey, ...], pins: set[str], named: str
) -> None:
    with pytest.raises(UntrustedPackageError, match=named):
        check_pins("x", PACKAGE, keys, frozenset(pins))


def test_pins_are_what_sha256sum_prints(tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    pins.write_text(f"# mine\n\n{'A' * 64}  keys/a.pub\n{PACKAGE} # the package\n")
    assert read_pins(str(pins)) == {"a" * 64, PACKAGE}


@pytest.mark.parametrize("text", ["a.pub\n", "ab\n", "g" * 64, "\0"])
def test_other_lines_are_refused(tmp_path: Path, text: str) -> None:
    pins = tmp_path / "pins"
    pins.write_text(text)
    with pytest.raises(ConfigurationError, match="line 1"):
        read_pins(str(pins))


def test_missing_pins_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_pins(str(tmp_path / "missing"))
