"""``python -m bench``: time the work, print a table, save JSON.

Each piece of work runs in three states: *cold* (empty cache), *warm* (full cache, new
mount), *hot* (again in the same mount), and on local disk with a hot page cache in
the same run; some also *far*: cold, from a server that is a round trip away. Machines
are noisy: read the ratios, not the seconds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.caches import cache_rows
from bench.full_cache import WORK as FIRST_FILE
from bench.full_cache import first_file_rows
from bench.servers import serving
from bench.trees import FQRN, FULL, QUICK, Scale, Site, make_site
from bench.work import FAR_WORK, TIMER, WORK, command

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"
START_ROUNDS = 9
ROUND_TRIP_MS = 20

Row = dict[str, Any]


def main() -> int:
    """Run the benchmarks that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", metavar="WORD", help="work whose name has this word")
    parser.add_argument("--output", default="bench.json", help="where to save JSON")
    parser.add_argument(
        "--round-trip",
        type=float,
        default=ROUND_TRIP_MS,
        metavar="MS",
        help="distance of the far server (default: %(default)s)",
    )
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    cvmfs = ROOT / "cvmfs"
    site = make_site(ROOT / ".bench", scale, cvmfs)
    round_trip_s = arguments.round_trip / 1000
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(site.served, Path(scratch), cvmfs, round_trip_s) as servers,
    ):
        near = Installation(Path(scratch) / "near", site, servers.near)
        far = Installation(Path(scratch) / "far", site, servers.far)
        run = _Run(site, scale, near, far)
        rows = [run.start()] if _wanted("start", arguments.only) else []
        if _wanted("start one file", arguments.only):
            rows.append(run.start_one_file(Path(scratch) / "one/cvmfsexec"))
        rows += [run.work(name) for name in WORK if _wanted(name, arguments.only)]
        if _wanted("cache", arguments.only):
            rows += run.caches(Path(scratch) / "caches", servers.near)
        if _wanted(FIRST_FILE, arguments.only):
            rows += run.first_file(Path(scratch) / "full", servers.near)
    _print_table(rows, f"far: {arguments.round_trip:g} ms; served by {servers.name}")
    facts = {"server": servers.name, "round_trip_ms": arguments.round_trip}
    saved = json.dumps({**facts, "rows": rows}, indent=1) + "\n"
    Path(arguments.output).write_text(saved)
    return 0


def _wanted(name: str, word: str | None) -> bool:
    return word is None or word in name


class Installation:
    """A configured client of one server, with a cache of its own."""

    def __init__(
        self, dist: Path, site: Site, base_url: str, settings: str = ""
    ) -> None:
        """Configure it in a new directory."""
        self._dist = dist
        etc = dist / "etc/cvmfs"
        (etc / "keys").mkdir(parents=True)
        for key in site.keys.glob("*.pub"):
            shutil.copy(key, etc / "keys")
        (etc / "default.local").write_text(
            f"CVMFS_SERVER_URL={base_url}/cvmfs/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
            "CVMFS_CLAIM_OWNERSHIP=yes\nCVMFS_CHECK_PERMISSIONS=yes\n" + settings
        )

    def wrapped(self, words: list[str]) -> list[str]:
        """Return the command that runs another with the repository."""
        launcher = str(ROOT / "cvmfsexec")
        return [launcher, "--dist", str(self._dist), FQRN, "--", *words]

    def pack(self, file: Path) -> None:
        """Pack everything into one file."""
        maker = str(ROOT / "makedist")
        words = [maker, "--dist", str(self._dist), "-o", str(file)]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)

    def empty_cache(self) -> None:
        """Forget everything that was fetched."""
        shutil.rmtree(self._dist / "var", ignore_errors=True)


