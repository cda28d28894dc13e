import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.variant_symlink import expand

VARIABLES = {
    "CONFVAR": "value-from-config",
    "EMPTY": "",
    "RECURSIVE": "$(CONFVAR)",
    "CAFÉ": "crème",
}


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        # The first ones were seen on a mount of the original client.
        (b"$(CONFVAR)/sub", b"value-from-config/sub"),
        (b"pre-$(CONFVAR)-post", b"pre-value-from-config-post"),
        (b"$(CONFVAR)/$(CONFVAR2:-two)", b"value-from-config/two"),
        (b"$(CONFUNSET:-../files)/4k", b"../files/4k"),
        (b"a$(CONFUNSET)b", b"ab"),
        (b"a$(CONFUNSET:-)b", b"ab"),
        (b"$()x", b"x"),
        (b"$CONFVAR/x", b"$CONFVAR/x"),
        (b"$(CONFVAR", b"$(CONFVAR"),
        (b"$(CONFUNSET:-$(CONFVAR))", b"$(CONFVAR)"),
        # The rest follows from the rules.
        (b"", b""),
        (b"$(EMPTY:-default)", b""),
        (b"$(RECURSIVE)", b"$(CONFVAR)"),
        (b"$(CONFVAR:-unused)", b"value-from-config"),
        (b"$(CONFVAR)$(CONFVAR", b"value-from-config$(CONFVAR"),
        (b"$(CONFUNSET:-a:-b)", b"a:-b"),
        (b")$(", b")$("),
        (b"$$(CONFVAR)", b"$value-from-config"),
        ("$(CAFÉ)".encode(), "crème".encode()),
        (b"$(\xff:-\xfe)", b"\xfe"),
    ],
)
def test_expressions_are_replaced_once(target: bytes, shown: bytes) -> None:
    assert expand(target, VARIABLES) == shown


@given(st.binary().filter(lambda target: b"$(" not in target))
def test_target_without_expression_stays(target: bytes) -> None:
    assert expand(target, VARIABLES) == target


literals = st.binary(max_size=5).filter(lambda text: b"$" not in text)
names = st.sampled_from(["CONFVAR", "EMPTY", "UNSET", ""])
defaults = st.none() | st.binary(max_size=5).filter(lambda text: b")" not in text)
expressions = st.tuples(names, defaults)


@given(st.lists(st.tuples(literals, expressions)), literals)
def test_text_between_expressions_stays(
    parts: list[tuple[bytes, tuple[str, bytes | None]]], end: bytes
) -> None:
    target = shown = b""
    for literal, (name, default) in parts:
        tail = b"" if default is None else b":-" + default
        target += literal + b"$(" + name.encode() + tail + b")"
        shown += literal + VARIABLES.get(name, "").encode()
        shown += (default or b"") if name not in VARIABLES else b""
    assert expand(target + end, VARIABLES) == shown + end


def test_hostile_target_takes_linear_time() -> None:
    assert expand(b")" + b"$(" * 500_000, {}) == b")" + b"$(" * 500_000
    assert expand(b"$()" * 100_000, {}) == b""
