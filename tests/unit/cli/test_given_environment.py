"""The payload's environment is the user's, whatever stood between."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.cli.given_environment import LISTING, given_environment

ROOT = Path(__file__).resolve().parents[3]

ENTRIES = {
    "PLAIN": "value",
    "EMPTY": "",
    "LINES": "one\ntwo=2",
    "BASH_FUNC_module%%": "() {  echo $@\n}",
    "with.dot": "x",
    "BYTES": "\udcff\udc80",
}


def launched(monkeypatch: pytest.MonkeyPatch, listing: bytes) -> dict[str, str]:
    monkeypatch.setenv(LISTING, base64.b64encode(listing).decode())
    return given_environment()


def test_listing_of_the_launcher_is_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = (os.fsencode(f"{name}={value}\0") for name, value in ENTRIES.items())
    assert launched(monkeypatch, b"".join(entries)) == ENTRIES
    assert LISTING not in os.environ


def test_what_is_no_variable_is_left_out_and_the_first_of_two_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listing = b"A=1\0no variable\0=x\0A=2\0\0"
    assert launched(monkeypatch, listing) == {"A": "1"}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="C locale"),
        pytest.param({"LC_CTYPE": "C"}, id="LC_CTYPE C"),
        pytest.param({"LC_CTYPE": "C.UTF-8"}, id="LC_CTYPE UTF-8"),
        pytest.param({"LANG": "C.UTF-8"}, id="LANG"),
        pytest.param({"LC_ALL": "POSIX"}, id="LC_ALL"),
        pytest.param(ENTRIES, id="odd names"),
    ],
)
def test_python_leaves_no_trace(given: dict[str, str]) -> None:
    given = {"PYTHONPATH": str(ROOT / "src"), **given}
    program = (
        "from cvmfsexec.cli.given_environment import given_environment;"
        "print(ascii(given_environment()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert eval(done.stdout) == given  # noqa: S307 -- our own ascii()
