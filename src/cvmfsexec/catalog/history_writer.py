"""Tag databases as the publisher writes them.

Source: docs/reference/publisher-format.md, "Tag database".
"""

from collections.abc import Iterable

from cvmfsexec.catalog.history import Tag
from cvmfsexec.catalog.new_database import insert_into, new_database
from cvmfsexec.catalog.schema import (
    BRANCH_COLUMNS,
    CREATE_HISTORY,
    DEFAULT_BRANCH,
    HISTORY_SCHEMA,
    HISTORY_SCHEMA_REVISION,
    PROPERTY_COLUMNS,
    TAG_COLUMNS,
    Property,
)
from cvmfsexec.format.digest import ContentHash

_CHANNEL = 0  # of tags.channel; once release channels, now always 0


def write_history(
    path: str, fqrn: str, tags: Iterable[Tag], previous: ContentHash | None
) -> None:
    """Write a tag database into a new file.

    Args:
        path: Must not exist.
        fqrn: The repository that the tags belong to.
        tags: All of the default branch.
        previous: The database before this one, if there was one.

    Raises:
        PublishError: The file could not be written.
    """
    properties = {
        Property.SCHEMA: HISTORY_SCHEMA,
        Property.SCHEMA_REVISION: HISTORY_SCHEMA_REVISION,
        Property.FQRN: fqrn,
    }
    if previous is not None:
        properties[Property.PREVIOUS_REVISION] = str(previous)
    with new_database(path, CREATE_HISTORY) as connection:
        connection.execute(insert_into("branches", BRANCH_COLUMNS), DEFAULT_BRANCH)
        connection.executemany(
            insert_into("properties", PROPERTY_COLUMNS), properties.items()
        )
        connection.executemany(
            insert_into("tags", TAG_COLUMNS),
            [
                (
                    tag.name,
                    str(tag.root_catalog),
                    tag.revision,
                    tag.timestamp_s,
                    _CHANNEL,
                    tag.description,
                    tag.root_catalog_size,
                    tag.branch,
                )
                for tag in tags
            ],
        )
