"""Addresses of proxies: each address behind a proxy's name is a member of its own.

A name such as ``squid.example.org`` often stands for several machines, of which one
may be dead. So the name is resolved, by the system's resolver (files, DNS, whatever
``nsswitch.conf`` says), and failover has the addresses to choose from. Literal
addresses and ``DIRECT`` cost nothing. An ``https`` proxy keeps its name, to which its
certificate belongs. A name that has no address stays as it is: a member that fails,
until the name is looked up again.

The system's resolver does not tell how long an address is valid, so names are looked
up again after a fixed time, in a thread of their own while requests go on; only the
first time somebody waits. The resolver cannot be stopped either: when it takes too
long, it is left alone, and its thread ends with it.

Threads: any may call. Processes: use it after the fork.

Source: docs/reference/client-behaviour.md, "Proxy strings".
"""

import re
import threading
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.format.proxy_groups import ProxyGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

VALID_S = 600
"""Names are looked up again after this time, within the configured bounds."""

_MEMBER = re.compile(
    r"http://(?P<credentials>[^/]*@)?(?P<name>[A-Za-z0-9._-]+)(?P<port>:[0-9]+)?"
)
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


class ResolutionPolicy(NamedTuple):
    """How names of proxies are resolved; the numbers of the configuration.

    Attributes:
        timeout_s: Wait so long for an answer.
        retries: Wait as long again so many times.
        min_ttl_s: Look up again no sooner.
        max_ttl_s: Look up again no later.
        prefers_ipv6: Use IPv6 addresses where there are any, otherwise IPv4 ones.
        is_ipv4_only: Never ask for IPv6 addresses.
        addresses_max: Use no more addresses of one name; 0 for all.
    """

    timeout_s: int = 3
    retries: int = 1
    min_ttl_s: int = 60
    max_ttl_s: int = 86400
    prefers_ipv6: bool = False
    is_ipv4_only: bool = False
    addresses_max: int = 0


class ProxyAddresses:
    """The groups of a proxy list, with addresses in place of names.

    Args:
        groups: With names; ``auto`` has been replaced.
        policy: How to resolve.
        look_up: Returns the addresses of a name, none if it has none; the system's
            resolver if None.
    """

    def __init__(
        self,
        groups: "Sequence[ProxyGroup]",
        policy: ResolutionPolicy,
        look_up: "Callable[[str, ResolutionPolicy], Sequence[str]] | None" = None,
    ) -> None:
        self._named_groups = tuple(groups)
        self._policy = policy
        self._look_up = look_up or system_lookup
        self._names = tuple(_names(self._named_groups))
        self._known: dict[str, Sequence[str]] = {}
        self._groups = self._named_groups
        self._name_by_member: dict[str, str] = {}
        self._due_s = float("-inf") if self._names else float("inf")
        self._lock = threading.Lock()

    def groups(self, now_s: float) -> tuple[ProxyGroup, ...]:
        """Return the groups by address; the same object while nothing changes.

        The first call waits for the resolver, if there is a name.

        Args:
            now_s: Seconds of a clock that does not jump.
        """
        if now_s < self._due_s:
            return self._groups
        with self._lock:
            if now_s < self._due_s:
                return self._groups
            if not self._known:
                self._due_s = now_s + self._resolve()
            else:
                # Should the thread not get so far, this is when another one tries.
                self._due_s = now_s + self._policy.min_ttl_s + VALID_S
                threading.Thread(
                    target=self._resolve_again, args=(now_s,), daemon=True
                ).start()
        return self._groups

    def valid_for_s(self, now_s: float) -> float:
        """Return for how long the addresses are not looked up again."""
        return max(self._due_s - now_s, 0.0)

    def named_member(self, member: str) -> str:
        """Return a member as the configuration wrote it, for people and servers."""
        return self._name_by_member.get(member, member)

    def is_unresolved(self, member: str) -> bool:
        """Whether a member is a name for which no address was found."""
        match = _MEMBER.fullmatch(member)
        return match is not None and self._known.get(match["name"]) == ()

    def _resolve_again(self, now_s: float) -> None:
        valid_s = self._resolve()
        with self._lock:
            self._due_s = now_s + valid_s

    def _resolve(self) -> float:
        """Look up all names at once; return for how long the answers are good."""
        answers = _look_up_all(self._names, self._policy, self._look_up)
        is_complete = True
        for name in self._names:
            found = tuple(answers.get(name) or ())
            if not found:
                is_complete = False
                # What was right a while ago is better than nothing.
                found = tuple(self._known.get(name, ()))
                log.info("proxy %s: the name has no address now", name)
            self._known[name] = found
        names: dict[str, str] = {}
        groups = tuple(self._expand(group, names) for group in self._named_groups)
        self._name_by_member = names
        if groups != self._groups:
            log.detail("addresses of proxies: %s", _text(self._known))
            self._groups = groups
        policy = self._policy
        if not is_complete:
            return policy.min_ttl_s
        return max(policy.min_ttl_s, min(VALID_S, policy.max_ttl_s))

    def _expand(self, group: ProxyGroup, names: dict[str, str]) -> ProxyGroup:
        members: dict[str, None] = {}
        for named in group.members:
            for member in self._members_of(named):
                names.setdefault(member, named)
                members[member] = None
        return ProxyGroup(tuple(members))

    def _members_of(self, named: str) -> "Iterable[str]":
        name = _name_of(named)
        match = _MEMBER.fullmatch(named)
        if match is None or name is None or not self._known[name]:
            return (named,)
        credentials, port = match["credentials"] or "", match["port"] or ""
        return [
            f"http://{credentials}{_bracketed(address)}{port}"
            for address in self._known[name]
        ]


