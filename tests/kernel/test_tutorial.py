"""The tutorial works when it is typed: its commands are run, its output is compared.

What stands after ``$`` is typed, other lines are what the tutorial promises, ``…``
stands for anything. Changed are the directory and the port, which are shared with
nobody here, and what needs a second terminal.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.commands import (
    COMMAND_PATIENCE_S,
    give_to_ordinary_user,
    plain_environment,
)
from tests.support.sessions import ROOT, Caller, skip_unless_possible, wrap

TUTORIAL = ROOT / "docs/tutorial/first-mount.md"

BEFORE = """
set -eu
SERVER=
trap '[ -z "$SERVER" ] || kill $SERVER' EXIT
make() { :; }
"""
SERVE = "cvmfs serve repositories"
SERVE_HERE = f"""
{SERVE} --port 0 > url & SERVER=$!
until [ -s url ]; do sleep 0.05; done
cat url
PORT=$(sed 's|.*:\\([0-9]*\\)/.*|\\1|' url)
"""


def blocks() -> Iterator[list[str]]:
    found = re.findall(r"(?ms)^```\n(.*?)^```$", TUTORIAL.read_text())
    return map(str.splitlines, found)


def split(block: list[str]) -> tuple[list[str], list[str]]:
    """Return what is typed in a block, and what it promises to show."""
    typed: list[str] = []
    shown: list[str] = []
    is_document = False
    for line in block:
        if line.startswith("$ ") or is_document:
            typed.append(line.removeprefix("$ "))
            is_document = line != "END" and (is_document or line.endswith("<<END"))
        else:
            shown.append(line)
    return typed, shown


def as_script(typed: list[str]) -> list[str]:
    """Return the lines of a block for a shell that nobody sits at."""
    if typed == [SERVE]:
        return [SERVE_HERE]
    if typed[-1] == "exit":  # what is between is for the shell inside
        start = next(n for n, line in enumerate(typed) if line.endswith("-- bash"))
        opening = typed[start] + " <<'INSIDE'"
        return [*typed[:start], opening, *typed[start + 1 :], "INSIDE"]
    return typed


def test_tutorial_shows_what_it_promises() -> None:
    skip_unless_possible(Caller.ORDINARY)
    script = [BEFORE]
    promised: list[str] = []
    for block in blocks():
        typed, shown = split(block)
        script += as_script(typed)
        promised += shown
    with tempfile.TemporaryDirectory(prefix="cvmfsexec-test-") as top:
        give_to_ordinary_user(Path(top))
        text = "\n".join(script)
        text = text.replace("/tmp/", f"{top}/").replace(":8000", ":$PORT")
        done = subprocess.run(
            wrap(("bash", "-c", text), Caller.ORDINARY),
            cwd=ROOT,
            env=plain_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_PATIENCE_S,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert list(Path(top).iterdir()) == []
    pattern = r"\n(?:.*\n)*".join(
        re.escape(line.replace(":8000", ":…")).replace("…", ".*") for line in promised
    )
    assert re.search(pattern, done.stdout), done.stdout
