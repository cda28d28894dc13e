"""The machine with real Apptainer that tests of containers use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.apptainer import (
    Machine,
    apptainer_machine,
    bare_image,
    busybox_image,
    debian_image,
    musl_image,
)
from tests.support.installs import ordinary_uid

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with apptainer_machine() as made:
        yield made


@pytest.mark.parametrize(
    ("image", "words", "said"),
    [
        pytest.param(busybox_image, ("id", "-u"), f"{ordinary_uid()}\n", id="busybox"),
        pytest.param(
            debian_image, ("perl", "-e", "print $>"), f"{ordinary_uid()}", id="debian"
        ),
        pytest.param(musl_image, ("say", "/etc/issue"), "any image\n", id="musl"),
        pytest.param(bare_image, ("/say", "/etc/issue"), "any image\n", id="bare"),
    ],
)
def test_an_ordinary_user_runs_containers(
    machine: Machine, image: Callable[[], Path], words: tuple[str, ...], said: str
) -> None:
    done = machine.run("apptainer", "exec", str(image()), *words)
    assert (done.stdout, done.stderr) == (said, "")


def test_images_can_be_run_and_started(machine: Machine) -> None:
    image = str(busybox_image())
    assert machine.run("apptainer", "run", image, "echo", "ran").stdout == "ran\n"
    started = machine.run("apptainer", "instance", "start", image, "one")
    assert started.returncode == 0, started.stderr
    try:
        inside = machine.run("apptainer", "exec", "instance://one", "echo", "in")
        assert inside.stdout == "in\n"
    finally:
        machine.run("apptainer", "instance", "stop", "-F", "one")


def test_it_can_have_the_other_name() -> None:
    with apptainer_machine(program="singularity") as machine:
        assert machine.run("singularity", "version").returncode == 0
        assert machine.run("which", "apptainer").returncode == 1


def test_it_can_be_set_up_otherwise() -> None:
    image = str(busybox_image())
    line = ("apptainer", "exec", "--pid", image, "readlink", "/proc/self/ns/pid")
    ours = f"{os.readlink('/proc/self/ns/pid')}\n"
    with apptainer_machine() as machine:
        assert machine.run(*line).stdout != ours
    with apptainer_machine(settings={"allow pid ns": "no"}) as machine:
        assert machine.run(*line).stdout == ours
