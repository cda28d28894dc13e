"""What every ``ObjectStore`` promises, as claims that are run against each kind.

A claim is a function that takes a new, empty store. Use::

    @pytest.mark.parametrize("claim", STORE_CLAIMS, ids=claim_name)
    def test_keeps_the_promise(claim, store): claim(store)
"""

import os
import threading
from collections.abc import Callable

import pytest

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.descriptors import open_descriptors

CONTENT = b"what a catalog or a file holds\n"
NAME = ContentHash.of(b"its stored form")

Claim = Callable[[ObjectStore], None]


def put(store: ObjectStore, name: ContentHash, content: bytes) -> int:
    """Store an object and return the descriptor that commit gave."""
    with store.transaction() as transaction:
        transaction.write(content)
        return transaction.commit(name)


def keep(store: ObjectStore) -> None:
    """Store the object, and open nothing."""
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        assert transaction.keep(NAME)


def content_of(descriptor: int | None) -> bytes:
    """Read a whole object and close it."""
    assert descriptor is not None
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def _absent_object_is_none(store: ObjectStore) -> None:
    assert store.open_object(NAME) is None
    assert not store.has(NAME)


def _committed_object_can_be_opened(store: ObjectStore) -> None:
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert store.has(NAME)
    assert content_of(store.open_object(NAME)) == CONTENT


def _kept_object_can_be_opened(store: ObjectStore) -> None:
    keep(store)
    keep(store)  # the first may open what the store writes to
    before = open_descriptors()
    keep(store)
    opened = open_descriptors() - before
    assert not opened
    assert content_of(store.open_object(NAME)) == CONTENT


def _empty_object_can_be_stored(store: ObjectStore) -> None:
    assert content_of(put(store, NAME, b"")) == b""
    assert content_of(store.open_object(NAME)) == b""


def _pieces_are_joined_in_order(store: ObjectStore) -> None:
    with store.transaction() as transaction:
        for piece in (b"one ", bytearray(b"two "), b"", b"x" * 300_000):
            transaction.write(piece)
        descriptor = transaction.commit(NAME)
    assert content_of(descriptor) == b"one two " + b"x" * 300_000


def _uncommitted_object_is_invisible(store: ObjectStore) -> None:
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        assert store.open_object(NAME) is None
    assert store.open_object(NAME) is None


def _aborted_object_is_forgotten(store: ObjectStore) -> None:
    transaction = store.transaction()
    transaction.write(CONTENT)
    transaction.abort()
    transaction.abort()
    assert not store.has(NAME)


def _error_inside_a_transaction_forgets_it(store: ObjectStore) -> None:
    def write_and_fail() -> None:
        with store.transaction() as transaction:
            transaction.write(CONTENT)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_and_fail()
    assert not store.has(NAME)


def _abort_after_commit_changes_nothing(store: ObjectStore) -> None:
    transaction = store.transaction()
    transaction.write(CONTENT)
    descriptor = transaction.commit(NAME)
    transaction.abort()
    assert content_of(descriptor) == CONTENT
    assert store.has(NAME)


def _storing_an_equal_object_again_changes_nothing(store: ObjectStore) -> None:
    first = put(store, NAME, CONTENT)
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert content_of(store.open_object(NAME)) == CONTENT
    assert content_of(first) == CONTENT


def _a_damaged_object_can_be_removed_and_stored_anew(store: ObjectStore) -> None:
    torn = put(store, NAME, CONTENT[:5])
    store.remove(NAME)
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert content_of(store.open_object(NAME)) == CONTENT
    assert content_of(torn) == CONTENT[:5]


def _removed_object_is_gone_but_stays_readable(store: ObjectStore) -> None:
    descriptor = put(store, NAME, CONTENT)
    store.remove(NAME)
    store.remove(NAME)
    assert store.open_object(NAME) is None
    assert content_of(descriptor) == CONTENT


def _algorithms_do_not_share_names(store: ObjectStore) -> None:
    names = [NAME._replace(algorithm=algorithm) for algorithm in HashAlgorithm]
    for number, name in enumerate(names):
        os.close(put(store, name, b"%d" % number))
    assert [content_of(store.open_object(name)) for name in names] == [b"0", b"1", b"2"]


def _descriptors_are_not_inherited(store: ObjectStore) -> None:
    committed = put(store, NAME, CONTENT)
    opened = store.open_object(NAME)
    assert opened is not None
    assert not os.get_inheritable(committed)
    assert not os.get_inheritable(opened)
    os.close(committed)
    os.close(opened)


def _threads_can_write_one_object_at_once(store: ObjectStore) -> None:
    content = CONTENT * 10_000
    seen: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: seen.append(content_of(put(store, NAME, content)))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [content] * 8
    assert content_of(store.open_object(NAME)) == content


def _a_claim_is_ours_where_nobody_else_wants_the_object(store: ObjectStore) -> None:
    for _ in range(2):
        with store.claim(NAME, patience_s=0) as is_ours:
            assert is_ours


def _an_object_can_be_stored_with_the_claim_on_it(store: ObjectStore) -> None:
    with store.claim(NAME, patience_s=60):
        os.close(put(store, NAME, CONTENT))
        assert content_of(store.open_object(NAME)) == CONTENT
    assert content_of(store.open_object(NAME)) == CONTENT


def _the_claim_ends_with_an_error(store: ObjectStore) -> None:
    def claim_and_fail() -> None:
        with store.claim(NAME, patience_s=0):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        claim_and_fail()
    with store.claim(NAME, patience_s=0) as is_ours:
        assert is_ours


def _usage_is_that_of_few_objects_or_unknown(store: ObjectStore) -> None:
    os.close(put(store, NAME, CONTENT))
    assert store.used_bytes() in (None, len(CONTENT))


def _a_pinned_object_can_be_stored_opened_and_removed(store: ObjectStore) -> None:
    pin = store.pin(NAME)
    os.close(put(store, NAME, CONTENT))
    assert content_of(store.open_object(NAME)) == CONTENT
    store.remove(NAME)
    assert not store.has(NAME)
    pin.release()
    pin.release()


STORE_CLAIMS: tuple[Claim, ...] = (
    _absent_object_is_none,
    _committed_object_can_be_opened,
    _kept_object_can_be_opened,
    _empty_object_can_be_stored,
    _pieces_are_joined_in_order,
    _uncommitted_object_is_invisible,
    _aborted_object_is_forgotten,
    _error_inside_a_transaction_forgets_it,
    _abort_after_commit_changes_nothing,
    _storing_an_equal_object_again_changes_nothing,
    _a_damaged_object_can_be_removed_and_stored_anew,
    _removed_object_is_gone_but_stays_readable,
    _algorithms_do_not_share_names,
    _descriptors_are_not_inherited,
    _threads_can_write_one_object_at_once,
    _a_claim_is_ours_where_nobody_else_wants_the_object,
    _an_object_can_be_stored_with_the_claim_on_it,
    _the_claim_ends_with_an_error,
    _usage_is_that_of_few_objects_or_unknown,
    _a_pinned_object_can_be_stored_opened_and_removed,
)


def claim_name(claim: Claim) -> str:
    """Return the name of a claim for the test's id."""
    return claim.__name__.strip("_")
