from cvmfsexec.network.statistics import (
    FAILURES_KEPT_MAX,
    RouteFailure,
    TransferAccount,
    TransferStatistics,
)


def failure(number: int) -> RouteFailure:
    return RouteFailure(float(number), "http://h0", "DIRECT", "HTTP status 500")


def test_transfers_are_summed() -> None:
    account = TransferAccount()
    account.count(1000, 0.5)
    account.count(24, 0.25, failure(1))
    assert account.sums == TransferStatistics(1, 1024, 0.75, 1)
    assert account.failures() == (failure(1),)


def test_only_the_last_failures_are_kept() -> None:
    account = TransferAccount()
    for number in range(FAILURES_KEPT_MAX + 10):
        account.count(0, 0.0, failure(number))
    kept = account.failures()
    assert [one.at_s for one in kept] == [float(n) for n in range(10, 60)]
    assert account.sums.failed_attempts == 60
