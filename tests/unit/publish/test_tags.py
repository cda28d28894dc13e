import pytest

from cvmfsexec.catalog.history import Tag
from cvmfsexec.errors import PublishError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.publish.tags import check_tag_name, next_tags

NOON_S = 1731412800  # 2024-11-12 12:00:00 UTC


def revision(number: int, name: str = "") -> Tag:
    catalog = ContentHash(bytes([number]) * 20)
    return Tag(name, catalog, 100 + number, number, NOON_S, f"rev {number}", "")


def test_the_first_publication_has_no_previous_one() -> None:
    assert [(tag.name, tag.revision) for tag in next_tags((), revision(1))] == [
        ("trunk", 1),
        ("generic-2024-11-12T12:00:00Z", 1),
    ]


def test_trunk_moves_and_leaves_the_previous_one() -> None:
    tags = next_tags(next_tags((), revision(1, "v1")), revision(2, "v2"))
    by_name = {tag.name: tag for tag in tags}
    assert by_name["trunk"] == revision(2)._replace(
        name="trunk", description="current HEAD"
    )
    assert by_name["trunk-previous"] == revision(1)._replace(
        name="trunk-previous", description="default undo target"
    )
    assert by_name["v1"] == revision(1, "v1")
    assert tags[-1] == revision(2, "v2")


def test_publications_within_a_second_have_different_names() -> None:
    tags = next_tags((), revision(1))
    for number in (2, 3):
        tags = next_tags(tags, revision(number))
    generic = [tag.name for tag in tags if tag.name.startswith("generic")]
    assert generic == [
        "generic-2024-11-12T12:00:00Z",
        "generic_1-2024-11-12T12:00:00Z",
        "generic_2-2024-11-12T12:00:00Z",
    ]


@pytest.mark.parametrize("name", ["v1", "a/b:c", "2024-11-12T12:00Z", "x_y.z-1"])
def test_a_tag_may_be_named(name: str) -> None:
    check_tag_name(name, [revision(1, "other")])


@pytest.mark.parametrize("name", ["", "a b", "ü", "x\n", "trunk", "trunk-previous"])
def test_a_tag_cannot_be_named(name: str) -> None:
    with pytest.raises(PublishError):
        check_tag_name(name, ())


def test_a_tag_never_changes() -> None:
    tags = next_tags((), revision(1, "v1"))
    with pytest.raises(PublishError, match="names a revision already"):
        next_tags(tags, revision(2, "v1"))
