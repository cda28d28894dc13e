import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, IncompleteManifestError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import ROOT_PATH_MD5, Manifest
from tests.support.fixtures import REPOSITORIES, fixture_repository

HASH = "0123456789abcdef0123456789abcdef01234567"
MINIMAL = f"C{HASH}\nR{ROOT_PATH_MD5}\nD240\nS12\n"

hashes = st.builds(
    ContentHash,
    st.binary(min_size=20, max_size=20).filter(any),
    st.sampled_from(HashAlgorithm),
)
numbers = st.integers(0, 2**64 - 1)
manifests = st.builds(
    Manifest,
    root_catalog=hashes,
    root_catalog_size=numbers,
    revision=numbers,
    ttl_s=numbers,
    root_path_md5=st.binary(min_size=16, max_size=16).map(bytes.hex),
    fqrn=st.text(st.characters(min_codepoint=33, max_codepoint=126)),
    certificate=st.none() | hashes,
    history=st.none() | hashes,
    published_at_s=numbers,
    metainfo=st.none() | hashes,
    reflog=st.none() | hashes,
    is_garbage_collectable=st.booleans(),
    has_alternative_path=st.booleans(),
)


def parse(text: str) -> Manifest:
    return Manifest.parse(text.encode("latin-1"))


@given(manifests)
def test_a_written_manifest_parses_back(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.serialize()) == manifest


@given(st.binary() | st.binary().map(lambda data: MINIMAL.encode() + data))
def test_any_bytes_are_a_manifest_or_a_format_error(letter: bytes) -> None:
    with contextlib.suppress(FormatError):
        manifest = Manifest.parse(letter)
        assert Manifest.parse(manifest.serialize()) == manifest


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_manifests_of_the_original_are_written_byte_for_byte(fqrn: str) -> None:
    blob = (fixture_repository(fqrn) / ".cvmfspublished").read_bytes()
    letter = parse_letter(blob).letter
    manifest = Manifest.parse(letter)
    assert manifest.fqrn == fqrn
    assert manifest.serialize() == letter


def test_optional_fields_have_defaults() -> None:
    assert parse(MINIMAL) == Manifest(
        root_catalog=ContentHash.parse(HASH),
        root_catalog_size=0,
        revision=12,
        ttl_s=240,
        root_path_md5=ROOT_PATH_MD5,
        fqrn="",
    )


@pytest.mark.parametrize("letter", "CRDS")
def test_a_manifest_without_a_required_field_is_incomplete(letter: str) -> None:
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(letter)]
    with pytest.raises(IncompleteManifestError, match=f"lacks {letter}$"):
        parse("\n".join(lines))


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(IncompleteManifestError, match="lacks C, R, D, S"):
        parse("")


def test_order_unknown_letters_and_empty_lines_do_not_matter() -> None:
    lines = [*reversed(MINIMAL.splitlines()), "", "Zfirst", "Zsecond", "\xfc\xff", "q"]
    assert parse("\n".join(lines)) == parse(MINIMAL)


def test_a_later_line_overrides_an_earlier_one() -> None:
    assert parse(f"Snonsense\n{MINIMAL}S13\n").revision == 13


@pytest.mark.parametrize(
    ("value", "meaning"), [("yes", True), ("no", False), ("Yes", False), ("1", False)]
)
def test_only_yes_is_true(value: str, *, meaning: bool) -> None:
    manifest = parse(f"{MINIMAL}G{value}\nA{value}\n")
    assert manifest.is_garbage_collectable is meaning
    assert manifest.has_alternative_path is meaning


@pytest.mark.parametrize("value", ["", "0" * 40])
def test_a_null_hash_names_nothing(value: str) -> None:
    manifest = parse(f"{MINIMAL}X{value}\nH{value}\nM{value}\nY{value}\n")
    assert manifest == parse(MINIMAL)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("C", id="no-root-catalog"),
        pytest.param("C" + "0" * 40, id="null-root-catalog"),
        pytest.param(f"C{HASH}C", id="root-catalog-with-letter"),
        pytest.param("Xcertificate", id="certificate-no-hash"),
        pytest.param(f"H{HASH}\r", id="carriage-return"),
        pytest.param("S", id="no-revision"),
        pytest.param("S-1", id="negative-revision"),
        pytest.param("S1e3", id="revision-in-another-notation"),
        pytest.param("S18446744073709551616", id="more-than-64-bits"),
        pytest.param("S" + "9" * 5000, id="more-digits-than-int-takes"),
        pytest.param("S\xb2", id="digit-that-is-not-ascii"),
        pytest.param("B12 ", id="size-with-blank"),
        pytest.param("D2.5", id="ttl-with-fraction"),
        pytest.param("Tyesterday", id="time-in-words"),
        pytest.param("R", id="no-root-path"),
        pytest.param("R" + ROOT_PATH_MD5.upper(), id="root-path-in-capitals"),
        pytest.param("Nsch\xf6n.example.org", id="name-not-ascii"),
    ],
)
def test_a_known_field_with_a_bad_value_is_refused(line: str) -> None:
    with pytest.raises(FormatError):
        parse(f"{MINIMAL}{line}\n")


def test_alternative_paths_replace_the_usual_ones() -> None:
    shake = ContentHash.parse(f"{HASH}-shake128")
    usual = parse(MINIMAL)
    alternative = usual._replace(has_alternative_path=True)
    assert usual.object_path(shake, ObjectKind.CATALOG) == (
        f"data/01/{HASH[2:]}-shake128C"
    )
    assert alternative.object_path(shake, ObjectKind.CERTIFICATE) == (
        f".cvmfsalt-{HASH}-shake128X"
    )
