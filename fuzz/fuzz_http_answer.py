"""Any header lines are judged; who is to blame depends on them, but nothing breaks.

The first two bytes are the status, each further line is one line of the header.
"""

from cvmfsexec.network.failure import Blame, failure_of_answer
from cvmfsexec.network.transport import Answer


def target(data: bytes) -> None:
    """Raise only on a finding."""
    status = int.from_bytes(data[:2], "big") % 1000
    answer = Answer(status, data[2:].splitlines(keepends=True))
    for via_proxy in (False, True):
        failure = failure_of_answer(answer, via_proxy=via_proxy)
        assert (failure is None) == (200 <= status < 300)
        if failure is not None:
            assert failure.text.isprintable()
            assert via_proxy or failure.blame is Blame.HOST
