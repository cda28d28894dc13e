import errno

import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces.hints import find_hint
from cvmfsexec.namespaces.syscalls import refusal

LIMIT = "/proc/sys/user/max_user_namespaces"
DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"
UBUNTU = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
STATUS = "/proc/self/status"
TABLE = "/proc/self/mountinfo"
PROFILE = "/proc/self/attr/current"

SECCOMP = "Name:\tx\nSeccomp:\t2\n"
WEAK_ROOT = "Uid:\t0\t0\t0\t0\nCapEff:\t000000007fffffff\n"
STRONG_ROOT = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000ffffffff\n"
NO_ROOT = "Uid:\t7\t7\t7\t7\nCapEff:\t0000000000000000\n"
IN_CHROOT = "70 1 8:1 /srv/r/proc /proc rw - proc proc rw"

EPERM, EACCES, EINVAL = errno.EPERM, errno.EACCES, errno.EINVAL


@pytest.mark.parametrize(
    ("syscall", "number", "machine", "words"),
    [
        ("unshare", errno.ENOSPC, {LIMIT: "0"}, "user.max_user_namespaces=15000"),
        ("unshare", errno.ENOSPC, {LIMIT: "9"}, "limit of namespaces is reached"),
        ("unshare", EPERM, {DEBIAN: "0"}, "unprivileged_userns_clone=1"),
        ("unshare", EPERM, {STATUS: SECCOMP}, "seccomp=unconfined"),
        ("unshare", 0, {STATUS: SECCOMP}, "seccomp=unconfined"),
        ("unshare", EPERM, {TABLE: IN_CHROOT}, "this is a chroot"),
        ("unshare", EACCES, {UBUNTU: "1"}, "apparmor_restrict_unprivileged_userns=0"),
        ("unshare", EPERM, {}, "chroot or a security module"),
        ("unshare", EINVAL, {}, "user_namespace.enable=1"),
        ("uid_map", EPERM, {UBUNTU: "1"}, "apparmor_restrict_unprivileged_userns=0"),
        ("uid_map", EPERM, {STATUS: WEAK_ROOT}, "CAP_SETFCAP"),
        ("uid_map", EPERM, {STATUS: STRONG_ROOT}, "security module"),
        ("uid_map", EPERM, {STATUS: NO_ROOT}, "security module"),
        ("setgroups", EACCES, {}, "security module"),
        ("mount", EACCES, {UBUNTU: "1"}, "apparmor_restrict_unprivileged_userns=0"),
        ("mount", EPERM, {STATUS: SECCOMP}, "security profile forbids mounts"),
        (
            "pivot_root",
            EACCES,
            {PROFILE: "docker-default (enforce)"},
            "apparmor=unconf",
        ),
        ("", errno.EAGAIN, {}, "ulimit -u"),
        ("", errno.EMFILE, {}, "ulimit -n"),
        ("open", EACCES, {}, "chmod 666 /dev/fuse"),
        ("open", errno.ENOENT, {}, "modprobe fuse"),
        ("chdir", EACCES, {STATUS: SECCOMP}, "reach by its path"),
        ("chdir", errno.ENOENT, {}, "reach by its path"),
    ],
)
def test_hint_names_the_reason_that_is_found(
    syscall: str, number: int, machine: dict[str, str], words: str
) -> None:
    error = refusal(syscall, number, "do something")
    assert words in find_hint(error, lambda path: machine.get(path, ""))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENODEV, "modprobe fuse"),
        (EPERM, "Linux 4.18"),
        (EINVAL, "is not the FUSE device"),
        (errno.EBUSY, ""),
    ],
)
def test_hint_about_a_fuse_mount(number: int, words: str) -> None:
    error = refusal("mount", number, "mount fuse on /cvmfs/a.b")
    hint = find_hint(error, lambda _: "")
    assert words in hint
    assert bool(hint) == bool(words)


def test_there_is_no_hint_where_nothing_is_known() -> None:
    assert find_hint(NamespaceError("no command"), lambda _: "") == ""
    assert find_hint(refusal("mount", errno.ENOMEM, "x"), lambda _: "") == ""


def test_looking_at_this_machine_raises_nothing() -> None:
    for syscall in ("unshare", "uid_map", "mount", "open"):
        find_hint(refusal(syscall, EPERM, "try"))
