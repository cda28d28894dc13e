"""Names of file systems."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.cache.file_system_type import (
    NETWORK_TYPES,
    file_system_type_of,
    network_type_of,
    type_of_device,
)

TABLE = b"""\
22 1 0:21 / /proc rw,nosuid shared:13 - proc proc rw
30 1 254:0 / / rw,relatime - ext4 /dev/vda rw
41 30 0:45 / /home rw,relatime shared:90 master:1 - nfs4 server:/home rw,vers=4.2
42 30 0:46 / /mnt/with\\040-\\040dash rw - fuse.sshfs user@host: rw,user_id=1
"""


@pytest.mark.parametrize(
    ("device", "name"),
    [((254, 0), "ext4"), ((0, 45), "nfs4"), ((0, 46), "fuse.sshfs"), ((0, 4), "")],
)
def test_the_mount_table_names_it(device: tuple[int, int], name: str) -> None:
    assert type_of_device(TABLE, *device) == name


@given(st.binary())
def test_any_table_is_read(table: bytes) -> None:
    assert isinstance(type_of_device(table, 0, 45), str)
    assert type_of_device(table + b"\n" + TABLE, 254, 0)


def test_local_directories_are_not_on_the_network(tmp_path: Path) -> None:
    proc = os.open("/proc", os.O_RDONLY)
    assert file_system_type_of(proc) == "proc"
    os.close(proc)
    local = os.open(tmp_path, os.O_RDONLY)
    if file_system_type_of(local) not in NETWORK_TYPES:
        assert network_type_of(local) is None
    os.close(local)
