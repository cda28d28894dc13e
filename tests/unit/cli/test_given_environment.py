"""The payload's environment is the user's, whatever stood between."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.cli.given_environment import given_environment, split_listing

ROOT = Path(__file__).resolve().parents[3]

ENTRIES = {
    "PLAIN": "value",
    "EMPTY": "",
    "LINES": "one\ntwo=2",
    "BASH_FUNC_module%%": "() {  echo $@\n}",
    "with.dot": "x",
    "BYTES": "\udcff\udc80",
}


def listing_of(entries: dict[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={v}\0") for name, v in entries.items())


def test_listing_of_the_launcher_is_the_environment() -> None:
    assert given_environment(listing_of(ENTRIES)) == ENTRIES


def test_what_is_no_variable_is_left_out_and_the_first_of_two_counts() -> None:
    listing = b"A=1\0no variable\0=x\0A=2\0\0"
    assert given_environment(listing) == {"A": "1"}


@pytest.mark.parametrize("piece_length", [4, 1000])
@pytest.mark.parametrize("words", [[], ["--", "ls"], ["-v"], ["a.b", "--", "--"]])
def test_listing_is_told_from_the_words(words: list[str], piece_length: int) -> None:
    text = base64.b64encode(listing_of(ENTRIES)).decode()
    pieces = [text[i : i + piece_length] for i in range(0, len(text), piece_length)]
    assert split_listing([*pieces, "--", *words]) == (listing_of(ENTRIES), words)


def test_missing_listing_is_empty() -> None:
    assert split_listing(["--", "a.b", "--", "ls"]) == (b"", ["a.b", "--", "ls"])


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
