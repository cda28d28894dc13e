"""Many sessions on one small cache, and somebody who does it every harm.

Run in a mount namespace of its own::

    unshare --user --map-root-user --mount python cache_stress.py DIST SECONDS

It mounts a small disk where the cache lies and prints, as JSON, what it saw. Each
session reads files at random and compares every byte with what the name of a file says
its content is.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.ledger import FILE_NAME
from tests.support.filled_cache import bytes_at_one_moment, sizes, true_bytes

FQRN = "test.example.org"
FILES, DIRECTORIES = 1200, 12
SESSIONS = 32
LIMIT_MB = 12
LARGEST_BYTES = 400_000
DISK_BYTES = 48 << 20
DISK_INODES = 4000

_ROOT = Path(__file__).resolve().parents[2]
_SIZES = (0, 1, 700, 4096, 9000, 20_000, 65_536, 150_000, LARGEST_BYTES)
_SAMPLE_PAUSE_S = 0.05
_HARM_PAUSE_S = 0.15
_DAMAGE_PAUSE_S = 1.0
_END_S = 60.0
_FULL_BYTES = (LIMIT_MB << 20) * 3 // 4
_DAY_S = 86_400


def paths() -> Iterator[str]:
    """Yield the names of all files."""
    for number in range(FILES):
        yield f"d{number % DIRECTORIES}/f{number}"


def content_of(path: str) -> bytes:
    """Return what a file holds."""
    digest = hashlib.sha256(path.encode()).digest()
    size = _SIZES[digest[0] % len(_SIZES)]
    return (digest * (size // len(digest) + 1))[:size]


def read_at_random(mount: str, seed: int) -> None:
    """Be the payload: read and compare until there is nothing left; then once more."""
    chance = random.Random(seed)  # noqa: S311 -- an order
    wanted = list(paths())
    chance.shuffle(wanted)
    for path in wanted:
        try:
            with open(f"{mount}/{path}", "rb") as file:
                found = file.read()
        except OSError as error:
            outcome = f"{path}: {error.strerror}"
        else:
            outcome = "ok" if found == content_of(path) else f"{path}: wrong"
        sys.stdout.write(f"{outcome}\n")
        sys.stdout.flush()


class Session:
    """One ``cvmfsexec``, whose outcomes are counted."""

    def __init__(self, dist: str, seed: int) -> None:
        words = (sys.executable, __file__, "read", f"/cvmfs/{FQRN}", str(seed))
        self._process = subprocess.Popen(
            (str(_ROOT / "cvmfsexec"), "--dist", dist, FQRN, "--", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.is_harmed = False
        self.outcomes: dict[str, int] = {}
        self.messages: list[str] = []
        self._threads = [
            threading.Thread(target=self._count),
            threading.Thread(target=self._listen),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def _count(self) -> None:
        for line in self._process.stdout or ():
            self.outcomes[line.strip()] = self.outcomes.get(line.strip(), 0) + 1

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self.messages.append(line.strip())

    def pids(self) -> list[int]:
        """Return all its processes, the oldest first."""
        found = [self.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/task/{pid}/children"
                found += map(int, Path(path).read_text().split())
        return found

    def file_server(self) -> int | None:
        """Return the process that serves the repository, if there is one by now."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("cvmfs:test"):
                    return pid
        return None

    def kill(self) -> None:
        self.is_harmed = True
        self._process.kill()

    def wait(self, patience_s: float) -> None:
        """Wait until it and all that it was connected with has ended."""
        try:
            self._process.wait(patience_s)
        finally:
            self.kill()
            for thread in self._threads:
                thread.join(_END_S)
            self._process.wait()


class Seen(NamedTuple):
    """What is reported."""

    reads: int
    wrong: dict[str, int]
    messages: list[str]
    limit_bytes: int
    largest_sample_bytes: int
    least_surplus_bytes: int
    samples: int
    harms: dict[str, int]
    true_bytes: int
    left: list[str]


