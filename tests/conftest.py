"""Hypothesis profiles, markers by directory, and the rule about skips.

Where a test cannot run it skips, with the reason, and that is fine on somebody's
laptop. In CI (variable ``CI`` set) the machine has what tests need, so there a skip is
a failure, unless its reason is on the short list below.
"""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import syscalls

pytest.register_assert_rewrite("tests.support")

settings.register_profile("dev", max_examples=50, deadline=None, database=None)
settings.register_profile(
    "ci", max_examples=300, deadline=None, database=None, derandomize=True
)
settings.register_profile("deep", max_examples=20_000, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

ROOT = Path(__file__).resolve().parent.parent

SKIPS_ALLOWED_IN_CI: dict[str, Callable[[], bool]] = {
    r"no fixture .*: \.\./shared/fixtures is not there": (
        lambda: not (ROOT.parent / "shared/fixtures").exists()
    ),
    r"only root |cannot abort here: .* not permitted": lambda: os.geteuid() != 0,
    r"cannot mount what mkfs\.btrfs makes": (
        lambda: "btrfs" not in Path("/proc/filesystems").read_text()
    ),
    r"the packages are for Python 3\.11 on x86_64": (
        lambda: sys.version_info[:2] != (3, 11) or os.uname().machine != "x86_64"
    ),
    r"this OpenSSL does not offer ripemd160": (
        lambda: "ripemd160" not in hashlib.algorithms_available
    ),
}
"""Pattern of a reason, and what tells whether it can be true here."""

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def pytest_sessionstart() -> None:
    """Begin with the signals of a login, whatever we were started by.

    A shell lets what it runs in the background ignore INT and QUIT, ``nohup`` lets it
    ignore HUP; sessions would rightly hand that down, and tests wait in vain.
    """
    for number in set(signal.valid_signals()) - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _leave_the_mounts_of_the_host()


def _leave_the_mounts_of_the_host() -> None:
    """Go to a mount namespace that ends with us, and with what we mounted, in any case.

    An ordinary user stays where he is: he could mount nothing in one of his own.
    """
    if os.geteuid() != 0:
        return
    was_shared = "shared:" in Path("/proc/self/mountinfo").read_text()
    with contextlib.suppress(NamespaceError):  # a container that forbids it
        syscalls.unshare(syscalls.CLONE_NEWNS, "get mounts of our own")
        for kind in ("private", "shared") if was_shared else ("private",):
            subprocess.run(["mount", f"--make-r{kind}", "/"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what mounts real file systems a marker, so that it can be left out."""
    for item in items:
        if "kernel" in item.nodeid.split("/")[1:2]:
            item.add_marker(pytest.mark.kernel)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Judge the skips of tests."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[
    None, pytest.CollectReport, pytest.CollectReport
]:
    """Judge the skips of whole modules."""
    report = yield
    _judge(report)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or not os.environ.get("CI"):
        return
    reason = _reason(report.longrepr)
    if not any(
        re.search(pattern, reason) and is_possible()
        for pattern, is_possible in SKIPS_ALLOWED_IN_CI.items()
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where it should run: {reason}"


def _reason(longrepr: object) -> str:
    """Return why something was skipped: pytest keeps (file, line, reason)."""
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
