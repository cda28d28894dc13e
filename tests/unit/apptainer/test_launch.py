"""What is bound into a container, and where file servers run."""

import os
from pathlib import Path

import pytest

from cvmfsexec.apptainer import launch
from cvmfsexec.apptainer.command_line import parse
from cvmfsexec.apptainer.composition import ServerKind
from cvmfsexec.apptainer.launch import CacheImage, Order, compose, decide_kind
from cvmfsexec.apptainer.program import ContainerProgram
from cvmfsexec.configuration.evaluate import Configuration, begin
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.fusemount.handover import take
from tests.support.configuration import make_dist

FQRN = "a.example.org"
APPTAINER = ContainerProgram("/bin/apptainer", is_apptainer=True)
OLD = "#!/bin/sh\necho 3.5.2\n"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that seems to be the one that we run from."""
    top = tmp_path / "runtime"
    (top / "lib").mkdir(parents=True)
    (top / "lib/ld-linux-x86-64.so.2").touch()
    monkeypatch.setattr(launch, "runtime_directory", lambda: str(top))
    return top


def order(**fields: object) -> Order:
    line = parse(("exec", "img", "ls"))
    made = Order(APPTAINER, line, (), {}, "/bin/singcvmfs")
    return made._replace(**fields)  # type: ignore[arg-type]


def configuration(directory: Path, **values: str) -> Configuration:
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    root = make_dist(directory, {"default.local": lines, "keys/a.pub": ""})
    return begin(FQRN, root, {}).finish(None)


def place(directory: Path) -> str:
    made = directory / "place"
    made.mkdir()
    return str(made)


def binds_in(words: tuple[str, ...]) -> set[str]:
    return {words[n + 1] for n, word in enumerate(words) if word == "-B"}


def old_program(directory: Path) -> ContainerProgram:
    path = directory / "singularity"
    path.write_text(OLD)
    path.chmod(0o755)
    return ContainerProgram(str(path), is_apptainer=False)


def test_file_servers_run_on_the_host_if_they_can() -> None:
    assert decide_kind(order()).kind is ServerKind.HOST


@pytest.mark.usefixtures("runtime")
def test_for_a_cache_image_they_run_in_the_container() -> None:
    image = CacheImage("/image", "/")
    assert decide_kind(order(image=image)).kind is ServerKind.CONTAINER
    with pytest.raises(ConfigurationError, match="seen in the container only"):
        decide_kind(order(image=image, kind=ServerKind.HOST))


@pytest.mark.usefixtures("runtime")
def test_for_an_old_program_they_run_in_the_container(tmp_path: Path) -> None:
    program = old_program(tmp_path)
    assert decide_kind(order(program=program)).kind is ServerKind.CONTAINER
    with pytest.raises(ConfigurationError, match="too old"):
        decide_kind(order(program=program, kind=ServerKind.HOST))


def test_without_the_bundle_they_cannot_run_in_a_container() -> None:
    with pytest.raises(ConfigurationError, match="makedist -s -o FILE"):
        decide_kind(order(kind=ServerKind.CONTAINER))


def test_on_the_host_nothing_is_bound(tmp_path: Path) -> None:
    wanted = order(kind=ServerKind.HOST)
    words = compose(wanted, (configuration(tmp_path),), place(tmp_path))
    assert binds_in(words) == set()


def test_in_the_container_what_is_needed_is_bound(
    tmp_path: Path, runtime: Path
) -> None:
    cache, key = tmp_path / "elsewhere/cache", tmp_path / "key.pub"
    proxy = tmp_path / "proxy"
    for file in (key, proxy):
        file.touch()
    one = configuration(
        tmp_path, CVMFS_CACHE_BASE=str(cache), CVMFS_PUBLIC_KEY=str(key)
    )
    wanted = order(
        kind=ServerKind.CONTAINER, environment={"X509_USER_PROXY": str(proxy)}
    )
    top = place(tmp_path)
    words = compose(wanted, (one,), top)
    assert binds_in(words) == {
        f"{runtime}:/.singcvmfs:ro",
        f"{top}:{top}",
        f"{tmp_path}/log:{tmp_path}/log",
        f"{tmp_path}/dist/etc/cvmfs:{tmp_path}/dist/etc/cvmfs:ro",
        f"{cache}:{cache}",
        f"{key}:{key}:ro",
        f"{proxy}:{proxy}:ro",
    }
    assert cache.is_dir()


@pytest.mark.usefixtures("runtime")
def test_of_a_cache_image_a_directory_is_bound(tmp_path: Path) -> None:
    wanted = order(kind=ServerKind.CONTAINER, image=CacheImage("/image", "/top"))
    top = place(tmp_path)
    words = compose(wanted, (configuration(tmp_path),), top)
    assert "/image:/var/lib/cvmfs:image-src=/top" in binds_in(words)
    told = take(os.path.join(top, FQRN))
    assert told.configuration.resolve_path("/var/lib/cvmfs/x") == "/var/lib/cvmfs/x"
    assert told.configuration.boolean("CVMFS_SHARED_CACHE", default=False)
