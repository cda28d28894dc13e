"""A replica of repositories, served by a real nginx.

::

    with Nginx(repository.output) as replica:
        replica.url  # http://127.0.0.1:PORT, before /FQRN
        replica.corrupt()  # flips a byte of every object until heal()
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import give_to_ordinary_user
from tests.support.server_process import ServerProcess

_CONFIGURATION = """
daemon off;
master_process off;
pid {top}/pid;
error_log {top}/error.log;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
  log_format test '$status $request_method $request_uri by "$http_via"';
  access_log {top}/access.log test;
  client_body_temp_path {top}/t1;
  proxy_temp_path {top}/t2;
  fastcgi_temp_path {top}/t3;
  uwsgi_temp_path {top}/t4;
  scgi_temp_path {top}/t5;
  default_type application/octet-stream;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port};
    root {top}/served;
    expires 3d;
    location ~ /\\.cvmfs {{ expires 61s; }}
  }}
}}
"""


class Request(NamedTuple):
    """One line of the access log.

    Attributes:
        status: What it was answered with.
        path: What was asked for.
        is_direct: Whether no proxy was in between.
    """

    status: int
    path: str
    is_direct: bool

    @property
    def is_object(self) -> bool:
        """Whether it is about something immutable."""
        return "/data/" in self.path


class Nginx(ServerProcess):
    """A running nginx with a copy of a tree of its own.

    Args:
        tree: Copied, so that it can be damaged.
    """

    program = "nginx"

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self._tree = tree
        self._served = self.directory / "served"
        self._is_corrupt = False
        self._copy()

    @property
    def url(self) -> str:
        """Base URL, without the name of a repository."""
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        """See ``ServerProcess``."""
        text = _CONFIGURATION.format(top=self.directory, port=self.port)
        (self.directory / "nginx.conf").write_text(text)

    def command(self) -> tuple[str, ...]:
        """See ``ServerProcess``."""
        top = self.directory
        return ("-c", f"{top}/nginx.conf", "-e", f"{top}/error.log")

    def object_paths(self) -> list[str]:
        """Return the paths of all immutable objects."""
        found = self._served.glob("*/data/??/*")
        return [f"/{path.relative_to(self._served)}" for path in found]

    def corrupt(self) -> None:
        """Change the last byte of every object."""
        self._is_corrupt = True
        for path in self._served.glob("*/data/??/*"):
            content = path.read_bytes()
            # In place, with the old time: a cache that asks is told "not modified".
            with path.open("r+b") as file:
                times = path.stat()
                file.seek(len(content) - 1)
                file.write(bytes([content[-1] ^ 0xFF]))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def heal(self) -> None:
        """See ``ServerProcess``."""
        super().heal()
        if self._is_corrupt:
            self._is_corrupt = False
            self._copy()

    def requests(self) -> list[Request]:
        """Return what was asked for since ``forget_requests``."""
        return [_parse(line) for line in self.lines("access.log")]

    def objects(self) -> list[str]:
        """Return the paths of immutable objects that were delivered."""
        return [
            request.path
            for request in self.requests()
            if request.is_object and request.status == 200
        ]

    def forget_requests(self) -> None:
        """Empty the access log."""
        os.truncate(self.directory / "access.log", 0)

    def _copy(self) -> None:
        shutil.copytree(self._tree, self._served, dirs_exist_ok=True)
        give_to_ordinary_user(self._served)


def _parse(line: str) -> Request:
    status, _, path, _, via = line.split(" ", 4)
    return Request(int(status), path, is_direct=via == '"-"')