class _Run:
    """One run over one site."""

    def __init__(
        self, site: Site, scale: Scale, near: Installation, far: Installation
    ) -> None:
        self._site = site
        self._scale = scale
        self._near = near
        self._far = far

    def start(self) -> Row:
        """Time ``cvmfsexec REPOSITORY -- true``."""
        cold, warm, far = [], [], []
        for _ in range(START_ROUNDS):
            self._near.empty_cache()
            cold.append(_seconds(self._near.wrapped(["/bin/true"])))
            warm.append(_seconds(self._near.wrapped(["/bin/true"])))
            self._far.empty_cache()
            far.append(_seconds(self._far.wrapped(["/bin/true"])))
        bare = [_seconds(["/bin/true"]) for _ in range(START_ROUNDS)]
        return {
            "work": "start",
            "cold": median(cold),
            "warm": median(warm),
            "local": median(bare),
            "far": median(far),
        }

    def start_one_file(self, file: Path) -> Row:
        """Time ``FILE REPOSITORY -- true``; cold, it is not unpacked yet.

        ``unpack`` is ``FILE -v`` then, which only unpacks.
        """
        file.parent.mkdir()
        self._near.pack(file)
        unpack, cold, warm = [], [], []
        for _ in range(START_ROUNDS):
            shutil.rmtree(file.parent / ".cvmfsexec", ignore_errors=True)
            unpack.append(_seconds([str(file), "-v"]))
            shutil.rmtree(file.parent / ".cvmfsexec")
            cold.append(_seconds([str(file), FQRN, "--", "/bin/true"]))
            warm.append(_seconds([str(file), FQRN, "--", "/bin/true"]))
        return {
            "work": "start one file",
            "cold": median(cold),
            "warm": median(warm),
            "unpack": median(unpack),
            "size_bytes": file.stat().st_size,
        }

    def work(self, name: str) -> Row:
        """Time one piece of work in all states."""
        self._near.empty_cache()
        cold = self._timed(name, self._near, 3)
        warm = self._timed(name, self._near, 1)
        local = self._local(name, 3)
        row = {
            "work": name,
            "cold": cold["times_s"][0],
            "warm": warm["times_s"][0],
            "hot": min(cold["times_s"][1:]),
            "local": min(local["times_s"][1:]),
            "resident_kb": cold["resident_kb"],
            "descriptors": cold["descriptors"],
        }
        if name in FAR_WORK:
            self._far.empty_cache()
            row["far"] = self._timed(name, self._far, 1)["times_s"][0]
        return row

    def caches(self, place: Path, base_url: str) -> list[Row]:
        """Time each kind of cache: cold fills it, warm is the next session."""

        def timed(name: str, client: Installation) -> float:
            seconds: float = self._timed(name, client, 1)["times_s"][0]
            return seconds

        return list(cache_rows(place, self._installer(base_url), timed))

    def first_file(self, place: Path, base_url: str) -> list[Row]:
        """Time a start on caches with few objects, and with many."""
        install, count = self._installer(base_url), self._scale.cached_objects
        return list(first_file_rows(place, install, _seconds, count, START_ROUNDS))

    def _installer(self, base_url: str) -> Callable[[Path, str], Installation]:
        def install(dist: Path, settings: str) -> Installation:
            return Installation(dist, self._site, base_url, settings)

        return install

    def _environment(self, top: str) -> dict[str, str]:
        reads = str(self._scale.random_reads)
        return {**os.environ, "TOP": top, "PYTHON": SYSTEM_PYTHON, "READS": reads}

    def _timed(self, name: str, client: Installation, rounds: int) -> dict[str, Any]:
        words = [SYSTEM_PYTHON, "-I", "-c", TIMER, command(name), str(rounds)]
        return _json(client.wrapped(words), self._environment(f"/cvmfs/{FQRN}"))

    def _local(self, name: str, rounds: int) -> dict[str, Any]:
        words = [SYSTEM_PYTHON, "-I", "-c", TIMER, command(name), str(rounds)]
        return _json(words, self._environment(str(self._site.local)))


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _json(words: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(words, check=True, env=environment, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _print_table(rows: list[Row], caption: str) -> None:
    columns = ("cold", "warm", "hot", "local", "far")
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
    print(caption)


if __name__ == "__main__":
    sys.exit(main())
