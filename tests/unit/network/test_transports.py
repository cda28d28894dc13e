import os
from collections.abc import Iterator, Mapping

import pytest

from cvmfsexec.network.default_transport import DefaultTransport
from cvmfsexec.network.local_transport import LocalTransport
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import FaultKind, Transport, TransportFault
from tests.support.memory_transport import MemoryTransport
from tests.support.transport_contract import (
    Serve,
    TransportContract,
    request,
    served_over_http,
    unexpected,
)

SETTINGS = NetworkSettings(servers=("http://unused.example.org",))


class TestTransportOverHttp(TransportContract):
    @pytest.fixture
    def serve(self) -> Iterator[Serve]:
        with served_over_http(lambda: DefaultTransport(SETTINGS)) as serve:
            yield serve


class TestTransportFromDirectory(TransportContract):
    @pytest.fixture
    def serve(self, tmp_path: os.PathLike[str]) -> Serve:
        def write(files: Mapping[str, bytes]) -> tuple[Transport, str]:
            for name, content in files.items():
                path = os.fspath(tmp_path) + name
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(content)
            return DefaultTransport(SETTINGS), f"file://{os.fspath(tmp_path)}"

        return write


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def serve(self) -> Serve:
        def keep(files: Mapping[str, bytes]) -> tuple[Transport, str]:
            base = "http://memory.example.org"
            return MemoryTransport({base + k: v for k, v in files.items()}), base

        return keep


def test_local_path_cannot_climb_out() -> None:
    with pytest.raises(TransportFault) as caught:
        LocalTransport().get(request("file:///srv/%2e./etc/passwd"), unexpected)
    assert caught.value.kind is FaultKind.OTHER


@pytest.mark.parametrize("name", ["/", "/%00"])
def test_local_path_that_is_no_file_is_a_fault_of_the_host(
    tmp_path: os.PathLike[str], name: str
) -> None:
    url = f"file://{os.fspath(tmp_path)}{name}"
    with pytest.raises(TransportFault) as caught:
        LocalTransport().get(request(url), unexpected)
    assert caught.value.kind is FaultKind.HOST_CONNECTION


def test_local_pipe_is_not_waited_for(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "pipe")
    os.mkfifo(path)
    with pytest.raises(TransportFault, match="not a regular file"):
        LocalTransport().get(request(f"file://{path}"), unexpected)


def test_escaped_names_are_found(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "a b%"), "wb") as file:
        file.write(b"x")
    pieces: list[bytes] = []
    url = f"file://{os.fspath(tmp_path)}/a%20b%25"
    LocalTransport().get(request(url), pieces.append)
    assert pieces == [b"x"]
