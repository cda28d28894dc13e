"""Whose files are: claimed, mapped, or as published, inside a namespace and outside."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.client.ownership import UNMAPPED_ID, Identity, shown_id

ME = 1000
OUTSIDE = Identity.outside(ME)
INSIDE = Identity(host=ME, namespace=0, is_confined=True)

PUBLISHED = st.integers(0, 2**32 - 1)


def to_me(_published: int) -> int:
    return ME


def plus_one(published: int) -> int:
    return published + 1


@given(PUBLISHED)
def test_what_is_claimed_is_the_users(published: int) -> None:
    for wanted in (None, plus_one):
        assert shown_id(OUTSIDE, wanted, claims=True)(published) == ME
        assert shown_id(INSIDE, wanted, claims=True)(published) == 0


@pytest.mark.parametrize(
    ("identity", "wanted", "published", "shown"),
    [
        (OUTSIDE, None, ME, ME),
        (OUTSIDE, None, 0, 0),
        (OUTSIDE, None, 7, 7),
        (OUTSIDE, plus_one, 7, 8),
        (OUTSIDE, to_me, 7, ME),
        (INSIDE, None, ME, 0),
        (INSIDE, None, 0, UNMAPPED_ID),
        (INSIDE, None, 7, UNMAPPED_ID),
        (INSIDE, plus_one, ME - 1, 0),
        (INSIDE, plus_one, ME, UNMAPPED_ID),
        (INSIDE, to_me, 7, 0),
    ],
)
def test_owners_are_shown_as_far_as_the_namespace_has_numbers(
    identity: Identity,
    wanted: Callable[[int], int] | None,
    published: int,
    shown: int,
) -> None:
    assert shown_id(identity, wanted, claims=False)(published) == shown


@given(PUBLISHED)
def test_nobody_else_becomes_root_of_the_namespace(published: int) -> None:
    shown = shown_id(INSIDE, None, claims=False)(published)
    assert (shown == 0) == (published == ME)


@given(PUBLISHED)
def test_a_namespace_shows_numbers_that_it_has(published: int) -> None:
    assert shown_id(INSIDE, plus_one, claims=False)(published) in (0, UNMAPPED_ID)
