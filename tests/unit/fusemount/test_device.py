"""The descriptor that a file server is given."""

import os
import subprocess
import sys

import pytest

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.fusemount.device import descriptor_in, is_mounted

DEVICE = "/dev/fuse"


@pytest.mark.parametrize(
    "name",
    ["/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/mnt", "", "/dev/fd/٣", "/dev/fuse"],
)
def test_what_is_no_descriptor_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a descriptor"):
        descriptor_in(name)


def test_one_that_is_not_open_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not open"):
        descriptor_in("/dev/fd/999999")


def test_another_device_is_refused() -> None:
    with (
        open(os.devnull, "rb") as nothing,
        pytest.raises(ConfigurationError, match="not /dev/fuse"),
    ):
        descriptor_in(f"/dev/fd/{nothing.fileno()}")


def test_a_device_without_a_mount_is_told_apart() -> None:
    try:
        device = os.open(DEVICE, os.O_RDWR)
    except OSError as error:
        pytest.skip(f"cannot open {DEVICE}: {error}")
    try:
        assert descriptor_in(f"/dev/fd/{device}") == device
        assert not is_mounted(device)
    finally:
        os.close(device)


def test_other_descriptors_are_closed() -> None:
    script = (
        "import os\n"
        "from cvmfsexec.fusemount.device import keep_only\n"
        "keep_only(3)\n"
        "print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])\n"
        "print(os.get_inheritable(3))"
    )
    first, second = os.pipe()
    shell = f'exec 3<&{first} 5<&{second} 9<&{first}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", script],
        pass_fds=(first, second),
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(first)
    os.close(second)
    assert done.stdout == "[0, 1, 2, 3]\nFalse\n"
