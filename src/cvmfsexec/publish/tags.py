"""Which names a publication gives to revisions.

``trunk`` is always the newest revision and ``trunk-previous`` the one before; beside
them every publication has a name of its own, made from the time if nobody chose one.

Pure.

Source: docs/reference/publisher-format.md, "Tag database".
"""

import re
import time
from collections.abc import Iterable

from cvmfsexec.catalog.history import Tag
from cvmfsexec.catalog.schema import TRUNK, TRUNK_PREVIOUS
from cvmfsexec.errors import PublishError

_NAME = re.compile(r"[A-Za-z0-9._/:-]+")
_TRUNK_DESCRIPTION = "current HEAD"
_TRUNK_PREVIOUS_DESCRIPTION = "default undo target"


def check_tag_name(name: str, existing: Iterable[Tag]) -> None:
    """Refuse a name that a new tag cannot have.

    Raises:
        PublishError: It has other characters than letters, digits and ``-_./:``, is
            kept for the newest revisions, or names another revision.
    """
    if _NAME.fullmatch(name) is None:
        raise PublishError(
            f"{name!r} is not a tag name",
            hint="a name is made of letters, digits and - _ . / :",
        )
    if name in (TRUNK, TRUNK_PREVIOUS):
        raise PublishError(f"the tag {name!r} is kept for the newest revisions")
    if any(tag.name == name for tag in existing):
        raise PublishError(
            f"the tag {name!r} names a revision already",
            hint="choose another name: a tag never changes",
        )


def next_tags(existing: Iterable[Tag], newest: Tag) -> list[Tag]:
    """Return all tags after a publication, that of the new revision last.

    Args:
        existing: All tags before it.
        newest: The new revision; its name may be empty, for one made from the time.

    Raises:
        PublishError: As :func:`check_tag_name`.
    """
    tags = {tag.name: tag for tag in existing}
    if newest.name:
        check_tag_name(newest.name, tags.values())
    if TRUNK in tags:
        tags[TRUNK_PREVIOUS] = tags[TRUNK]._replace(
            name=TRUNK_PREVIOUS, description=_TRUNK_PREVIOUS_DESCRIPTION
        )
    tags[TRUNK] = newest._replace(name=TRUNK, description=_TRUNK_DESCRIPTION)
    name = newest.name or _generic_name(newest.timestamp_s, tags)
    tags[name] = newest._replace(name=name)
    return list(tags.values())


def _generic_name(timestamp_s: int, taken: Iterable[str]) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp_s))
    name = f"generic-{moment}"
    number = 0
    while name in taken:
        number += 1
        name = f"generic_{number}-{moment}"
    return name
