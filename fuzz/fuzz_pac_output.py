"""Any output of an engine that a file took over is read, within limits."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.pac_answer import parse_pac_answer
from cvmfsexec.network.pac_evaluation import QUESTIONS_MAX, parse_output


def target(data: bytes) -> None:
    """Raise only on a finding."""
    answers, complaints = parse_output(data)
    assert len(answers) + len(complaints) <= QUESTIONS_MAX
    assert all(complaint.isprintable() for complaint in complaints)
    for answer in answers:
        assert "\n" not in answer
        try:
            parse_pac_answer(answer)
        except FormatError:
            continue
