"""Ledgers of a cache: read, or refused; what was read can be written again."""

from cvmfsexec.cache.ledger_format import (
    Account,
    Summary,
    parse_accounts,
    parse_pins,
    serialize_pin,
)
from cvmfsexec.errors import FormatError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    for kind in (Summary, Account):
        try:
            record = kind.parse(data)
        except FormatError:
            continue
        assert kind.parse(record.serialize()) == record
    for account in parse_accounts(data)[0].values():
        assert Account.parse(account.serialize()) == account
    for pin in parse_pins(data):
        assert list(parse_pins(serialize_pin(pin))) == [pin]
