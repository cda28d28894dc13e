"""Answers of ``FindProxyForURL``, the one function of a proxy configuration file.

``PROXY a:3128; PROXY b:3128; DIRECT`` means: ask ``a``, if that fails ``b``, if that
fails nobody. So each element becomes a group of its own. The file comes from whoever
runs the network (or pretends to), so an element is checked as one of a proxy list is,
and what does not pass is left out, as are the ways that this client does not know
(``SOCKS``). Only the empty answer and the word itself mean ``DIRECT``.

Source: docs/reference/client-behaviour.md, "Proxy auto-discovery".
"""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import DIRECT, ProxyGroup, parse_proxy_list

ANSWER_CHARACTERS_MAX = 16 << 10
ELEMENTS_MAX = 64

_PROXY = "PROXY"


def parse_pac_answer(text: str) -> tuple[ProxyGroup, ...]:
    """Return the groups of an answer; none at all if it names nothing of use.

    Raises:
        FormatError: It is longer than anybody would write.
    """
    if len(text) > ANSWER_CHARACTERS_MAX:
        raise FormatError(f"an answer of {len(text)} characters")
    if not text.strip():
        return (ProxyGroup((DIRECT,)),)
    elements = (element for element in text.split(";") if element.strip())
    found = (_parse_element(element.split()) for element in elements)
    groups = tuple(dict.fromkeys(group for group in found if group is not None))
    if len(groups) > ELEMENTS_MAX:
        raise FormatError(f"an answer of {len(groups)} proxies")
    return groups


def _parse_element(words: list[str]) -> ProxyGroup | None:
    if words == [DIRECT]:
        return ProxyGroup((DIRECT,))
    if len(words) != 2 or words[0] != _PROXY or "|" in words[1]:
        return None
    try:
        groups = parse_proxy_list(words[1])
    except FormatError:
        return None
    # The name of a machine may be anything, but not a word of the list.
    if len(groups) != 1 or groups[0].is_auto or groups[0].members == (DIRECT,):
        return None
    return groups[0]
