import contextlib
import errno
import itertools
import os
import stat
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.cache.breadcrumb import Breadcrumb, read_breadcrumb, write_breadcrumb
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.errors import CacheError, ConfigurationError, FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.file_systems import Lack, file_system, is_pending
from tests.support.system_calls import fail_calls, run_and_die_at

FQRN = "software.example.org"
DIGITS = "42cfdfaefcdba55c13e4a15c267340a1d34b3e7f"
SEVENTH = Breadcrumb(ContentHash.parse(DIGITS + "-rmd160"), 1795371178, 7)
EIGHTH = SEVENTH._replace(revision=8, published_at_s=1795371200)
NINTH = EIGHTH._replace(revision=9)

breadcrumbs = st.builds(
    Breadcrumb,
    st.builds(
        ContentHash,
        st.binary(min_size=20, max_size=20).filter(any),
        st.sampled_from(HashAlgorithm),
    ),
    st.integers(0, 10**19 - 1),
    st.integers(0, 10**19 - 1),
)


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


@given(breadcrumbs)
def test_written_parses_back_to_itself(breadcrumb: Breadcrumb) -> None:
    assert Breadcrumb.parse(breadcrumb.serialize()) == breadcrumb


@given(st.binary(max_size=120))
def test_any_bytes_parse_or_are_a_format_error(text: bytes) -> None:
    with contextlib.suppress(FormatError):
        Breadcrumb.parse(text)


def test_the_original_clients_form() -> None:
    text = f"{DIGITS}-rmd160T1795371178R7".encode()
    assert Breadcrumb.parse(text) == SEVENTH
    assert SEVENTH.serialize() == text


def test_the_old_form_has_revision_0() -> None:
    assert Breadcrumb.parse(f"{DIGITS}T1795371178".encode()).revision == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        DIGITS,
        DIGITS + "T",
        DIGITS + "TR7",
        DIGITS + "T1R",
        DIGITS + "T-1R7",
        DIGITS + "T1R7 ",
        DIGITS + "T1R" + 20 * "9",
        DIGITS.upper() + "T1R7",
        DIGITS + "-md5T1R7",
        40 * "0" + "T1R7",
        "\u0665" * 40 + "T1R7",
    ],
)
def test_a_malformed_breadcrumb_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Breadcrumb.parse(text.encode())


def test_nothing_is_remembered_at_first(tmp_path: Path) -> None:
    assert read_breadcrumb(str(tmp_path), FQRN) is None
    assert read_breadcrumb(str(tmp_path / "missing"), FQRN) is None


def test_what_was_written_is_remembered(tmp_path: Path) -> None:
    write_breadcrumb(str(tmp_path), FQRN, SEVENTH)
    assert read_breadcrumb(str(tmp_path), FQRN) == SEVENTH
    assert read_breadcrumb(str(tmp_path), "other.example.org") is None
    path = tmp_path / f"cvmfschecksum.{FQRN}"
    assert path.read_bytes() == SEVENTH.serialize()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_newer_revision_replaces_an_older(tmp_path: Path) -> None:
    for breadcrumb in (SEVENTH, EIGHTH, EIGHTH):
        write_breadcrumb(str(tmp_path), FQRN, breadcrumb)
    assert read_breadcrumb(str(tmp_path), FQRN) == EIGHTH


def test_an_older_revision_cannot_replace_a_newer(tmp_path: Path) -> None:
    write_breadcrumb(str(tmp_path), FQRN, EIGHTH)
    write_breadcrumb(str(tmp_path), FQRN, SEVENTH)
    assert read_breadcrumb(str(tmp_path), FQRN) == EIGHTH


@pytest.mark.parametrize("damage", [b"", b"\0" * 60, b"x" * 100_000])
def test_a_damaged_file_is_reported_and_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    (tmp_path / f"cvmfschecksum.{FQRN}").write_bytes(damage)
    assert read_breadcrumb(str(tmp_path), FQRN) is None
    assert "is damaged" in caplog.text
    write_breadcrumb(str(tmp_path), FQRN, SEVENTH)
    assert read_breadcrumb(str(tmp_path), FQRN) == SEVENTH


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / f"cvmfschecksum.{FQRN}").mkdir()
    with pytest.raises(CacheError, match="cannot read"):
        read_breadcrumb(str(tmp_path), FQRN)


