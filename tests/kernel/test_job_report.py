"""``cvmfsexec --report``: pages about real jobs, opened in a real browser."""

import html
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import rendered
from tests.support.commands import client_dist, run_exec
from tests.support.published import FQRN, Tree, publish_tree, serve
from tests.support.sessions import Place, places

pytestmark = pytest.mark.kernel

OTHER = "other.example.org"
TOP = f"/cvmfs/{FQRN}"
HOSTILE = "<b>bold & 'quoted'"
FILES = 40
TREE: Tree = {
    "files": {f"f{number:02}": os.urandom(5000) for number in range(FILES)},
    HOSTILE: b"odd\n",
    "lost": b"not on the server any more\n",
}

LOOK = """
const boxes = [...document.querySelectorAll("svg")].map(
    one => one.getBoundingClientRect());
const cells = one => [...one.cells].map(cell => cell.textContent);
document.body.innerHTML = JSON.stringify({
    title: document.title,
    headings: [...document.querySelectorAll("h2")].map(one => one.textContent),
    text: document.body.innerText,
    rows: [...document.querySelectorAll("tr")].map(cells),
    plots: boxes.map(box => [box.width, box.height]),
    lines: [...document.querySelectorAll("polyline")].map(one => one.points.length),
    bars: document.querySelectorAll("rect").length,
    bold: document.querySelectorAll("b").length,
    fetched: performance.getEntriesByType("resource").length,
    is_wide: document.documentElement.scrollWidth > window.innerWidth,
}).replaceAll("<", "\\\\u003c").replaceAll("&", "\\\\u0026");
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    one = publish_tree(home, TREE)
    two = publish_tree(home, {"hello": b"hello\n"}, OTHER)
    lost = one.directory / _stored(one.directory, b"not on the server any more\n")
    lost.unlink()
    with serve(one.output) as base_url:
        keys = one.master_key_pem, two.master_key_pem
        with client_dist(base_url, *keys) as made:
            yield made


def _stored(directory: Path, content: bytes) -> Path:
    import zlib

    for path in directory.glob("data/??/*"):
        try:
            if zlib.decompress(path.read_bytes()) == content:
                return path.relative_to(directory)
        except zlib.error:
            continue
    raise AssertionError("it was not stored")


def seen_in(page: Path, tmp_path: Path) -> dict[str, Any]:
    dom = rendered(page, LOOK, tmp_path)
    body = re.search(r"<body>(.*)</body>", dom, re.DOTALL)
    assert body is not None
    seen: dict[str, Any] = json.loads(html.unescape(body[1]))
    return seen


@places
def test_page_tells_what_the_job_did(dist: Path, tmp_path: Path, place: Place) -> None:
    page = dist.parent / f"report.{place.name}.html"
    script = (
        f'cat {TOP}/files/* "{TOP}/{HOSTILE}" /cvmfs/{OTHER}/hello | wc -c; '
        f"cat {TOP}/lost; exit 3"
    )
    words = ("--report", str(page), FQRN, OTHER, "--", "sh", "-c", script)
    done = run_exec(dist, *words, place=place)
    assert (done.returncode, done.stdout) == (3, f"{FILES * 5000 + 10}\n")
    seen = seen_in(page, tmp_path)
    assert seen["title"].startswith("cvmfsexec: sh -c")
    assert seen["headings"] == [OTHER, FQRN]
    assert "ended with status 3" in seen["text"]
    rows = {row[0]: row[1:] for row in seen["rows"]}
    assert [f"/files/f{n:02}" for n in range(FILES) if f"/files/f{n:02}" in rows] != []
    assert rows["/files/f07"][:1] == ["5,000"]
    assert rows["/hello"][:1] == ["6"]
    assert f"/{HOSTILE}" in rows
    assert any("/lost" in cell for row in seen["rows"] for cell in row)
    assert rows[FQRN][-1] != "0"  # input/output errors


def test_page_is_laid_out_and_fetches_nothing(dist: Path, tmp_path: Path) -> None:
    page = dist.parent / "laid-out.html"
    script = f"cat {TOP}/files/* >/dev/null; sleep 0.5; ls -R {TOP} >/dev/null"
    done = run_exec(dist, "--report", str(page), FQRN, "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    seen = seen_in(page, tmp_path)
    assert len(seen["plots"]) == 4
    assert all(width > 500 and height > 100 for width, height in seen["plots"])
    assert len(seen["lines"]) == 3
    assert min(seen["lines"]) >= 1
    assert seen["bars"] >= 1
    assert (seen["bold"], seen["fetched"], seen["is_wide"]) == (0, 0, False)
    assert stat.S_IMODE(page.stat().st_mode) & stat.S_IRUSR


def test_shortest_job_has_a_report(dist: Path, tmp_path: Path) -> None:
    page = dist.parent / "short.html"
    done = run_exec(dist, "--report", str(page), FQRN, "--", "cat", f"{TOP}/{HOSTILE}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "odd\n", "")
    assert f"/{HOSTILE}" in [row[0] for row in seen_in(page, tmp_path)["rows"]]


def test_mode_two_has_a_report(dist: Path, tmp_path: Path) -> None:
    page = dist.parent / "mode-two.html"
    words = ("--mode", "2", "--report", str(page), FQRN)
    done = run_exec(dist, *words, "--", "cat", f"{TOP}/{HOSTILE}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "odd\n", "")
    assert f"/{HOSTILE}" in [row[0] for row in seen_in(page, tmp_path)["rows"]]


def test_job_without_repositories_has_a_report_too(dist: Path) -> None:
    page = dist.parent / "none.html"
    done = run_exec(dist, "--report", str(page), "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing was recorded" in page.read_text()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/nowhere/report.html", "there is no directory /nowhere"),
        ("/", "it is a directory"),
        ("/proc/report.html", "/proc cannot be written"),
    ],
)
def test_place_that_takes_no_report_is_told_before_the_job(
    dist: Path, place: str, said: str
) -> None:
    done = run_exec(dist, "--report", place, FQRN, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_earlier_report_is_replaced_and_nothing_else_is_left(dist: Path) -> None:
    directory = dist.parent / "tmp"
    page = directory / "report.html"
    for word in ("first", "second"):
        run_exec(dist, "--report", str(page), FQRN, "--", "echo", word)
    assert "echo second" in page.read_text()
    assert [path.name for path in directory.iterdir()] == ["report.html"]
