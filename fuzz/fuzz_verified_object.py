"""Any bytes as a record of what was verified: the digest of its object, or none."""

from cvmfsexec.cache.verified_objects import parse_record, serialize_record
from cvmfsexec.format.digest import ContentHash, HashAlgorithm


def target(data: bytes) -> None:
    """Raise only on a finding."""
    name = ContentHash(data[1:21].ljust(20, b"\0"))
    for algorithm in HashAlgorithm:
        content_hash = name._replace(algorithm=algorithm)
        digest = parse_record(data, content_hash)
        if digest is not None:
            assert serialize_record(content_hash, digest) == data
            assert data[0] == algorithm + 1
