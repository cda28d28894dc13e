"""The device that a file server is given: open, and mounted by somebody else.

It is named ``/dev/fd/N`` and must not be opened by that name: this would make another
device, which is not mounted. Neither is what Apptainer hands out as it joins a running
instance; then there is nothing to do.
"""

import os
import re
import select
import stat
import threading
from contextlib import suppress

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.fuse.crew import Ending, receive
from cvmfsexec.namespaces import descriptors

_NAME = re.compile(r"/dev/fd/(\d{1,9})", re.ASCII)
_FUSE_DEVICE = os.makedev(10, 229)
_FIRST_ABOVE_STREAMS = 3
_LIMIT_WITHOUT_PROC = 1024


def descriptor_in(name: str) -> int:
    """Return the descriptor that a mount point of the form ``/dev/fd/N`` names.

    Raises:
        ConfigurationError: It does not, or that is no FUSE device.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigurationError(
            f"{name} is not a descriptor",
            hint="this is started by a container program, as /dev/fd/N",
        )
    number = int(found[1])
    try:
        status = os.fstat(number)
    except OSError as error:
        raise ConfigurationError(f"{name} is not open") from error
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _FUSE_DEVICE:
        raise ConfigurationError(f"{name} is not /dev/fuse")
    return number


def is_mounted(device: int) -> bool:
    """Whether requests can come from a device; none is taken."""
    waiting = select.poll()
    waiting.register(device, select.POLLIN)
    if not any(events & select.POLLERR for _, events in waiting.poll(0)):
        return True
    # Nobody asks anything, so nothing is lost.
    return not isinstance(receive(device), Ending)


def keep_only(device: int) -> None:
    """Close what belongs to others, and let no program of ours inherit the device."""
    os.set_inheritable(device, False)  # noqa: FBT003 -- has no other form
    try:
        inherited = descriptors.find_inherited()
    except OSError:  # there is no /proc
        inherited = tuple(range(_FIRST_ABOVE_STREAMS, _LIMIT_WITHOUT_PROC))
    descriptors.close_all(tuple(one for one in inherited if one != device))


def exit_with(device: int) -> None:
    """Let this process end as soon as the mount does, whatever it is doing.

    Once requests are served, reading them tells the same. Before, a server that cannot
    be reached may take minutes.
    """

    def watch() -> None:
        waiting = select.poll()
        waiting.register(device, 0)  # errors are always told
        with suppress(OSError):
            waiting.poll()
        os._exit(0)

    threading.Thread(target=watch, name="mount", daemon=True).start()
