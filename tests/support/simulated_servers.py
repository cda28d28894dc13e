"""Servers of one repository in memory, which lag behind, tamper, or are down.

The real ``HttpClient`` asks them through ``MemoryTransport``.
"""

import zlib
from collections.abc import Callable, Iterator
from threading import Barrier
from typing import Any

from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import Answer, FaultKind, Request
from tests.support.memory_transport import MemoryTransport, Script
from tests.support.signed_documents import Documents

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"
PATIENCE_S = 60


class _MeetingTransport(MemoryTransport):
    """Lets requests wait for each other."""

    def __init__(self, together: dict[str, Barrier], **rest: Any) -> None:  # noqa: ANN401
        super().__init__(**rest)
        self._together = together

    def get(self, request: Request, sink: Callable[[bytes], object]) -> Answer:
        for path, barrier in self._together.items():
            if path in request.url:
                barrier.wait(PATIENCE_S)
        return super().get(request, sink)


class SimulatedServers:
    """All servers of a repository.

    Attributes:
        hosts: Base URLs, in the order in which clients prefer them.
        behind_caches: What is answered by path to requests that do not ask for fresh
            data, in place of what the server has.
        together: Requests that are answered when all have come, by a part of the path.
    """

    def __init__(self, count: int = 1) -> None:
        self.hosts = tuple(f"http://server{n}.example.org" for n in range(count))
        self.behind_caches: dict[str, bytes] = {}
        self.together: dict[str, Barrier] = {}
        self._down: set[str] = set()
        self._transport = _MeetingTransport(self.together, decide=self._decide)

    def client(self) -> HttpClient:
        """Return a client that loses no time."""
        settings = NetworkSettings(
            servers=self.hosts, failover=FailoverPolicy(max_retries=0)
        )
        return HttpClient(
            settings,
            self._transport,
            sleep=lambda _seconds: None,
            randomness=lambda: 0.0,
        )

    def publish(self, documents: Documents, *, servers: tuple[int, ...] = ()) -> None:
        """Let servers (all, if none are given) offer these documents."""
        self.put(MANIFEST, documents.manifest_blob(), servers=servers)
        self.put(WHITELIST, documents.whitelist_blob(), servers=servers)
        self.put_object(
            documents.certificate, ObjectKind.CERTIFICATE, documents.algorithm
        )

    def put_object(
        self,
        content: bytes,
        kind: ObjectKind,
        algorithm: HashAlgorithm = HashAlgorithm.SHA1,
    ) -> ContentHash:
        """Store an object on all servers and return its name."""
        stored = zlib.compress(content)
        content_hash = ContentHash.of(stored, algorithm)
        self.put(content_hash.object_path(kind), stored)
        return content_hash

    def put(self, path: str, content: bytes, *, servers: tuple[int, ...] = ()) -> None:
        """Store a file on servers (all, if none are given)."""
        for host in self._hosts(servers):
            self._transport.files[f"{host}/{path}"] = content

    def take_down(self, *servers: int) -> None:
        """Let servers (all, if none are given) be unreachable from now on."""
        self._down.update(self._hosts(servers))

    def asked(self, path: str = "") -> list[int]:
        """Return which servers were asked for something, in order."""
        return [
            self.hosts.index(host)
            for request in self._transport.requests
            for host in self.hosts
            if request.url.startswith(host) and path in request.url
        ]

    def _hosts(self, servers: tuple[int, ...]) -> Iterator[str]:
        return (self.hosts[n] for n in servers or range(len(self.hosts)))

    def _decide(self, request: Request) -> Script:
        if any(request.url.startswith(host) for host in self._down):
            return FaultKind.CONNECT
        if not request.no_cache:
            for path, content in self.behind_caches.items():
                if request.url.endswith(path):
                    return content
        return None
