from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.cache import ledger_format
from cvmfsexec.cache.ledger_format import (
    ACCOUNT_BYTES,
    ACCOUNTS_MAX,
    BYTES_MAX,
    CLEANINGS_MAX,
    NO_ACCOUNT,
    PIN_BYTES,
    PIN_PAGE_BYTES,
    PINS_MAX,
    PINS_START,
    SUMMARY_BYTES,
    Account,
    Summary,
    parse_accounts,
    parse_pins,
    serialize_pin,
    serialize_pins,
)
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from fuzz.fuzz_ledger import target

SIZES = st.integers(-BYTES_MAX, BYTES_MAX)
TIMES = st.integers(-(2**63), 2**63 - 1)
SUMMARIES = st.builds(
    Summary,
    SIZES,
    TIMES,
    TIMES,
    st.integers(0, ACCOUNTS_MAX),
    st.lists(TIMES, max_size=CLEANINGS_MAX).map(tuple),
    SIZES,
    TIMES,
    st.integers(0, 2**64 - 1),
)
ACCOUNTS = st.builds(Account, SIZES, SIZES, SIZES, SIZES)
HASHES = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm)
)


@given(SUMMARIES)
def test_a_written_summary_reads_back(summary: Summary) -> None:
    data = summary.serialize()
    assert len(data) == SUMMARY_BYTES <= ledger_format.ACCOUNTS_START
    assert Summary.parse(data + b"what follows") == summary


@given(ACCOUNTS)
def test_a_written_account_reads_back(account: Account) -> None:
    data = account.serialize()
    assert len(data) == ACCOUNT_BYTES
    assert Account.parse(data) == account


@given(st.lists(HASHES, max_size=PINS_MAX))
def test_written_pins_read_back(pins: list[ContentHash]) -> None:
    page = serialize_pins(pins)
    assert len(page) == PIN_PAGE_BYTES
    assert list(parse_pins(page)) == pins


@given(st.binary(max_size=SUMMARY_BYTES + 10))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    target(data)


@given(SUMMARIES, st.integers(0, SUMMARY_BYTES * 8 - 1))
def test_one_wrong_bit_of_a_summary_is_seen(summary: Summary, bit: int) -> None:
    data = bytearray(summary.serialize())
    data[bit // 8] ^= 1 << bit % 8
    try:
        Summary.parse(bytes(data))
    except FormatError:
        return
    raise AssertionError("it was believed")


@given(st.dictionaries(st.integers(0, 20), ACCOUNTS), st.integers(0, 20), st.binary())
def test_a_damaged_account_does_not_hide_the_others(
    accounts: dict[int, Account], damaged: int, damage: bytes
) -> None:
    records = [
        accounts[number].serialize() if number in accounts else NO_ACCOUNT
        for number in range(21)
    ]
    records[damaged] = (damage + bytes(ACCOUNT_BYTES))[:ACCOUNT_BYTES]
    accounts.pop(damaged, None)
    found, unread = parse_accounts(b"".join(records) + b"cut off")
    found.pop(damaged, None)
    assert found == accounts
    assert set(unread) <= {damaged}


def test_of_more_cleanings_than_there_is_room_for_the_last_are_kept() -> None:
    summary = Summary(1, cleaned_at_s=tuple(range(CLEANINGS_MAX + 5)))
    assert Summary.parse(summary.serialize()).cleaned_at_s[0] == 5


def test_numbers_that_no_cache_has_are_refused() -> None:
    for number in (BYTES_MAX + 1, -BYTES_MAX - 1):
        for record in (Summary(number), Account(0, 0, number)):
            try:
                type(record).parse(record.serialize())
            except FormatError:
                continue
            raise AssertionError("it was believed")


def test_the_parts_of_a_ledger_do_not_overlap() -> None:
    assert PINS_START == ledger_format.ACCOUNTS_START + ACCOUNTS_MAX * ACCOUNT_BYTES
    assert PINS_MAX * PIN_BYTES <= PIN_PAGE_BYTES
    assert serialize_pin(None) == bytes(PIN_BYTES)