def system_lookup(name: str, policy: ResolutionPolicy) -> "Sequence[str]":
    """Return the addresses that the system knows for a name, of one family.

    Without a preference that is IPv4, if the name has any such address.
    """
    import _socket  # the module socket takes 8 ms more

    family = _socket.AF_INET if policy.is_ipv4_only else _socket.AF_UNSPEC
    try:
        # Bytes: a text would go through the tables for international names.
        found = _socket.getaddrinfo(
            name.encode("ascii"), None, family, _socket.SOCK_STREAM
        )
    except OSError as error:
        log.debug("resolver: %s: %s", name, error)
        return ()
    by_family: dict[int, list[str]] = {}
    for kind, _, _, _, address in found:
        text = str(address[0])
        if "%" not in text:  # an address that is good on one link only
            by_family.setdefault(kind, []).append(text)
    order = [_socket.AF_INET, _socket.AF_INET6]
    if policy.prefers_ipv6:
        order.reverse()
    addresses = next((by_family[kind] for kind in order if kind in by_family), [])
    return tuple(dict.fromkeys(addresses))[: policy.addresses_max or None]


def _look_up_all(
    names: "Sequence[str]",
    policy: ResolutionPolicy,
    look_up: "Callable[[str, ResolutionPolicy], Sequence[str]]",
) -> "Mapping[str, Sequence[str]]":
    """Look up names in parallel; those that take too long are missing."""
    answers: dict[str, Sequence[str]] = {}

    def work(name: str) -> None:
        answers[name] = look_up(name, policy)

    threads = [
        threading.Thread(target=work, args=(name,), daemon=True) for name in names
    ]
    for thread in threads:
        thread.start()
    patience_s = float(policy.timeout_s * (policy.retries + 1)) or None
    for thread in threads:
        thread.join(patience_s)
        if thread.is_alive():
            patience_s = 0.0  # the others have had their time, too
    return dict(answers)


def _names(groups: "Iterable[ProxyGroup]") -> "Iterable[str]":
    members = (member for group in groups for member in group.members)
    return dict.fromkeys(name for name in map(_name_of, members) if name)


def _name_of(member: str) -> str | None:
    """Return the name to be resolved, if there is one."""
    match = _MEMBER.fullmatch(member)
    if match is None or _IPV4.fullmatch(match["name"]):
        return None
    return match["name"]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _text(known: "Mapping[str, Sequence[str]]") -> str:
    return "; ".join(
        f"{name} = {', '.join(addresses) or 'none'}"
        for name, addresses in known.items()
    )
