"""Web servers for the benchmarks: nginx if it is there, else our own; near or far."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

_START_S = 10
_LOOPBACK = "127.0.0.1"

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {scratch}/pid;
error_log {scratch}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 1000000;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{
    listen {address};
    location /cvmfs/ {{ alias {served}/; }}
  }}
}}
"""


class Servers(NamedTuple):
    """A site on the network.

    Attributes:
        name: The web server: ``nginx`` or ``cvmfs serve``.
        near: Base URL without delay.
        far: The same server, a round trip away.
    """

    name: str
    near: str
    far: str


@contextmanager
def serving(
    served: Path, scratch: Path, cvmfs: Path, round_trip_s: float
) -> Iterator[Servers]:
    """Serve a site on loopback while the block runs.

    Args:
        served: Directory that appears below ``/cvmfs``.
        scratch: Where a server may keep its files.
        cvmfs: Our program, which serves if there is no nginx.
        round_trip_s: How far away the far one is.
    """
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    with ExitStack() as stack:
        if nginx is not None:
            name = "nginx"
            port = stack.enter_context(_nginx(nginx, served, scratch))
        else:
            name = "cvmfs serve"
            words = [str(cvmfs), "serve", str(served), "--port", "0"]
            port = stack.enter_context(_announced(words))
        words = [sys.executable, "-m", "bench.latency", str(port), str(round_trip_s)]
        far_port = stack.enter_context(_announced(words))
        yield Servers(
            name, f"http://{_LOOPBACK}:{port}", f"http://{_LOOPBACK}:{far_port}"
        )


@contextmanager
def _nginx(program: str, served: Path, scratch: Path) -> Iterator[int]:
    home = scratch / "nginx"
    home.mkdir()
    with socket.create_server((_LOOPBACK, 0)) as found:
        port: int = found.getsockname()[1]
    # As root it would read the files as somebody who may not.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = home / "nginx.conf"
    address = f"{_LOOPBACK}:{port}"
    configuration.write_text(
        _NGINX.format(user=user, scratch=home, address=address, served=served)
    )
    words = [program, "-p", str(home), "-c", str(configuration)]
    words += ["-e", str(home / "error.log")]
    with subprocess.Popen(words) as server:
        try:
            _wait_for(port, server)
            yield port
        finally:
            server.terminate()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection((_LOOPBACK, port)).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nginx does not start") from None
            time.sleep(0.01)
        else:
            return


@contextmanager
def _announced(words: list[str]) -> Iterator[int]:
    """Run a server that prints its port, or a URL with it, as its first line."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None:
                raise RuntimeError("no pipe to the server")
            address = server.stdout.readline().split()[-1]
            yield int(address.partition("/cvmfs/")[0].rpartition(":")[2])
        finally:
            server.terminate()
