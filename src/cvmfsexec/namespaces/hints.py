"""What a user can do about a refused system call, found by looking at this machine.

Facts and advice are kept apart: the error says which call was refused and with which
errno; here somebody looks round for the reason. Nothing is concluded from a version
number. An empty answer means that nothing was found.
"""

import errno
from collections.abc import Callable

from cvmfsexec.errors import NamespaceError

Look = Callable[[str], str]
"""Returns what is in a file, without white space around it; empty if unreadable."""

_LIMITS = {
    errno.EAGAIN: "the limit of processes is reached (ulimit -u, or the job's cgroup)",
    errno.EMFILE: "the limit of open files is reached (ulimit -n)",
}
_ALWAYS = {
    "chdir": "start from a directory that you can reach by its path; in the session "
    "root has no rights over other users' files, and /proc and /cvmfs are others"
}
_CAP_SETFCAP = 31
_MAPS = frozenset({"setgroups", "uid_map", "gid_map"})
_REFUSED = frozenset({errno.EPERM, errno.EACCES})


def read_or_nothing(path: str) -> str:
    """Look at the real machine."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def find_hint(error: NamespaceError, look: Look = read_or_nothing) -> str:
    """Return what the user can do about a refused call; empty if nothing is known."""
    known = _LIMITS.get(error.errno) or _ALWAYS.get(error.syscall)
    if known:
        return known
    if error.syscall == "unshare":
        return _about_unshare(error.errno, look)
    if error.syscall == "open":
        return _about_device(error.errno)
    if is_about_fuse(error):
        return _about_fuse(error.errno, look)
    if error.errno in _REFUSED:
        return _about_rights_inside(error.syscall, look)
    return ""


def is_about_fuse(error: NamespaceError) -> bool:
    """Whether it was a FUSE mount that was refused, or its device."""
    return error.syscall == "open" or "mount fuse" in str(error)


def _about_unshare(number: int, look: Look) -> str:
    if look("/proc/sys/user/max_user_namespaces") == "0":
        return (
            "user namespaces are switched off here; an administrator can allow them: "
            "sysctl -w user.max_user_namespaces=15000"
        )
    if look("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return (
            "user namespaces are for root only here; an administrator can allow them: "
            "sysctl -w kernel.unprivileged_userns_clone=1"
        )
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            "the limit of namespaces is reached (user.max_user_namespaces and others, "
            "or 32 levels of nesting)"
        )
    if number == errno.EINVAL:
        return (
            "the kernel has no user namespaces, or they wait for the boot parameter "
            "user_namespace.enable=1"
        )
    return _about_forbidden_unshare(look)


def _about_forbidden_unshare(look: Look) -> str:
    if _has_seccomp_filter(look):
        return (
            "a seccomp filter, probably a container's, forbids it; start the container "
            "with --security-opt seccomp=unconfined"
        )
    if not _is_root_a_mount(look):
        return (
            "this is a chroot, where the kernel allows no user namespaces; enter the "
            "directory with pivot_root, as container runtimes do, instead"
        )
    if _is_apparmor_strict(look):
        return _APPARMOR
    return (
        "a chroot or a security module forbids it; 'unshare -Ur true' in the same "
        "place fails in the same way"
    )


def _about_rights_inside(syscall: str, look: Look) -> str:
    if _is_apparmor_strict(look):
        return _APPARMOR
    if syscall in _MAPS and _is_weak_root(look):
        return (
            "root must have CAP_SETFCAP for that, and here it was taken away; run as "
            "another user, or start the container with --cap-add SETFCAP"
        )
    if syscall in _MAPS:
        return "a security module forbids to use the user namespace"
    if _has_seccomp_filter(look) or "docker" in look("/proc/self/attr/current"):
        return (
            "the container's security profile forbids mounts; start it with "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        )
    return ""


def _about_device(number: int) -> str:
    if number in _REFUSED:
        return (
            "the device /dev/fuse may not be used; outside containers its mode should "
            "be 0666 (chmod 666 /dev/fuse), inside start with --device /dev/fuse"
        )
    return (
        "the kernel's FUSE module is not loaded (modprobe fuse), or the container was "
        "started without --device /dev/fuse"
    )


def _about_fuse(number: int, look: Look) -> str:
    if number == errno.ENODEV:
        return "the kernel's FUSE module is not loaded: modprobe fuse"
    if number == errno.EINVAL:
        return (
            "what is at /dev/fuse is not the FUSE device; outside containers make it "
            "again (mknod -m 666 /dev/fuse c 10 229), inside start with --device "
            "/dev/fuse"
        )
    if number not in _REFUSED:
        return ""
    return _about_rights_inside("mount", look) or (
        "this kernel does not allow FUSE in user namespaces; Linux 4.18 and RHEL 7.8 do"
    )


_APPARMOR = (
    "AppArmor takes all rights from user namespaces here; an administrator can allow "
    "them: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)


def _is_apparmor_strict(look: Look) -> bool:
    return look("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"


def _is_weak_root(look: Look) -> bool:
    """Whether this is root without what the kernel asks of root (since 5.12)."""
    facts = dict(
        line.partition(":")[::2] for line in look("/proc/self/status").split("\n")
    )
    capabilities = int(facts.get("CapEff", "") or "0", 16)
    effective_uid = (facts.get("Uid", "").split() or ["", ""])[1]
    return effective_uid == "0" and not capabilities & 1 << _CAP_SETFCAP


def _has_seccomp_filter(look: Look) -> bool:
    return "\nSeccomp:\t2" in look("/proc/self/status")


def _is_root_a_mount(look: Look) -> bool:
    """Whether the root directory is a mount; in a chroot it seldom is."""
    table = look("/proc/self/mountinfo")
    return not table or any(line.split()[4] == "/" for line in table.splitlines())
