import os
from pathlib import Path

from cvmfsexec.distribution.package_store import PackageStore

URL = "https://x.org/cvmfs-config-x-1-1.noarch.rpm"


def test_what_is_kept_is_there_later(tmp_path: Path) -> None:
    directory = str(tmp_path / "packages")
    PackageStore(directory).keep(URL, b"content")
    assert PackageStore(directory).read(URL, 100) == b"content"
    assert PackageStore(directory).read(URL + "x", 100) is None
    PackageStore(directory).forget(URL)
    assert PackageStore(directory).read(URL, 100) is None


def test_a_part_is_there_later_until_the_whole_is(tmp_path: Path) -> None:
    store = PackageStore(str(tmp_path / "packages"))
    with store.open_part(URL) as part:
        part.write(b"begin")
    with store.open_part(URL) as part:
        assert part.read() == b"begin"
    store.keep(URL, b"content")
    with store.open_part(URL) as part:
        assert part.read() == b""


def test_two_at_once_do_not_write_to_one_file(tmp_path: Path) -> None:
    store = PackageStore(str(tmp_path / "packages"))
    with store.open_part(URL) as first, store.open_part(URL) as second:
        first.write(b"first")
        first.flush()
        assert second.read() == b""


def test_what_others_can_write_is_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "packages"
    PackageStore(str(directory)).keep(URL, b"content")
    directory.chmod(0o777)
    store = PackageStore(str(directory))
    assert store.read(URL, 100) is None
    store.keep(URL, b"other")
    assert [(directory / name).read_bytes() for name in os.listdir(directory)] == [
        b"content"
    ]


def test_without_a_directory_nothing_is_kept() -> None:
    store = PackageStore("")
    store.keep(URL, b"content")
    assert store.read(URL, 100) is None
    with store.open_part(URL) as part:
        part.write(b"x")