class Checked(NamedTuple):
    """What is said of the cache when nobody uses it."""

    fsck_status: int
    fsck_told: str
    cleanings: int
    used_bytes: int
    true_bytes: int


class Stress:
    """The sessions, and what is done to them."""

    def __init__(self, dist: str, seconds: float, seed: int) -> None:
        self._dist = dist
        self._cache = Path(dist) / "var/lib/cvmfs" / FQRN
        self._chance = random.Random(seed)  # noqa: S311
        self._seconds = seconds
        self._is_over = threading.Event()
        self._sessions: list[Session] = []
        self._ended: list[Session] = []
        self._largest = 0
        self._least_surplus = sys.maxsize
        self._samples = 0
        self._harms: dict[str, int] = {}
        self._seeds = iter(range(seed, sys.maxsize))

    def run(self) -> None:
        """Do every harm but those to the ledger."""
        sampling = threading.Thread(target=self._sample)
        sampling.start()
        harms = (
            *(self._kill_file_server, self._kill_session, self._stop_file_server),
            *(self._fill_disk, self._use_up_inodes, self._delete_objects),
            *(self._delete_a_directory, self._litter_txn),
        )
        self._keep_sessions_up()
        # Whom a full disk meets in an empty cache, stores nothing for a minute.
        _wait(lambda: self._largest >= _FULL_BYTES)
        until_s = time.monotonic() + self._seconds
        coming: list[Callable[[], None]] = []
        while coming or time.monotonic() < until_s:
            self._keep_sessions_up()
            coming = coming or self._chance.sample(harms, len(harms))
            harm = coming.pop()
            self._harms[harm.__name__] = self._harms.get(harm.__name__, 0) + 1
            harm()
            time.sleep(_HARM_PAUSE_S)
        self._is_over.set()
        sampling.join()
        self._end_sessions()

    def lose_ledgers(self) -> None:
        """Destroy the ledger under running sessions.

        What they had been granted comes on top of the limit then, for a while.
        """
        self._keep_sessions_up()
        _wait(lambda: all(one.outcomes or one.is_over for one in self._sessions))
        for damage in (self._delete_ledger, self._cut_ledger, self._garble_ledger):
            damage()
            time.sleep(_DAMAGE_PAUSE_S)
        self._end_sessions()

    def _end_sessions(self) -> None:
        """Kill them, and let one come after them, who clears up."""
        for session in self._sessions:
            session.kill()
            session.wait(_END_S)
        last = Session(self._dist, next(self._seeds))
        last.wait(_END_S)
        self._ended += (*self._sessions, last)
        self._sessions = []

    def _keep_sessions_up(self) -> None:
        for session in list(self._sessions):
            if session.is_over:
                self._sessions.remove(session)
                session.wait(_END_S)
                self._ended.append(session)
        while len(self._sessions) < SESSIONS:
            self._sessions.append(Session(self._dist, next(self._seeds)))

    def seen(self) -> Seen:
        """Tell about all sessions."""
        outcomes: dict[str, int] = {}
        for session in self._ended:
            for outcome, count in session.outcomes.items():
                # Who loses its file server reads nothing more; nor anything wrong.
                is_of_harm = session.is_harmed and not outcome.endswith(": wrong")
                if outcome == "ok" or not is_of_harm:
                    outcomes[outcome] = outcomes.get(outcome, 0) + count
        reads = outcomes.pop("ok", 0)
        messages = {m for session in self._ended for m in session.messages}
        return Seen(
            reads,
            outcomes,
            sorted(messages),
            LIMIT_MB << 20,
            self._largest,
            self._least_surplus,
            self._samples,
            self._harms,
            true_bytes(self._cache),
            [str(path) for path in self._cache.glob("txn/*")],
        )

    def checked(self, *words: str) -> Checked:
        """Return what ``cvmfs fsck`` and the ledger say."""
        done = subprocess.run(
            (str(_ROOT / "cvmfs"), "fsck", *words, str(self._cache)),
            capture_output=True,
            text=True,
            check=False,
        )
        with contextlib.closing(DirectoryStore.open(str(self._cache))) as store:
            return Checked(
                done.returncode,
                done.stdout + done.stderr,
                store.quota.cleanings_within(_DAY_S),
                store.quota.used_bytes(),
                true_bytes(self._cache),
            )

    # What is seen

    def _sample(self) -> None:
        """Look how much there is, and is said to be, again and again."""
        with contextlib.closing(DirectoryStore.open(str(self._cache))) as store:
            while not self._is_over.wait(_SAMPLE_PAUSE_S):
                there, told = bytes_at_one_moment(self._cache, store.quota.used_bytes)
                self._largest = max(self._largest, there)
                self._least_surplus = min(self._least_surplus, told - there)
                self._samples += 1

    # What is done

    def _kill_session(self) -> None:
        self._chance.choice(self._sessions).kill()

    def _kill_file_server(self) -> None:
        session = self._chance.choice(self._sessions)
        pid = session.file_server()
        if pid is not None:
            session.is_harmed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop_file_server(self) -> None:
        pid = self._chance.choice(self._sessions).file_server()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(self._chance.random())
                os.kill(pid, signal.SIGCONT)

    def _fill_disk(self) -> None:
        ballast = self._cache.parent / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(self._chance.random())
        ballast.unlink(missing_ok=True)

    def _use_up_inodes(self) -> None:
        directory = self._cache.parent / "inodes"
        with contextlib.suppress(OSError):
            directory.mkdir()
            for number in range(2 * DISK_INODES):
                os.close(os.open(directory / str(number), os.O_CREAT))
        time.sleep(self._chance.random())
        shutil.rmtree(directory, ignore_errors=True)

    def _delete_objects(self) -> None:
        names = list(sizes(self._cache))
        for path in self._chance.sample(names, min(20, len(names))):
            Path(path).unlink(missing_ok=True)

    def _delete_a_directory(self) -> None:
        shutil.rmtree(
            self._cache / f"{self._chance.randrange(256):02x}", ignore_errors=True
        )

    def _delete_ledger(self) -> None:
        (self._cache / FILE_NAME).unlink()

    def _cut_ledger(self) -> None:
        os.truncate(self._cache / FILE_NAME, self._chance.randrange(5000))

    def _garble_ledger(self) -> None:
        with contextlib.suppress(OSError):
            (self._cache / FILE_NAME).write_bytes(self._chance.randbytes(9000))

    def _litter_txn(self) -> None:
        with contextlib.suppress(OSError):
            (self._cache / "txn").mkdir(mode=0o700, exist_ok=True)
            (self._cache / f"txn/cvmfsexec.0{self._chance.random()}.0").touch()
        for path in self._cache.glob("txn/*"):
            if self._chance.random() < 0.5:
                path.unlink(missing_ok=True)


def _wait(is_done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _END_S
    while not is_done() and time.monotonic() < until_s:
        time.sleep(_SAMPLE_PAUSE_S)


def main(words: list[str]) -> None:
    """Run the stress, or be the payload of one of its sessions."""
    if words[0] == "read":
        read_at_random(words[1], int(words[2]))
        return
    dist, seconds, seed = words
    disk = Path(dist) / "var/lib/cvmfs"
    disk.mkdir(parents=True, exist_ok=True)
    options = f"size={DISK_BYTES},nr_inodes={DISK_INODES},mode=700"
    subprocess.run(
        ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)), check=True
    )
    stress = Stress(dist, float(seconds), int(seed))
    stress.run()
    after_all = stress.checked()
    stress.lose_ledgers()
    after_losses = stress.checked()
    mended = stress.checked("-p")
    report = {
        **stress.seen()._asdict(),
        "after_all": after_all._asdict(),
        "after_losses": after_losses._asdict(),
        "mended": mended._asdict(),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
