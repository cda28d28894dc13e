"""The process that serves ``/cvmfs`` itself, where repositories come as they are used.

It mounts nothing else and knows no network: what is touched it requests from init, on
the same way that a payload has.
"""

import os
import threading
from collections.abc import Iterator

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.fuse.doors import Doors, DoorServer
from cvmfsexec.namespaces import syscalls
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.messages import Topic
from cvmfsexec.namespaces.mount_table import read_mount_table
from cvmfsexec.namespaces.plan import SessionChannel
from cvmfsexec.namespaces.requests import Request, Verb, ask
from cvmfsexec.namespaces.syscalls import MS_BIND, MS_REC, MS_SHARED

SOURCE = "cvmfsexec"
"""What the mount table shows first; not ``cvmfs2``, which is counted."""


class OnDemand:
    """The body of the process."""

    def __init__(self, directory: str) -> None:
        """Remember where; called before the process is forked."""
        self._directory = directory
        self._native: dict[str, int] = {}
        self._channel = -1
        self._told: set[str] = set()

    def run(self, channel: SessionChannel) -> int:
        """Serve until the end of the session."""
        channel.wait_for_root()
        self._channel = channel.requests
        # What is bound there already would be covered.
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if name in self._mounted_names():
                self._native[name] = os.open(path, os.O_PATH)
        device = mount_fuse(self._directory, source=SOURCE)
        # Namespaces inside of the session are to see what is mounted later.
        syscalls.mount("none", self._directory, flags=MS_SHARED)
        doors = Doors(self._directory, self._may_exist, self._mount, self._mounted)
        server = DoorServer(device, doors)
        log.speak_as("cvmfsexec")
        threading.Thread(target=self._settle, args=(channel,), daemon=True).start()
        # Privileges belong to threads: that one needs them, and gives them up itself.
        syscalls.keep_capabilities()
        server.serve()
        return 0

    def _settle(self, channel: SessionChannel) -> None:
        """Show again what was covered, now that somebody answers."""
        try:
            for name, descriptor in self._native.items():
                target = os.path.join(self._directory, name)
                source = f"/proc/self/fd/{descriptor}"
                try:
                    syscalls.mount(source, target, flags=MS_BIND | MS_REC)
                except CvmfsError as error:
                    log.warning("%s is not shown: %s", target, error)
                os.close(descriptor)
        finally:
            channel.ready()

    def _may_exist(self, name: bytes) -> bool:
        text = os.fsdecode(name)
        if text in self._native:
            return True
        # "lib", ".Trash" and the like are looked for everywhere, and exist nowhere.
        if "." not in text or text.endswith("."):
            return False
        try:
            return bool(check_fqrn(text))
        except CvmfsError:
            return False

    def _mount(self, name: str) -> bool:
        try:
            answer = ask(self._channel, Request(Verb.MOUNT, name))
        except CvmfsError as error:
            log.debug("%s: %s", name, error)
            return False
        if answer.topic is Topic.READY:
            return True
        if name not in self._told:
            self._told.add(name)
            log.warning("%s", answer.text)
        return False

    def _mounted(self) -> Iterator[bytes]:
        return (os.fsencode(name) for name in self._mounted_names())

    def _mounted_names(self) -> set[str]:
        top = self._directory + "/"
        return {
            mount.mountpoint.removeprefix(top)
            for mount in read_mount_table()
            if os.path.dirname(mount.mountpoint) == self._directory
        }
