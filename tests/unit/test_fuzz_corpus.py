"""The fuzz targets, over their corpus and over mutations that never change.

``make fuzz`` does the same for longer and with other mutations each time.
"""

import itertools

import pytest

from fuzz.run import Target, discover, find_fault, mutations

MUTATION_COUNT = 300


@pytest.mark.parametrize("target", discover(), ids=lambda target: target.name)
def test_any_bytes_are_accepted_or_refused_by_our_own_error(target: Target) -> None:
    some = itertools.islice(mutations(target.seeds, seed=1), MUTATION_COUNT)
    for data in itertools.chain(target.seeds, some):
        fault = find_fault(target, data)
        assert fault is None, f"{data!r}\n{fault}"


def test_every_target_has_seeds() -> None:
    assert [target.name for target in discover() if len(target.seeds) < 2] == []


def test_a_finding_is_found() -> None:
    def refuse_newlines(data: bytes) -> None:
        if b"\n" in data:
            raise ValueError("a newline")

    target = Target("example", refuse_newlines, (b"one line",))
    faults = (find_fault(target, data) for data in mutations(target.seeds, seed=1))
    assert "a newline" in next(filter(None, itertools.islice(faults, 1000)))