@pytest.mark.parametrize("fqrn", ["../etc/passwd", "", ".hidden", "a/b", "a\0b"])
def test_a_name_cannot_leave_the_directory(tmp_path: Path, fqrn: str) -> None:
    with pytest.raises(ConfigurationError):
        read_breadcrumb(str(tmp_path), fqrn)
    with pytest.raises(ConfigurationError):
        write_breadcrumb(str(tmp_path), fqrn, SEVENTH)


@pytest.mark.parametrize("stale_calls", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("call", "fails"),
    list(itertools.product(("open", "read"), (errno.ESTALE, errno.ENOENT))),
)
def test_what_another_node_replaces_is_read_when_it_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stale_calls: int,
    call: str,
    fails: int,
) -> None:
    """The mark against roll-back counts, or nothing does: it is never passed over."""
    write_breadcrumb(str(tmp_path), FQRN, EIGHTH)
    calls = itertools.count(1)
    fail_calls(monkeypatch, call, fails, lambda *_, **__: next(calls) <= stale_calls)
    monkeypatch.setattr("cvmfsexec.cache.open_files._PAUSE_S", 0.0)
    if stale_calls < 10:
        assert read_breadcrumb(str(tmp_path), FQRN) == EIGHTH
        assert next(calls) == stale_calls + 2
    else:
        with pytest.raises(CacheError, match="cannot read"):
            read_breadcrumb(str(tmp_path), FQRN)


@pytest.mark.parametrize("lack", Lack)
@pytest.mark.parametrize("call", ["open", "write", "rename"])
def test_a_full_disk_is_reported_and_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    lack: Lack,
) -> None:
    with file_system(lack):
        write_breadcrumb(str(tmp_path), FQRN, SEVENTH)
        is_new = is_pending if call == "open" else lambda *_, **__: True
        fail_calls(monkeypatch, call, errno.ENOSPC, is_new)
        write_breadcrumb(str(tmp_path), FQRN, EIGHTH)
        monkeypatch.undo()
    assert "cannot remember revision 8" in caplog.text
    assert read_breadcrumb(str(tmp_path), FQRN) == SEVENTH
    assert files_in(tmp_path) == [f"cvmfschecksum.{FQRN}"]


@pytest.mark.parametrize("lack", Lack)
def test_death_at_any_system_call_leaves_the_old_or_the_new(
    tmp_path: Path, lack: Lack
) -> None:
    def write(directory: Path, breadcrumb: Breadcrumb) -> None:
        with file_system(lack):
            write_breadcrumb(str(directory), FQRN, breadcrumb)

    seen, left = set(), 0
    for call_number in itertools.count(1):
        directory = tmp_path / str(call_number)
        directory.mkdir()
        write(directory, SEVENTH)
        if not run_and_die_at(call_number, partial(write, directory, EIGHTH)):
            break
        found = read_breadcrumb(str(directory), FQRN)
        assert found in (SEVENTH, EIGHTH)
        seen.add(found)
        left += len(files_in(directory)) - 1
        write(directory, NINTH)
        descriptor = os.open(directory, os.O_RDONLY)
        PendingFiles(descriptor).remove_dead()
        os.close(descriptor)
        assert files_in(directory) == [f"cvmfschecksum.{FQRN}"]
    assert seen == {SEVENTH, EIGHTH}
    assert left <= 1 or lack is not Lack.NOTHING


def test_death_at_any_system_call_of_the_first_leaves_nothing_else(
    tmp_path: Path,
) -> None:
    for call_number in itertools.count(1):
        directory = tmp_path / str(call_number)
        directory.mkdir()
        write = partial(write_breadcrumb, str(directory), FQRN, SEVENTH)
        if not run_and_die_at(call_number, write):
            break
        left = files_in(directory)
        assert left in ([], [f"cvmfschecksum.{FQRN}"])
        assert read_breadcrumb(str(directory), FQRN) == (SEVENTH if left else None)


def test_what_the_dead_left_is_removed_by_the_next_replacement(tmp_path: Path) -> None:
    (tmp_path / "txn").mkdir()
    (tmp_path / "txn" / "cvmfsexec.0123.0").touch()
    write_breadcrumb(str(tmp_path), FQRN, SEVENTH)
    write_breadcrumb(str(tmp_path), FQRN, EIGHTH)
    assert files_in(tmp_path) == [f"cvmfschecksum.{FQRN}"]
