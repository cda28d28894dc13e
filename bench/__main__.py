"""``python -m bench``: time the work, print a table, save JSON.

Each piece of work runs in three states: *cold* (empty cache), *warm* (full cache, new
mount), *hot* (again in the same mount), and on local disk with a hot page cache in
the same run. Machines are noisy: read the ratios, not the seconds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.trees import FQRN, FULL, QUICK, Scale, Site, make_site
from bench.work import TIMER, WORK, command

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"
START_ROUNDS = 9

Row = dict[str, Any]


def main() -> int:
    """Run the benchmarks that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", metavar="WORD", help="work whose name has this word")
    parser.add_argument("--output", default="bench.json", help="where to save JSON")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    site = make_site(ROOT / ".bench", scale, ROOT / "cvmfs")
    with _served(site) as base_url, tempfile.TemporaryDirectory() as scratch:
        run = _Run(site, scale, base_url, Path(scratch))
        rows = [run.start()] if _wanted("start", arguments.only) else []
        rows += [run.work(name) for name in WORK if _wanted(name, arguments.only)]
    _print_table(rows)
    Path(arguments.output).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _wanted(name: str, word: str | None) -> bool:
    return word is None or word in name


class _Run:
    """One run over one site."""

    def __init__(self, site: Site, scale: Scale, base_url: str, scratch: Path) -> None:
        self._site = site
        self._scale = scale
        self._dist = scratch / "dist"
        self._base_url = base_url
        etc = self._dist / "etc/cvmfs"
        (etc / "keys").mkdir(parents=True)
        for key in site.keys.glob("*.pub"):
            shutil.copy(key, etc / "keys")
        (etc / "default.local").write_text(
            f"CVMFS_SERVER_URL={base_url}/cvmfs/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
            "CVMFS_CLAIM_OWNERSHIP=yes\nCVMFS_CHECK_PERMISSIONS=yes\n"
        )

    def start(self) -> Row:
        """Time ``cvmfsexec REPOSITORY -- true``."""
        cold, warm = [], []
        for _ in range(START_ROUNDS):
            self._empty_cache()
            cold.append(self._seconds(["/bin/true"]))
            warm.append(self._seconds(["/bin/true"]))
        bare = [_seconds(["/bin/true"], os.environ) for _ in range(START_ROUNDS)]
        return {
            "work": "start",
            "cold": median(cold),
            "warm": median(warm),
            "local": median(bare),
        }

    def work(self, name: str) -> Row:
        """Time one piece of work in all states."""
        self._empty_cache()
        cold = self._timed(name, 3)
        warm = self._timed(name, 1)
        local = self._local(name, 3)
        return {
            "work": name,
            "cold": cold["times_s"][0],
            "warm": warm["times_s"][0],
            "hot": min(cold["times_s"][1:]),
            "local": min(local["times_s"][1:]),
            "resident_kb": cold["resident_kb"],
            "descriptors": cold["descriptors"],
        }

    def _environment(self, top: str) -> dict[str, str]:
        reads = str(self._scale.random_reads)
        return {**os.environ, "TOP": top, "PYTHON": SYSTEM_PYTHON, "READS": reads}

    def _timed(self, name: str, rounds: int) -> dict[str, Any]:
        words = [SYSTEM_PYTHON, "-I", "-c", TIMER, command(name), str(rounds)]
        return _json(self._wrapped(words), self._environment(f"/cvmfs/{FQRN}"))

    def _local(self, name: str, rounds: int) -> dict[str, Any]:
        words = [SYSTEM_PYTHON, "-I", "-c", TIMER, command(name), str(rounds)]
        return _json(words, self._environment(str(self._site.local)))

    def _seconds(self, words: list[str]) -> float:
        return _seconds(self._wrapped(words), os.environ)

    def _wrapped(self, words: list[str]) -> list[str]:
        launcher = str(ROOT / "cvmfsexec")
        return [launcher, "--dist", str(self._dist), FQRN, "--", *words]

    def _empty_cache(self) -> None:
        shutil.rmtree(self._dist / "var", ignore_errors=True)


def _seconds(words: list[str], environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, env=environment)
    return time.perf_counter() - start


def _json(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(words, check=True, env=environment, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def _served(site: Site) -> Iterator[str]:
    """Serve the site on loopback while the block runs."""
    words = [str(ROOT / "cvmfs"), "serve", str(site.served), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None:
                raise RuntimeError("no pipe to the server")
            address = server.stdout.readline().split()[-1]
            yield address.partition("/cvmfs/")[0]
        finally:
            server.terminate()


def _print_table(rows: list[Row]) -> None:
    columns = ("cold", "warm", "hot", "local")
    print(f"{'work':20}" + "".join(f"{column:>10}" for column in columns), end="")
    print(f"{'hot/local':>11}{'memory':>10}{'fds':>6}")
    for row in rows:
        cells = [f"{row[c]:8.3f} s" if c in row else " " * 10 for c in columns]
        line = f"{row['work']:20}" + "".join(cells)
        if "hot" in row:
            line += f"{row['hot'] / row['local']:10.2f} "
        if "resident_kb" in row:
            line += f"{row['resident_kb'] / 1024:7.0f} MB{row['descriptors']:6}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
