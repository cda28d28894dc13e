"""Modes count also on a mount that somebody else made without saying so."""

import os
from functools import partial

import pytest

from cvmfsexec.fuse.negotiation import CHECKING
from cvmfsexec.fuse.permissions import CheckingServer
from cvmfsexec.namespaces.syscalls import keep_capabilities
from tests.support.fuse_mount import mounted
from tests.support.memory_file_system import MemoryFileSystem

pytestmark = pytest.mark.kernel


def a_tree() -> MemoryFileSystem:
    tree = MemoryFileSystem(
        {
            b"open": b"x",
            b"closed": b"x",
            b"others": b"x",
            b"hidden": {b"file": b"x"},
            b"listed": {b"file": b"x"},
        }
    )
    for path, mode in (
        (b"open", 0o444),
        (b"closed", 0o222),
        (b"others", 0o044),
        (b"hidden", 0o311),
        (b"listed", 0o644),
    ):
        tree.node(path).chmod(mode)
    return tree


def read_without_capabilities(path: str) -> str:
    """Return what happens to a user whom modes can keep out, as they cannot root."""
    keep_capabilities()
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            with open(path, "rb") as stream:
                stream.read()
    except PermissionError:
        return "refused"
    return "read"


EXPECTED = {
    "open": "read",
    "closed": "refused",
    "others": "refused",
    "hidden": "refused",
    "hidden/file": "read",
    "listed": "read",
    "listed/file": "refused",
}


@pytest.mark.parametrize("options", ["", "allow_other"])
def test_what_a_mode_forbids_is_refused_on_mounts_of_others(options: str) -> None:
    with mounted(
        a_tree(), is_read_only=False, mount_options=options, server=CheckingServer
    ) as mount:
        found = {
            path: mount.inside(partial(read_without_capabilities, path))
            for path in EXPECTED
        }
        assert found == EXPECTED


def test_modes_mean_nothing_where_nobody_wants_them_checked() -> None:
    with mounted(a_tree(), is_read_only=False, mount_options="") as mount:
        assert mount.inside(lambda: read_without_capabilities("closed")) == "read"


def test_older_kernels_ask_for_each_open() -> None:
    with mounted(
        a_tree(),
        is_read_only=False,
        mount_options="",
        server=CheckingServer,
        mask=~CHECKING,
    ) as mount:
        for _ in range(2):
            assert mount.run("cat", "open") == "x"
        assert "closed" in mount.run("ls")
        assert mount.requests()["OPEN"] == 2
        assert "READDIRPLUS" not in mount.requests()
