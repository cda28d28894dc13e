"""A host with a ``/cvmfs`` of its own, in a mount namespace that nobody else sees.

``native_host.py SCENE... -- word...`` makes a root with a ``/cvmfs``, lets each scene
put something there, and executes the words. It needs root; ``NATIVE_NAME`` is the name
that scenes use.

=========  ========================================================================
absent     no ``/cvmfs`` at all
plain      a directory with a file, an empty one, a file, a link
mounted    a file system at ``/cvmfs/$NATIVE_NAME``, with a file ``who``
hidden     the same, covered by an empty file system on ``/cvmfs``
tree       a directory ``$NATIVE_NAME`` with a file ``who``
empty      an empty directory of this name
link       a link of this name, to a directory with a file ``who``
dead       a FUSE mount of this name that nobody serves any more
hung       a FUSE mount of this name whose server never answers
automount  an automounter; it has mounted ``there.example.org``, and has never heard of
           ``$NATIVE_NAME``. What it is asked for is written to ``$NATIVE_ASKED``
=========  ========================================================================
"""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from cvmfsexec.namespaces import root, syscalls
from cvmfsexec.namespaces.steps import MakeReadOnly

CVMFS = Path("/cvmfs")
PACKET_BYTES_MAX = 512


def main(words: list[str]) -> None:
    border = words.index("--")
    syscalls.unshare(syscalls.CLONE_NEWNS, "have mounts of our own")
    plan = root.plan_root(root.read_entries(), (), has_new_proc=False)
    os.chdir("/")
    root.perform(plan.foundation)
    root.perform(one for one in plan.building if not isinstance(one, MakeReadOnly))
    for scene in words[:border]:
        SCENES[scene](CVMFS / os.environ.get("NATIVE_NAME", "native.example.org"))
    line = words[border + 1 :]
    os.execvp(line[0], line)  # noqa: S606 -- what the test wants to run


def _absent(_place: Path) -> None:
    CVMFS.rmdir()


def _plain(_place: Path) -> None:
    (CVMFS / "directory").mkdir()
    (CVMFS / "directory/who").write_text("host\n")
    (CVMFS / "nothing").mkdir()
    (CVMFS / "file").write_text("a file\n")
    (CVMFS / "alias").symlink_to("directory")


def _mounted(place: Path) -> None:
    place.mkdir()
    syscalls.mount("host", str(place), fstype="tmpfs", data="mode=755")
    (place / "who").write_text("host\n")


def _hidden(place: Path) -> None:
    _mounted(place)
    syscalls.mount("cover", str(CVMFS), fstype="tmpfs", data="mode=755")


def _tree(place: Path) -> None:
    place.mkdir()
    (place / "who").write_text("host\n")


def _empty(place: Path) -> None:
    place.mkdir()


def _link(place: Path) -> None:
    _tree(CVMFS / "elsewhere")
    place.symlink_to("elsewhere")


def _dead(place: Path) -> None:
    os.close(_mount_fuse(place))


def _hung(place: Path) -> None:
    device = _mount_fuse(place)
    _live_beside(lambda end: os.read(end, 1))
    os.close(device)


def _mount_fuse(place: Path) -> int:
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    syscalls.mount("native", str(place), fstype="fuse", data=data)
    return device


def _automount(_place: Path) -> None:
    requests, requests_in = os.pipe()
    ready, ready_in = os.pipe()

    def rule(end: int) -> None:
        os.setpgid(0, 0)
        group = os.getpgid(0)
        data = f"fd={requests_in},pgrp={group},minproto=5,maxproto=5,indirect"
        syscalls.mount("automounter", str(CVMFS), fstype="autofs", data=data)
        os.close(requests_in)
        _mounted(CVMFS / "there.example.org")
        os.write(ready_in, b"1")
        if requests in select.select([requests, end], [], [])[0]:
            packet = os.read(requests, PACKET_BYTES_MAX)
            Path(os.environ["NATIVE_ASKED"]).write_bytes(packet)

    _live_beside(rule)
    os.close(requests)
    os.close(requests_in)
    os.close(ready_in)
    if not os.read(ready, 1):
        raise SystemExit("no automounter here")
    os.close(ready)


def _live_beside(behaviour: Callable[[int], object]) -> None:
    """Run something in a process that ends when a pipe does, with the session."""
    end, lifeline = os.pipe()
    os.set_inheritable(lifeline, True)  # noqa: FBT003 -- as it is
    if os.fork() == 0:
        try:
            os.close(lifeline)
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            behaviour(end)
        finally:
            os._exit(0)
    os.close(end)


SCENES: dict[str, Callable[[Path], None]] = {
    "absent": _absent,
    "plain": _plain,
    "mounted": _mounted,
    "hidden": _hidden,
    "tree": _tree,
    "empty": _empty,
    "link": _link,
    "dead": _dead,
    "hung": _hung,
    "automount": _automount,
}


if __name__ == "__main__":
    main(sys.argv[1:])
