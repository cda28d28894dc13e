import stat
from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.whitelist import Whitelist, format_time
from cvmfsexec.publish.keys import (
    WHITELIST_VALID_S,
    PublisherKeys,
    create_keys,
    load_keys,
    renewed_whitelist,
)
from cvmfsexec.trust.chain import TrustSettings, check_whitelist

FQRN = "keys.example.org"
NOW_S = 1_700_000_000
DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "made"
    create_keys(path, FQRN, NOW_S)
    return path


@pytest.fixture
def keys(directory: Path) -> PublisherKeys:
    return load_keys(directory, FQRN)


def renew(
    current: bytes | None, keys: PublisherKeys, now_s: int = NOW_S
) -> bytes | None:
    return renewed_whitelist(current, keys, FQRN, HashAlgorithm.SHA1, now_s)


def test_private_keys_are_for_their_owner_only(directory: Path) -> None:
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()
    }
    assert modes[f"{FQRN}.masterkey"] == modes[f"{FQRN}.key"] == 0o600
    assert set(modes) == {f"{FQRN}.{end}" for end in ("masterkey", "pub", "key", "crt")}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_keys_that_are_there_are_kept(directory: Path, keys: PublisherKeys) -> None:
    create_keys(directory, FQRN, NOW_S)
    assert load_keys(directory, FQRN) == keys


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{FQRN}.masterkey").write_bytes(b"x")
    with pytest.raises(PublishError, match="without its other half"):
        create_keys(tmp_path, FQRN, NOW_S)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=rf"{FQRN}\.pub"):
        load_keys(tmp_path, FQRN)


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_a_new_whitelist_is_accepted_for_thirty_days(
    keys: PublisherKeys, algorithm: HashAlgorithm
) -> None:
    blob = renewed_whitelist(None, keys, FQRN, algorithm, NOW_S)
    assert blob is not None
    settings = TrustSettings(FQRN, (keys.master_public,))
    check_whitelist(blob, settings, keys.certificate, NOW_S + 29 * DAY_S)
    whitelist = Whitelist.parse(parse_letter(blob).letter)
    assert whitelist.created_at == format_time(NOW_S)
    assert whitelist.expires_at == format_time(NOW_S + WHITELIST_VALID_S)


def test_a_fresh_whitelist_is_kept(keys: PublisherKeys) -> None:
    assert renew(renew(None, keys), keys, NOW_S + DAY_S) is None


@pytest.mark.parametrize("age_days", [20, 40])
def test_an_old_whitelist_is_renewed(keys: PublisherKeys, age_days: int) -> None:
    assert renew(renew(None, keys), keys, NOW_S + age_days * DAY_S) is not None


def test_a_damaged_whitelist_is_renewed(keys: PublisherKeys) -> None:
    assert renew(b"damaged", keys) is not None


def test_an_aging_whitelist_will_do_without_the_master_key(keys: PublisherKeys) -> None:
    aging = renew(None, keys)
    without = keys._replace(master_private=None)
    assert renew(aging, without, NOW_S + 20 * DAY_S) is None


def test_an_expired_whitelist_needs_the_master_key(keys: PublisherKeys) -> None:
    expired = renew(None, keys)
    without = keys._replace(master_private=None)
    with pytest.raises(PublishError, match="master key"):
        renew(expired, without, NOW_S + 40 * DAY_S)


def test_another_certificate_needs_a_new_whitelist(
    keys: PublisherKeys, tmp_path: Path
) -> None:
    create_keys(tmp_path, FQRN, NOW_S)
    other = keys._replace(certificate=load_keys(tmp_path, FQRN).certificate)
    assert renew(renew(None, keys), other) is not None
