"""Any bytes are a tag database, all of which can be read, or one of our errors."""

import tempfile
from contextlib import closing, suppress

from cvmfsexec.catalog.history import History
from cvmfsexec.errors import CvmfsError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(CvmfsError), closing(History.open(file.name)) as history:
            for tag in history.tags():
                history.find_tag(tag.name)
                found = history.find_date(tag.timestamp_s)
                assert found is None or found.timestamp_s <= tag.timestamp_s
