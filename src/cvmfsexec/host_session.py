"""How the host mounts the repositories of one session (mode 2).

Where a session may have namespaces but no FUSE mounts in them, ``fusermount`` mounts on
the host, in a private directory of the session, and the session shows these mounts
below its own ``/cvmfs``.
"""

import os
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Self

from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.mount_places import session_base
from cvmfsexec.file_server import MountCall
from cvmfsexec.namespaces import requests
from cvmfsexec.namespaces.arrivals import Arrivals
from cvmfsexec.namespaces.fuse_mount import SOURCE
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.host_place import HostPlace, HostPoints, clear_away_dead
from cvmfsexec.namespaces.host_services import HostSide
from cvmfsexec.namespaces.plan import HostMount, Interface, Service


class HostWay(NamedTuple):
    """The host's part in one session.

    Attributes:
        helper: Mounts and unmounts.
        place: Where it mounts.
        channel: Where the host's side hears requests, and where they are made.
    """

    helper: Fusermount
    place: HostPlace
    channel: tuple[int, int]

    @classmethod
    def prepare(cls, root: ConfigurationRoot, environment: Mapping[str, str]) -> Self:
        """Make a private directory; clear away those of sessions that were killed.

        Raises:
            CvmfsError: There is no helper, or no place.
        """
        helper = Fusermount(environment.get("PATH", ""))
        helper.require()
        base = session_base(root, environment.get("XDG_RUNTIME_DIR", ""))
        clear_away_dead(base, helper)
        return cls(helper, HostPlace(base), requests.make_channel())

    def end(self) -> None:
        """Leave nothing behind."""
        for descriptor in self.channel:
            os.close(descriptor)
        self.place.clear_away(self.helper)

    @property
    def mount_call(self) -> MountCall:
        """Mounts as file servers ask for it.

        The source is that of other sessions, as the mount is seen in one; and those
        who look for ``/dev/fuse`` on the host look for mounts that stay.
        """
        return partial(self.helper.mount, source=SOURCE)

    def points(self) -> HostPoints:
        """Return where the host mounts on request."""
        return HostPoints(self.helper)

    def arrivals(self) -> Arrivals:
        """Return where the session shows what the host mounts on request."""
        is_shared = self.place.is_shared
        return Arrivals(self.place.path, self.channel[1], is_shared=is_shared)

    def side(
        self, services: tuple[Service, ...], interface: Interface | None
    ) -> HostSide:
        """Return what the supervisor does on the host."""
        clear_away = partial(self.place.clear_away, self.helper)
        return HostSide(services, clear_away, self.channel, interface)

    def mounts(self, mountpoints: Mapping[str, str]) -> tuple[HostMount, ...]:
        """Return what the session shows, given its own mount points by name."""
        return tuple(
            HostMount(name, self.place.mountpoint(name), mountpoint)
            for name, mountpoint in mountpoints.items()
        )
