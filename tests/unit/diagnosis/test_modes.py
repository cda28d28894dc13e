"""What is concluded from what the kernel allowed."""

import pytest

from cvmfsexec.apptainer import trial
from cvmfsexec.diagnosis import modes
from cvmfsexec.diagnosis.finding import State
from cvmfsexec.namespaces import probe
from cvmfsexec.namespaces.probe import Trial

ALL = (
    probe.USER_NAMESPACE,
    probe.PAYLOAD_NAMESPACE,
    probe.PRIVATE_ROOT,
    probe.FUSE_MOUNT,
    probe.NEW_PROC,
    probe.FUSERMOUNT,
)


def trials(*failing: str, untried: tuple[str, ...] = ()) -> dict[str, Trial]:
    return {
        subject: Trial(subject, works=False, reason=f"no {subject}!", hint="do this")
        if subject in failing
        else Trial(subject, works=True)
        for subject in ALL
        if subject not in untried
    }


@pytest.mark.parametrize(
    ("failing", "untried", "working", "best"),
    [
        ((), (), {1, 2, 3}, 3),
        ((probe.FUSE_MOUNT,), (), {1, 2}, 2),
        ((probe.FUSERMOUNT,), (), {3}, 3),
        ((probe.FUSE_MOUNT, probe.FUSERMOUNT), (), set(), 0),
        ((probe.USER_NAMESPACE,), ALL[1:5], {1}, 0),
        ((probe.PAYLOAD_NAMESPACE,), (), {1}, 0),
        ((probe.PRIVATE_ROOT,), ALL[3:5], {1}, 0),
        ((probe.NEW_PROC,), (), {1, 2, 3}, 3),
    ],
    ids=[
        "all works",
        "no FUSE in namespaces",
        "no fusermount",
        "no FUSE at all",
        "no user namespaces",
        "no second user namespace",
        "no mounts",
        "masked proc",
    ],
)
def test_the_best_mode_that_works_is_taken(
    failing: tuple[str, ...], untried: tuple[str, ...], working: set[int], best: int
) -> None:
    verdict = modes.judge(trials(*failing, untried=untried))
    assert {mode.number for mode in verdict.modes if mode.works} == working
    assert verdict.best == best


def test_a_mode_that_fails_says_why_and_what_to_do() -> None:
    verdict = modes.judge(trials(probe.FUSE_MOUNT))
    three = next(mode for mode in verdict.modes if mode.number == 3)
    assert (three.reason, three.hint) == ("no FUSE mount in it!", "do this")


def test_what_was_not_tried_is_not_said_to_work() -> None:
    verdict = modes.judge({})
    assert not any(mode.works for mode in verdict.modes)
    assert not verdict.has_pid_namespace


def test_a_missing_mode_is_a_failure_only_if_no_other_works() -> None:
    fine = modes.findings(modes.judge(trials(probe.FUSE_MOUNT)))
    assert State.FAILURE not in {one.state for one in fine}
    bad = modes.findings(modes.judge(trials(probe.PRIVATE_ROOT)))
    (failure,) = [one for one in bad if one.state is State.FAILURE]
    assert failure.hint == "do this"


def test_a_covered_proc_is_worth_a_note() -> None:
    found = modes.findings(modes.judge(trials(probe.NEW_PROC)))
    assert any("partly covered" in one.text for one in found)


@pytest.mark.parametrize(
    ("tried", "works", "reason"),
    [
        (None, False, "there is no singularity and no apptainer in PATH"),
        (Trial(trial.SUBJECT, works=True), True, ""),
        (Trial(trial.SUBJECT, works=False, reason="forbidden"), False, "forbidden"),
    ],
    ids=["absent", "good", "forbidden"],
)
def test_a_container_that_was_started_tells_of_mode_four(
    *, tried: Trial | None, works: bool, reason: str
) -> None:
    made = trials()
    if tried is not None:
        made[trial.SUBJECT] = tried
    verdict = modes.judge(made)
    four = verdict.modes[-1]
    assert (four.number, four.works, four.reason) == (4, works, reason)
    assert bool(four.hint) is (tried is not None and not works)
    assert verdict.best == 3
