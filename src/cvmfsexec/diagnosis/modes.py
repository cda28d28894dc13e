"""Which of the four ways to mount repositories work here, and why the others do not."""

from collections.abc import Mapping
from typing import NamedTuple

from cvmfsexec.apptainer import trial
from cvmfsexec.apptainer.program import PROGRAMS, ContainerProgram
from cvmfsexec.diagnosis.finding import Finding, State
from cvmfsexec.namespaces import probe
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.probe import Trial

_NAMESPACES = (probe.USER_NAMESPACE, probe.PAYLOAD_NAMESPACE, probe.PRIVATE_ROOT)
_NEEDED = {
    3: (*_NAMESPACES, probe.FUSE_MOUNT),
    2: (*_NAMESPACES, probe.FUSERMOUNT),
    1: (probe.FUSERMOUNT,),
}
"""What each mode consists of; the best mode for a command comes first."""

_NAMES = {
    1: "mountrepo: fusermount mounts below dist/cvmfs",
    2: "cvmfsexec: fusermount mounts, a namespace shows it at /cvmfs",
    3: "cvmfsexec: all in namespaces, without any helper",
    4: "singcvmfs: Apptainer mounts, in its containers",
}

_INSTEAD = "start it in a session: cvmfsexec … -- apptainer exec --userns -B /cvmfs …"


class Mode(NamedTuple):
    """One of the four ways.

    Attributes:
        number: As ``--mode`` takes it.
        name: What it is.
        works: Whether it does here.
        reason: Why not.
        hint: What the user can do about it.
    """

    number: int
    name: str
    works: bool
    reason: str = ""
    hint: str = ""


class Verdict(NamedTuple):
    """What can be used here.

    Attributes:
        modes: All four, by number.
        best: What ``cvmfsexec`` would use: 3, 2, or 0 if neither works.
        has_pid_namespace: Whether sessions end by the end of a pid namespace.
    """

    modes: tuple[Mode, ...]
    best: int
    has_pid_namespace: bool


def examine_modes(
    search_path: str, directory: str, program: ContainerProgram | None
) -> Verdict:
    """Try all modes.

    Args:
        search_path: Value of ``$PATH``.
        directory: Where the user can make directories to mount on.
        program: What runs containers; ``None`` without.
    """
    trials = probe.try_namespaces()
    trials[probe.FUSERMOUNT] = probe.try_fusermount(Fusermount(search_path), directory)
    if program is not None:
        trials[trial.SUBJECT] = trial.try_container(program, directory)
    return judge(trials)


def judge(trials: Mapping[str, Trial]) -> Verdict:
    """Conclude from trials which modes work."""
    modes = [_judge_one(number, trials) for number in _NEEDED]
    best = next((mode.number for mode in modes if mode.works and mode.number > 1), 0)
    modes.append(_container_mode(trials.get(trial.SUBJECT)))
    proc = trials.get(probe.NEW_PROC)
    return Verdict(
        tuple(sorted(modes)), best, has_pid_namespace=proc is not None and proc.works
    )


def findings(verdict: Verdict) -> list[Finding]:
    """Tell a verdict in findings: a mode that is missing is no failure if one works."""
    found = [_finding(mode) for mode in verdict.modes]
    if not verdict.best:
        found.append(
            Finding(
                "cvmfsexec",
                State.FAILURE,
                "no command can be run with repositories at /cvmfs here",
                next(mode.hint for mode in verdict.modes if mode.number == 3),
            )
        )
    elif not verdict.has_pid_namespace:
        found.append(
            Finding(
                "cvmfsexec",
                State.NOTE,
                "/proc is partly covered, as in most containers: sessions have no pid "
                "namespace, and end their processes one by one",
            )
        )
    return found


def _judge_one(number: int, trials: Mapping[str, Trial]) -> Mode:
    for subject in _NEEDED[number]:
        trial = trials.get(subject)
        if trial is None:  # not tried, as something before it failed
            return Mode(number, _NAMES[number], works=False, reason=f"no {subject}")
        if not trial.works:
            return Mode(
                number,
                _NAMES[number],
                works=False,
                reason=trial.reason,
                hint=trial.hint,
            )
    return Mode(number, _NAMES[number], works=True)


def _container_mode(tried: Trial | None) -> Mode:
    if tried is None:
        reason = f"there is no {' and no '.join(PROGRAMS)} in PATH"
        return Mode(4, _NAMES[4], works=False, reason=reason)
    hint = "" if tried.works else _INSTEAD
    return Mode(4, _NAMES[4], tried.works, tried.reason, hint)


def _finding(mode: Mode) -> Finding:
    subject = f"mode {mode.number}"
    if mode.works:
        return Finding(subject, State.GOOD, mode.name)
    return Finding(subject, State.NOTE, f"{mode.name}: {mode.reason}", mode.hint)
