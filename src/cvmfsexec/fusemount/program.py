"""The process of a file server in a container, from its start on.

Its environment is empty, its umask anything, and it has descriptors that are not its
own. What it is told is fetched first of all: a container may end at once, and the file
should not outlive it.
"""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fusemount import device as devices
from cvmfsexec.fusemount import handover as handovers
from cvmfsexec.namespaces import descriptors, signals, syscalls

if TYPE_CHECKING:
    from cvmfsexec.fusemount.handover import Handover

_OTHERS_MAY_NOT_WRITE = 0o022


def serve(
    path: str,
    device: int,
    exit_status_of: Callable[[CvmfsError], int],
    *,
    stays: bool,
) -> int:
    """Serve a repository until it is unmounted, and return the exit status.

    Args:
        path: File with the handover.
        device: Of the mount; nothing happens if it has none.
        exit_status_of: Status for an error.
        stays: Serve in this process; otherwise in the background, once it can.

    Raises:
        CvmfsError: There is no handover.
    """
    devices.keep_only(device)
    if not devices.is_mounted(device):
        return 0
    # Ctrl-C and what a batch system sends to a whole job are for the payload.
    signals.report_in_service(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    handover = handovers.take(path)
    descriptors.let_go(())
    os.dup2(descriptors.STANDARD_OUTPUT, descriptors.STANDARD_ERROR)
    report = -1 if stays else _go_to_background()
    syscalls.set_process_name(f"cvmfs:{handover.fqrn}")
    devices.exit_with(device)
    # Instances have no umask at all, and what others can write is no cache.
    os.umask(handover.umask | _OTHERS_MAY_NOT_WRITE)
    return _serve(handover, device, exit_status_of, report)


def _serve(
    handover: "Handover",
    device: int,
    exit_status_of: Callable[[CvmfsError], int],
    report: int,
) -> int:
    from cvmfsexec.fusemount.server import AwaitedChannel, HandedServer, SilentChannel

    log.speak_as(f"cvmfsexec: {handover.fqrn}")
    channel = SilentChannel() if report < 0 else AwaitedChannel(report)
    return HandedServer(handover, device, exit_status_of).run(channel)


def _go_to_background() -> int:
    """Go on in a child; this process ends as soon as that serves, or cannot.

    Returns:
        Descriptor on which to tell the exit status.
    """
    said, report = os.pipe()
    if os.fork():
        os.close(report)
        answer = os.read(said, 1)
        os._exit(answer[0] if answer else 1)
    os.close(said)
    os.setsid()
    return report
