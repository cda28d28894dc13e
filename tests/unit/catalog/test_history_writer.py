from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfsexec.catalog.history import History, Tag
from cvmfsexec.catalog.history_writer import write_history
from cvmfsexec.errors import PublishError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm

FQRN = "tags.example.org"

hashes = st.builds(
    ContentHash,
    st.binary(min_size=20, max_size=20).filter(any),
    st.sampled_from(HashAlgorithm),
)
numbers = st.integers(0, 2**62)
tags = st.builds(
    Tag,
    name=st.from_regex(r"[A-Za-z0-9._/:-]{1,50}", fullmatch=True),
    root_catalog=hashes,
    root_catalog_size=numbers,
    revision=numbers,
    timestamp_s=numbers,
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    branch=st.just(""),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tags, max_size=5, unique_by=lambda tag: tag.name), st.none() | hashes)
def test_written_tags_read_back(
    tmp_path: Path, some: list[Tag], previous: ContentHash | None
) -> None:
    path = tmp_path / "history"
    path.unlink(missing_ok=True)
    write_history(str(path), FQRN, some, previous)
    history = History.open(str(path), fqrn=FQRN)
    found = history.tags()
    assert history.previous_revision == previous
    history.close()
    assert sorted(found) == sorted(some)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    tag = Tag("v1", ContentHash(b"a" * 20), 1, 1, 1, "", "")
    with pytest.raises(PublishError, match="cannot write the database"):
        write_history(str(tmp_path / "history"), FQRN, [tag, tag], None)
