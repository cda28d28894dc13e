"""Feed every fuzz target its corpus, and then mutations of it.

Usage: ``python fuzz/run.py [--seconds N] [--seed N] [target ...]``

A target is a file ``fuzz/fuzz_<name>.py`` with a function ``target(data: bytes)``
that raises on a finding only; its seeds are the files in ``fuzz/corpus/<name>/``.
A finding is written to ``fuzz/findings/`` with its traceback beside it, and the exit
status is 1. What was found once becomes a seed: move it into the corpus.

The mutations know nothing of coverage, but they know the seeds: the parsers here are
small, and most of what is wrong with them shows within some ten thousand inputs.
"""

import argparse
import hashlib
import importlib.util
import itertools
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
FINDINGS = HERE / "findings"

INPUT_SECONDS_MAX = 10  # what takes longer hangs
INPUT_BYTES_MAX = 1 << 20
MUTATIONS_MAX = 6  # of one input

_TEXT_TOKENS = (b"\n", b"\r\n", b" ", b"-", b"--\n", b"/", b"../", b"%00", b"$(")
_NUMBER_TOKENS = (b"0", b"-1", b"1e9", b"nan", b"2147483648", b"18446744073709551616")
_BINARY_TOKENS = (b"\0", b"\xff", bytes(4), b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80")
_TOKENS = _TEXT_TOKENS + _NUMBER_TOKENS + _BINARY_TOKENS


class Target(NamedTuple):
    """One fuzz target.

    Attributes:
        name: What comes after ``fuzz_`` in its file's name.
        check: Raises on a finding.
        seeds: Its corpus, and the empty input.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


class Hang(BaseException):
    """An input took too long; no ``except Exception`` may swallow that."""


def discover(names: Sequence[str] = ()) -> list[Target]:
    """Return the targets of these names, or all there are."""
    if str(HERE.parent) not in sys.path:
        sys.path.insert(0, str(HERE.parent))
    wanted = names or [path.stem.removeprefix("fuzz_") for path in _target_files()]
    return [_load(name) for name in wanted]


def mutations(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield mutated seeds without end, the same ones for the same ``seed``."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable, not secret
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, MUTATIONS_MAX)):
            chance.choice(_MUTATORS)(data, chance, seeds)
        yield bytes(data[:INPUT_BYTES_MAX])


def find_fault(target: Target, data: bytes) -> str | None:
    """Return the traceback of a finding, or ``None``."""
    try:
        target.check(data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- whatever escapes is a finding
        return traceback.format_exc()
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets; return the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz/run.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60, help="for all targets")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="to repeat")
    parser.add_argument("target", nargs="*", help="e.g. manifest; default: all")
    options = parser.parse_args(arguments)

    targets = discover(options.target)
    signal.signal(signal.SIGALRM, _raise_hang)
    found = 0
    for target in targets:
        count, fault = _fuzz(target, options.seconds / len(targets), options.seed)
        _say(f"{target.name}: {count} inputs, {fault or 'nothing found'}")
        found += fault is not None
    return 1 if found else 0


def _fuzz(target: Target, seconds: float, seed: int) -> tuple[int, str | None]:
    """Return how many inputs were tried and where the finding is, if there is one."""
    end = time.monotonic() + seconds
    count = 0
    for data in itertools.chain(target.seeds, mutations(target.seeds, seed)):
        if count >= len(target.seeds) and time.monotonic() > end:
            break
        count += 1
        signal.alarm(INPUT_SECONDS_MAX)
        fault = find_fault(target, data)
        signal.alarm(0)
        if fault is not None:
            return count, _keep(target, data, fault)
    return count, None


def _keep(target: Target, data: bytes, fault: str) -> str:
    FINDINGS.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()[:12]
    path = FINDINGS / f"{target.name}-{digest}"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(fault)
    _say(fault)
    return f"FINDING in {path}"


def _target_files() -> list[Path]:
    return sorted(HERE.glob("fuzz_*.py"))


def _load(name: str) -> Target:
    path = HERE / f"fuzz_{name}.py"
    spec = importlib.util.spec_from_file_location(f"fuzz.{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        known = ", ".join(file.stem.removeprefix("fuzz_") for file in _target_files())
        raise SystemExit(f"no fuzz target {name!r}; there are {known}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    corpus = sorted((HERE / "corpus" / name).glob("*"))
    return Target(name, module.target, (b"", *(file.read_bytes() for file in corpus)))


def _raise_hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"more than {INPUT_SECONDS_MAX} s for one input")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _flip_bit(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_byte(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _insert_token(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(_TOKENS)


def _delete(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    start, end = _piece(data, chance)
    del data[start:end]


def _cut_off(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del data[chance.randint(0, len(data)) :]


def _repeat(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    start, end = _piece(data, chance)
    data[start:start] = data[start:end] * chance.choice((1, 1, 2, 50))


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    other = bytearray(chance.choice(seeds))
    start, end = _piece(other, chance)
    at, until = _piece(data, chance)
    data[at:until] = other[start:end]


def _piece(data: bytearray, chance: random.Random) -> tuple[int, int]:
    """Choose a slice, mostly a short one."""
    start = chance.randint(0, len(data))
    longest = chance.choice((4, 64, len(data)))
    return start, min(len(data), start + chance.randint(0, longest))


_MUTATORS = (
    _flip_bit,
    _set_byte,
    _insert_token,
    _delete,
    _cut_off,
    _repeat,
    _splice,
)


if __name__ == "__main__":
    sys.exit(main())
