from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.distribution.package_signature import check_signature
from cvmfsexec.errors import ConfigurationError, UntrustedPackageError
from cvmfsexec.format.package import Package, parse_package
from tests.support.packages import SigningKey, build_deb, build_rpm

FILES = {"/etc/cvmfs/a": b"a"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    yield from made_in(tmp_path_factory.mktemp("key") / "home")


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    yield from made_in(tmp_path_factory.mktemp("other") / "home")


def made_in(home: Path) -> Iterator[SigningKey]:
    signing = SigningKey(home)
    yield signing
    signing.close()


@pytest.fixture(scope="module")
def signed(key: SigningKey) -> Package:
    return parse_package(key.sign(build_rpm("x", FILES)))


def test_a_signature_by_the_key_is_accepted(key: SigningKey, signed: Package) -> None:
    check_signature(signed, str(key.public))


def test_one_of_several_keys_is_enough(
    key: SigningKey, other_key: SigningKey, signed: Package, tmp_path: Path
) -> None:
    both = tmp_path / "both.asc"
    both.write_bytes(other_key.public.read_bytes() + key.public.read_bytes())
    check_signature(signed, str(both))


def test_another_signature_is_refused(other_key: SigningKey, signed: Package) -> None:
    with pytest.raises(UntrustedPackageError, match="is not signed by a key in"):
        check_signature(signed, str(other_key.public))


def test_a_signature_over_something_else_is_refused(
    key: SigningKey, signed: Package
) -> None:
    signatures = tuple(
        one._replace(signed=one.signed + b"x") for one in signed.signatures
    )
    with pytest.raises(UntrustedPackageError, match="BAD signature"):
        check_signature(signed._replace(signatures=signatures), str(key.public))


def test_no_signature_is_refused(key: SigningKey) -> None:
    with pytest.raises(UntrustedPackageError, match="has no signature"):
        check_signature(parse_package(build_rpm("x", FILES)), str(key.public))


def test_a_debian_package_is_refused(key: SigningKey) -> None:
    with pytest.raises(UntrustedPackageError, match="Debian") as caught:
        check_signature(parse_package(build_deb("x", FILES)), str(key.public))
    assert "--pin" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no key\n", b"-----BEGIN PGP"])
def test_a_file_without_a_key_is_refused(
    signed: Package, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no OpenPGP public key"):
        check_signature(signed, str(file))
