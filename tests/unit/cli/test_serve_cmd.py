import argparse
import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.cli import serve_cmd
from tests.support.published import publish_tree

PROGRAM = "import sys; from cvmfsexec.cli.main import main; main()"
STRUCK_IN_ANOTHER_THREAD = f"""
import signal, threading
strike = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Timer(0.5, strike).start()
{PROGRAM}
"""


def start(
    directory: Path, *options: str, program: str = PROGRAM
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, "serve", str(directory), "--port", "0"]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def fetch(url: str) -> bytes:
    _, _, host, path = url.split("/", 3)
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", f"/{path}")
    body = connection.getresponse().read()
    connection.close()
    return body


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serving_says_where_and_ends_by_a_signal(
    tmp_path: Path, ending: signal.Signals
) -> None:
    repository = publish_tree(tmp_path, {})
    with start(repository.output) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.endswith(f"/cvmfs/{repository.fqrn}")
        body = fetch(f"{url}/.cvmfspublished")
        assert body == (repository.directory / ".cvmfspublished").read_bytes()
        process.send_signal(ending)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_signal_that_interrupts_nothing_ends_it(tmp_path: Path) -> None:
    """As one that comes just before the main thread begins to wait."""
    repository = publish_tree(tmp_path, {})
    with start(repository.output, program=STRUCK_IN_ANOTHER_THREAD) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.endswith(f"/cvmfs/{repository.fqrn}\n")


def test_answers_are_told_on_request(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {})
    with start(repository.directory, "--verbose") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        fetch(f"{url}/.cvmfswhitelist")
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert f"GET '/cvmfs/{repository.fqrn}/.cvmfswhitelist' 200" in err


def test_a_directory_without_a_repository_is_one_sentence(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert err.startswith("cvmfs: there is no repository in ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "65536", "http", ""])
def test_a_wrong_port_is_a_usage_error(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    serve_cmd.configure(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([".", f"--port={port}"])
    assert "--port" in capsys.readouterr().err
