from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.directory_listing import packages_in_listing

APACHE = b"""<html><head><title>Index of /dist</title></head><body>
<a href="?C=N;O=D">Name</a> <a href="/dist/">Parent Directory</a>
<a href="cvmfs-config-default-2.1-1.noarch.rpm">cvmfs-config-default-2.1..&gt;</a>
<a href="cvmfs-config-default_2.1-1_all.deb">x</a> <a href="sub/">sub/</a>
<a href="x-1%7Erc1-1.noarch.rpm">x</a> <a href="README.txt">x</a></body>"""


def test_links_to_packages_are_found() -> None:
    assert packages_in_listing(APACHE) == (
        "cvmfs-config-default-2.1-1.noarch.rpm",
        "cvmfs-config-default_2.1-1_all.deb",
        "x-1~rc1-1.noarch.rpm",
    )


def test_links_elsewhere_do_not_count() -> None:
    for link in (b"http://x.org/a.rpm", b"../a.rpm", b"/a.rpm", b"b/a.rpm", b".a.rpm"):
        assert packages_in_listing(b'<a href="' + link + b'">') == ()


@given(st.binary(max_size=300))
def test_a_name_is_a_bare_name(page: bytes) -> None:
    for name in packages_in_listing(b'<a href="' + page + b'">' + page):
        assert "/" not in name
        assert name.isascii()
