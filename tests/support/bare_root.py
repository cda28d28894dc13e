"""A root with nothing but busybox, or a small system, as an ordinary user finds it.

Run as a program, by root:
``bare_root.py [--read-only|--no-exec|--system=TAR] UID FILE COMMAND...``
makes the root in a mount namespace of its own, copies FILE to ``/job/cvmfsexec`` in it,
and runs the command there as that user, in ``/job``, which is mounted as the option
says. The system is what the archive holds. Nothing is left on the machine. (A chroot
would not do: no user namespace can be made in one.)
"""

import ctypes
import os
import shutil
import subprocess
import sys

_NEWNS, _NEWPID = 0x20000, 0x20000000
_BIND, _REC, _PRIVATE, _REMOUNT = 4096, 16384, 1 << 18, 32
_FLAGS = {"--read-only": 1, "--no-exec": 8}
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode())
    _check(_libc.mount(*words, flags, data.encode()), f"mount {target}")


def _make_root(top: str, file: str, uid: int, system: str) -> None:
    _mount("tmpfs", top, "tmpfs", 0, "mode=755")
    if system:
        subprocess.run(["tar", "-C", top, "-xf", system], check=True)
    for name in ("bin", "proc", "dev", "tmp", "etc", "job", ".old"):
        os.makedirs(f"{top}/{name}", exist_ok=True)
    if not system:
        _install_busybox(top)
    os.chmod(f"{top}/tmp", 0o1777)  # noqa: S103 -- as /tmp is
    shutil.copy(file, f"{top}/job/cvmfsexec")
    for path in (f"{top}/job", f"{top}/job/cvmfsexec"):
        os.chown(path, uid, uid)
    _mount("proc", f"{top}/proc", "proc")
    _mount("/dev", f"{top}/dev", "", _BIND | _REC)


def _install_busybox(top: str) -> None:
    busybox = shutil.which("busybox") or ""
    shutil.copy(busybox, f"{top}/bin/busybox")
    listing = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    )
    for applet in listing.stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{top}/bin/{applet}")


def _enter(top: str) -> None:
    os.chdir(top)
    _check(_libc.pivot_root(b".", b".old"), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _DETACH), "umount")
    os.rmdir("/.old")


def main() -> None:
    """Make the root and run the command in it."""
    words = sys.argv[1:]
    flags, system = _FLAGS.get(words[0], 0), ""
    if words[0].startswith("--"):
        system = words.pop(0).partition("=")[2]
    uid, file, *command = words
    _check(_libc.unshare(_NEWNS | _NEWPID), "unshare")
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    _mount("", "/", "", _PRIVATE | _REC)
    _make_root("/mnt", file, int(uid), system)
    if flags:
        _mount("/mnt/job", "/mnt/job", "", _BIND)
        _mount("", "/mnt/job", "", _BIND | _REMOUNT | flags)
    _enter("/mnt")
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.chdir("/job")
    os.execve(command[0], command, {"PATH": "/bin:/usr/bin"})  # noqa: S606


if __name__ == "__main__":
    main()
