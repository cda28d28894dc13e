"""Any two blobs as manifest and whitelist are refused, by an error of ours.

They are divided by the line ``====``. Nobody here has the keys, so that whatever is
believed is a finding.
"""

from contextlib import suppress

from cvmfsexec.errors import FormatError, TrustError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.trust.chain import (
    TrustSettings,
    Watermark,
    check_manifest,
    check_signed,
    check_whitelist,
)
from tests.support.signed_documents import FQRN, NOW_S, certificate, public_key

DIVIDER = b"\n====\n"
SETTINGS = TrustSettings(FQRN, (public_key("nobody has it"),))
CERTIFICATE = certificate("nobody has it")
SEEN = Watermark(ContentHash(b"\1" * 20), 1000, 5)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    manifest, _, whitelist = data.partition(DIVIDER)
    for watermark in (None, SEEN):
        with suppress(FormatError, TrustError):
            parsed, signed = check_manifest(manifest, SETTINGS, watermark)
            assert parsed.fqrn == FQRN
            assert watermark is None or parsed.revision >= watermark.revision
            check_signed(signed, CERTIFICATE, SETTINGS)
            raise AssertionError("a manifest is believed")
    with suppress(FormatError, TrustError):
        check_whitelist(whitelist, SETTINGS, CERTIFICATE, NOW_S)
        raise AssertionError("a whitelist is believed")
