"""A real browser without a window, for pages that are to be seen in one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import COMMAND_PATIENCE_S

_NAMES = ("chromium-headless-shell", "chromium")


def rendered(page: Path, script: str, profile: Path) -> str:
    """Open a page, run a script in it, and return what the page has become.

    Args:
        page: An HTML file; it is left as it is.
        script: JavaScript, run when the page is laid out.
        profile: An empty directory for what the browser remembers.
    """
    found = [path for path in map(shutil.which, _NAMES) if path]
    if not found:
        pytest.skip("there is no browser: install chromium-headless-shell")
    copy = profile / "page.html"
    text = page.read_text(encoding="utf-8")
    added = f"<script>window.onload = () => {{ {script} }}</script>"
    copy.write_text(text.replace("</body>", f"{added}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            found[0],
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1000,1000",
            f"--user-data-dir={profile}/profile",
            "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True,
        check=True,
        timeout=COMMAND_PATIENCE_S,
    )
    return done.stdout.decode()
