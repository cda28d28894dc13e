import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.blacklist import EMPTY_BLACKLIST, Blacklist
from cvmfsexec.format.digest import ContentHash

ONE = "00112233445566778899aabbccddeeff00112233"
OTHER = "f0112233445566778899aabbccddeeff00112233"


@given(st.text(), st.text())
def test_any_text_is_a_blacklist_and_merging_only_adds(one: str, other: str) -> None:
    first, second = Blacklist.parse(one), Blacklist.parse(other)
    both = first.merge(second)
    assert both.fingerprints == first.fingerprints | second.fingerprints
    for fqrn, number in both.minimum_revisions.items():
        assert number == max(
            first.minimum_revision(fqrn), second.minimum_revision(fqrn)
        )


def test_fingerprints_are_read_as_on_a_whitelist() -> None:
    text = f"# stolen\n{ONE.upper()}  # by whom?\n{OTHER}-SHAKE128\nnonsense\n"
    assert Blacklist.parse(text).fingerprints == {
        ContentHash.parse(ONE),
        ContentHash.parse(f"{OTHER}-shake128"),
    }


@pytest.mark.parametrize(
    ("line", "minimum"),
    [
        ("<repo.example.org 12", 12),
        ("<repo.example.org \t 12 because", 12),
        ("<repo.example.org 0012", 12),
        ("<repo.example.org 18446744073709551615", 2**64 - 1),
        (" <repo.example.org 12", 0),
        ("< repo.example.org 12", 0),
        ("<repo.example.org", 0),
        ("<repo.example.org12", 0),
        ("<repo.example.org -12", 0),
        ("<other.example.org 12", 0),
        ("repo.example.org 12", 0),
        ("<repo.example.org " + "9" * 5000, 10**20 - 1),
        ("<repo.example.org " + "0" * 5000, 0),
    ],
)
def test_minimum_revisions_stand_behind_an_angle(line: str, minimum: int) -> None:
    assert Blacklist.parse(line).minimum_revision("repo.example.org") == minimum


def test_the_highest_minimum_counts() -> None:
    text = "<a.org 7\n<a.org 12\n<a.org 3\n"
    assert Blacklist.parse(text).minimum_revision("a.org") == 12


def test_merging_refuses_what_either_refuses() -> None:
    first = Blacklist.parse(f"{ONE}\n<a.org 3\n<b.org 5\n")
    second = Blacklist.parse(f"{OTHER}\n<a.org 4\n<c.org 6\n")
    assert first.merge(second) == second.merge(first)
    assert first.merge(second) == Blacklist(
        frozenset({ContentHash.parse(ONE), ContentHash.parse(OTHER)}),
        {"a.org": 4, "b.org": 5, "c.org": 6},
    )
    assert first.minimum_revisions == {"a.org": 3, "b.org": 5}


def test_the_empty_blacklist_refuses_nothing() -> None:
    assert Blacklist.parse("") == EMPTY_BLACKLIST
    assert EMPTY_BLACKLIST.minimum_revision("a.org") == 0
