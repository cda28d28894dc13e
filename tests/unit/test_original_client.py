"""What the original client is told, and what its failures mean."""

import re
from pathlib import Path

import pytest

from cvmfsexec.cli import exit_codes
from cvmfsexec.configuration.evaluate import Configuration, evaluate
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, ServiceFailedError
from cvmfsexec.original_client import InstalledClient, find_client, reason_of, relocated

FQRN = "one.example.org"


def configured(dist: Path, text: str) -> Configuration:
    etc = dist / "etc/cvmfs"
    (etc / "keys/example.org").mkdir(parents=True)
    (etc / "default.local").write_text(text)
    return evaluate(FQRN, ConfigurationRoot(str(dist)), None, {})


def test_paths_of_packages_become_those_of_the_dist(tmp_path: Path) -> None:
    (tmp_path / "usr/libexec/cvmfs/authz").mkdir(parents=True)
    values = relocated(
        configured(
            tmp_path,
            "CVMFS_KEYS_DIR=/etc/cvmfs/keys/example.org\n"
            "CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/example.org/a.pub:/absent/b.pub\n"
            "CVMFS_RELOAD_SOCKETS=/var/run/cvmfs\n"
            "CVMFS_TMP_DIR=/scratch\n"
            "CVMFS_SERVER_URL='http://a/@fqrn@;http://b/@org@'\n"
            "CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CLAIM_OWNERSHIP=no\nEMPTY=\n",
        )
    )
    (tmp_path / "etc/cvmfs/keys/example.org/a.pub").touch()
    base = f"{tmp_path}/var/lib/cvmfs/original"
    assert values["CVMFS_KEYS_DIR"] == f"{tmp_path}/etc/cvmfs/keys/example.org"
    assert values["CVMFS_TMP_DIR"] == "/scratch"
    assert values["CVMFS_SERVER_URL"] == f"http://a/{FQRN};http://b/one"
    assert values["CVMFS_HTTP_PROXY"] == "DIRECT"
    assert values["CVMFS_CACHE_BASE"] == base
    assert values["CVMFS_RELOAD_SOCKETS"] == f"{base}/run"
    assert values["CVMFS_CLAIM_OWNERSHIP"] == "no"
    assert values["CVMFS_CHECK_PERMISSIONS"] == "yes"
    assert values["CVMFS_AUTHZ_SEARCH_PATH"] == f"{tmp_path}/usr/libexec/cvmfs/authz"
    assert "EMPTY" not in values


def test_each_path_of_a_list_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    (tmp_path / "etc/cvmfs/a.pub").touch()
    text = "CVMFS_PUBLIC_KEY=/etc/cvmfs/a.pub:/elsewhere/b.pub\nPORTS=1:2\nX=/a:b\n"
    values = relocated(configured(tmp_path, text))
    assert values["CVMFS_PUBLIC_KEY"] == f"{tmp_path}/etc/cvmfs/a.pub:/elsewhere/b.pub"
    assert (values["PORTS"], values["X"]) == ("1:2", "/a:b")


def test_its_cache_is_not_ours(tmp_path: Path) -> None:
    values = relocated(configured(tmp_path, f"CVMFS_CACHE_BASE={tmp_path}/scratch\n"))
    assert values["CVMFS_CACHE_BASE"] == f"{tmp_path}/scratch/original"


def test_the_module_decides_whether_it_is_given_a_mount(tmp_path: Path) -> None:
    program = tmp_path / "usr/bin/cvmfs2"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="is no program"):
        find_client(str(tmp_path))
    program.chmod(0o755)
    lib = tmp_path / "usr/lib64"
    lib.mkdir()
    with pytest.raises(ConfigurationError, match=r"no libcvmfs_fuse3\.so"):
        find_client(str(tmp_path))
    (lib / "libcvmfs_fuse.so").touch()
    expected = InstalledClient(str(program), (str(lib),), takes_device=False)
    assert find_client(str(tmp_path)) == expected
    (lib / "libcvmfs_fuse3.so").touch()
    assert find_client(str(tmp_path)).takes_device


@pytest.mark.parametrize("code", range(1, 26))
def test_each_of_its_numbers_has_a_sentence_and_is_our_status(code: int) -> None:
    error = reason_of(code, "last words")
    assert isinstance(error, ServiceFailedError)
    assert re.fullmatch(
        rf"the original client ended with status {code}: [a-z].*; it said: last words",
        str(error),
    )
    assert exit_codes.exit_status_of(error) == code


@pytest.mark.parametrize(
    ("code", "status"), [(0, 21), (126, 7), (127, 7), (26, 1), (99, 1), (-9, 6)]
)
def test_other_ends_have_a_status_too(code: int, status: int) -> None:
    assert exit_codes.exit_status_of(reason_of(code, "")) == status


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"disttype: standard\nmachtype: rhel9-x86_64\nclient: original\n", True),
        (b"disttype: standard\nmachtype: rhel9-x86_64\n", False),
        (b"client: originals\n", False),
        (bytes(5000) + b"\nclient: original\n", False),
        (None, False),
    ],
)
def test_the_dist_says_whether_it_is_wanted(
    tmp_path: Path, card: bytes | None, *, expected: bool
) -> None:
    if card is not None:
        (tmp_path / ".cvmfsexecdist").write_bytes(card)
    assert ConfigurationRoot(str(tmp_path)).wants_original_client == expected
