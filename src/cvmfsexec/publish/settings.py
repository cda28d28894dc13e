"""How to publish, and where: what a caller decides.

Source: docs/reference/publisher-format.md.
"""

from pathlib import Path
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError, PublishError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.format.dirent import Compression
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.publish.chunker import ChunkSizes


class PublishSettings(NamedTuple):
    """One publication's choices.

    Attributes:
        fqrn: Name of the repository.
        output: Directory with one directory per repository, which is served.
        keys_directory: Where the keys are; never in ``output``.
        algorithm: Of new objects; None goes on with what the repository has.
        compression: Of file contents.
        chunk_sizes: None stores every file whole.
        ttl_s: How long clients go without asking again; None as it was.
        tag: Name of the revision; empty for one made from the time.
        message: Description of the tag.
        is_durable: Whether to wait until everything is on the disk.
    """

    fqrn: str
    output: Path
    keys_directory: Path
    algorithm: HashAlgorithm | None = None
    compression: Compression = Compression.ZLIB
    chunk_sizes: ChunkSizes | None = ChunkSizes()
    ttl_s: int | None = None
    tag: str = ""
    message: str = ""
    is_durable: bool = True

    @property
    def repository(self) -> Path:
        """The directory of the repository itself."""
        return self.output / self.fqrn

    @property
    def master_key(self) -> Path:
        """The public key that clients need."""
        return self.keys_directory / f"{self.fqrn}.pub"


def check_settings(settings: PublishSettings, source: Path) -> None:
    """Refuse names and places that could not be published well.

    Raises:
        ConfigurationError: The name is no repository name, or has no domain.
        PublishError: Keys would be served or published, or a repository published
            into itself.
    """
    check_fqrn(settings.fqrn)
    if "." not in settings.fqrn:
        raise ConfigurationError(
            f"the repository name {settings.fqrn!r} has no domain",
            hint="clients choose their configuration by it: use a name with a dot",
        )
    source = source.resolve()
    output = settings.output.resolve()
    keys = settings.keys_directory.resolve()
    if keys.is_relative_to(output):
        raise PublishError(
            f"the keys directory {str(keys)!r} lies in what is served",
            hint="choose another with --keys",
        )
    for place, option in ((output, "--output"), (keys, "--keys")):
        if place.is_relative_to(source):
            raise PublishError(
                f"{str(place)!r} lies in the directory to be published",
                hint=f"choose another place with {option}",
            )
    if source.is_relative_to(output / settings.fqrn):
        raise PublishError(f"{str(source)!r} lies in the repository itself")
