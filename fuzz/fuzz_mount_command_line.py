"""Any words are a command line of mountrepo and umountrepo, or none; NUL divides."""

from cvmfsexec.cli import mountrepo_cmd, umountrepo_cmd


def target(data: bytes) -> None:
    """Raise only on a finding."""
    words = [word.decode("utf-8", "surrogateescape") for word in data.split(b"\0")]
    mounting = mountrepo_cmd.parse(words)
    if mounting is not None and not mounting.wants_help:
        assert mounting.repository == words[-1]
        assert not mounting.repository.startswith("-")
    unmounting = umountrepo_cmd.parse(words)
    if unmounting is not None and not unmounting.wants_help:
        assert unmounting.wants_all or unmounting.repository == words[-1]
        assert not (unmounting.wants_all and unmounting.repository)
