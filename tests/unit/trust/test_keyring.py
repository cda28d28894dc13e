import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cvmfsexec.errors import ConfigurationError, NoMasterKeyError
from cvmfsexec.trust.keyring import Keyring
from cvmfsexec.trust.signature import load_public_key, sign_whitelist
from tests.support.signed_documents import private_key, public_key

HASH_TEXT = b"0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("names", [("master",), ("other", "master"), ("master",) * 2])
def test_any_of_several_keys_may_have_signed(names: tuple[str, ...]) -> None:
    keyring = Keyring.load(public_key(name) for name in names)
    signature = sign_whitelist(HASH_TEXT, private_key("master"))
    signer = load_public_key(public_key("master"))
    assert keyring.find_signer(HASH_TEXT, signature) == signer


def test_a_stranger_is_not_found() -> None:
    keyring = Keyring.load([public_key("other")])
    signature = sign_whitelist(HASH_TEXT, private_key("master"))
    assert keyring.find_signer(HASH_TEXT, signature) is None


def test_a_key_smaller_than_the_signature_is_skipped() -> None:
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505
    small_pem = small.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keyring = Keyring.load([small_pem, public_key("master")])
    signature = sign_whitelist(HASH_TEXT, private_key("master"))
    assert keyring.find_signer(HASH_TEXT, signature) == keyring.keys[1]


def test_an_empty_keyring_is_refused() -> None:
    with pytest.raises(NoMasterKeyError) as caught:
        Keyring.load(())
    assert "CVMFS_PUBLIC_KEY" in caught.value.hint


def test_one_bad_key_file_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        Keyring.load([public_key("master"), b"not a key"])
