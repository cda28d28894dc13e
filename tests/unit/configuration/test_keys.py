"""Which keys may sign whitelists."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.evaluate import Configuration, evaluate
from cvmfsexec.configuration.keys import key_paths, master_keys
from cvmfsexec.errors import ConfigurationError, NoMasterKeyError
from tests.support.configuration import make_dist

FQRN = "software.example.org"
KEYS = {
    "keys/b.pub": "KEY b",
    "keys/a.pub": "KEY a",
    "keys/README": "not a key",
    "keys/example.org/c.pub": "KEY c",
    "other/d.pub": "KEY d",
}


def configured(tmp_path: Path, local: str, files: dict[str, str]) -> Configuration:
    root = make_dist(tmp_path, files | {"default.local": local})
    return evaluate(FQRN, root, None, {})


@pytest.mark.parametrize(
    ("local", "keys"),
    [
        ("", (b"KEY a", b"KEY b")),
        ("CVMFS_KEYS_DIR=/etc/cvmfs/keys/example.org\n", (b"KEY c",)),
        ("CVMFS_PUBLIC_KEY=/etc/cvmfs/other/d.pub\n", (b"KEY d",)),
        (
            "CVMFS_PUBLIC_KEY=/etc/cvmfs/other/d.pub:/etc/cvmfs/keys/b.pub\n"
            "CVMFS_KEYS_DIR=/etc/cvmfs/keys\n",
            (b"KEY d", b"KEY b"),
        ),
        ("CVMFS_KEYS_DIR=\nCVMFS_PUBLIC_KEY=\n", (b"KEY a", b"KEY b")),
    ],
    ids=["default", "directory", "key", "key wins", "empty"],
)
def test_keys_are_those_configured(
    tmp_path: Path, local: str, keys: tuple[bytes, ...]
) -> None:
    assert master_keys(configured(tmp_path, local, KEYS)) == keys


def test_key_outside_of_the_dist_is_found_as_written(tmp_path: Path) -> None:
    key = tmp_path / "my.pub"
    key.write_text("KEY")
    configuration = configured(tmp_path, f"CVMFS_PUBLIC_KEY={key}\n", KEYS)
    assert key_paths(configuration) == (str(key),)


@pytest.mark.parametrize("files", [{}, {"keys/README": ""}], ids=["absent", "empty"])
def test_no_key_at_all_is_told_with_the_place(
    tmp_path: Path, files: dict[str, str]
) -> None:
    with pytest.raises(NoMasterKeyError, match=r"no \*\.pub in .*/keys"):
        master_keys(configured(tmp_path, "", files))


@pytest.mark.parametrize(
    "local",
    [
        "CVMFS_PUBLIC_KEY=/etc/cvmfs/absent.pub\n",
        "CVMFS_PUBLIC_KEY=/etc/cvmfs/keys\n",
        "CVMFS_KEYS_DIR=/etc/cvmfs/keys/a.pub\n",
        "CVMFS_KEYS_DIR=keys\n",
        "CVMFS_PUBLIC_KEY=/etc/cvmfs/long.pub\n",
    ],
    ids=["absent", "directory", "file", "relative", "long"],
)
def test_configured_key_that_cannot_be_read_is_an_error(
    tmp_path: Path, local: str
) -> None:
    configuration = configured(tmp_path, local, KEYS | {"long.pub": "x" * 20_000})
    with pytest.raises(ConfigurationError):
        master_keys(configuration)
