"""A payload that reads the files named on its standard input, a few at a time.

For each it writes a line, ``PATH OUTCOME``: ``ok``, ``wrong``, or the name of an errno.
What a file must hold follows from its name (``content_of``).
"""

import errno
import os
import random
import sys
import threading

THREADS = 4
LONG = "long"
"""How the paths of files begin whose transfer takes a while."""

_LARGE_EVERY = 10

_input = threading.Lock()


def content_of(path: str) -> bytes:
    """Return what the file of a path holds; bytes that do not compress."""
    number = int("".join(filter(str.isdecimal, path)))
    if path.startswith(LONG):
        size_bytes = 1_000_000
    else:
        size_bytes = 40_000 if number % _LARGE_EVERY == 0 else 1_500
    return random.Random(path).randbytes(size_bytes)  # noqa: S311


def main(top: str) -> None:
    """Read until the input ends."""
    threads = [
        threading.Thread(target=_read_files, args=(top,)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read_files(top: str) -> None:
    while path := _next_path():
        os.write(1, f"{path} {_outcome(top, path)}\n".encode())


def _next_path() -> str:
    with _input:
        return sys.stdin.readline().strip()


def _outcome(top: str, path: str) -> str:
    try:
        with open(f"{top}/{path}", "rb") as file:
            return "ok" if file.read() == content_of(path) else "wrong"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")


if __name__ == "__main__":
    main(sys.argv[1])
