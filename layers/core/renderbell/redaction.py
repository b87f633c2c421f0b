"""Text of others without what must not be repeated: known secrets, the queries of links, credentials. Pure.

A signed link is a key to what it points at, and whoever reports an error likes to repeat the link, in JSON or
percent-encoded. Host, path and words stay, because they are what helps to understand.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from functools import lru_cache

__all__ = ["redacted", "redacted_start"]

HIDDEN = "***"
CUT = "?…"
_READ_PER_SHOWN = 16
_LONGEST_ESCAPE = 12  # of a character: two halves of one that JSON writes as \uXXXX\uXXXX
_EDGE = 32  # characters that a longer secret is known by
_SHORTEST_BASE64 = 12  # a shorter piece may stand in any text by chance


def _escaped(codes: str, plain: str) -> str:
    """A pattern for a character as it is, as JSON may write it, and percent-encoded, also more than once."""
    return rf"(?:\\{{0,8}}{plain}|\\{{1,8}}u00(?:{codes})|%(?:25){{0,4}}(?:{codes}))"


_SLASH = _escaped("2[fF]", "/")
_AUTHORITY = re.compile(_SLASH * 2)
_QUERY = re.compile(_escaped("3[fF]|23", "[?#]"))
_ANY_SLASH, _AT = re.compile(_SLASH), re.compile(_escaped("40", "@"))
_USER = re.compile(rf"({_SLASH * 2})(?:(?!{_SLASH}).)*{_AT.pattern}", re.DOTALL)
_BARE_QUERY = re.compile(r"\?(?=[\w%])")  # of a path alone; a question mark in a sentence has none of these behind it
_RUN = re.compile(r'[^\s"<>]+')  # what can be a link is within one
_PIECES = re.compile(r"\\+|[^\\]")  # of a secret: a run of backslashes, or another character

_TELLING = r"(?:signature|token|secret|passw(?:or)?d|credential|(?:api|auth|access|private)[-_]?key)"
_START = r"(?:(?<![\w-])|(?<=%26)|(?<=%3[fF])|(?<=u0026)|(?<=u003[fF]))"
_PARAMETER = re.compile(
    rf"{_START}((?:[\w-]{{0,40}}?{_TELLING}[\w-]{{0,40}}|sign?|key|auth|hmac|pwd)\s?{_escaped('3[dD]', '=')}\s?)"
    r"[^\s\"'<>&]+",
    re.IGNORECASE,
)
_FIELD = re.compile(rf'("[\w-]{{0,40}}?{_TELLING}\\{{0,8}}"\s{{0,8}}:\s{{0,8}}\\{{0,8}}")[^\s"\\]+', re.IGNORECASE)
_SCHEME = re.compile(
    r"\b((?:authorization\W{1,8}(?:basic|bearer|digest|token|apikey)|bearer(?=\s{1,4}[\w.~+/=-]{16}))\s{1,4})[^\s\"'<>]+",
    re.IGNORECASE,
)


def redacted(text: str, secrets: Collection[str] = ()) -> str:
    """The text without the secrets, the queries and users of links, and the values of telling parameters.

    A secret is found as it is, as JSON and URLs escape it, and in base64.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be a part of another
        text = _without(secret, text)
    text = _RUN.sub(_without_query, text)
    for pattern in (_PARAMETER, _FIELD, _SCHEME):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def redacted_start(text: str, size: int, secrets: Collection[str] = ()) -> str:
    """The first characters, at most `size`, of what is left of a text that may be very long."""
    start = text[: _READ_PER_SHOWN * size]
    shown = redacted(start, secrets)
    if len(start) < len(text):  # a secret may have been cut in two, and so not be found
        shown = shown[: max(0, len(shown) - _LONGEST_ESCAPE * max(map(len, secrets), default=0))]
    return shown[:size]


def _without_query(run: re.Match[str]) -> str:
    text = run[0]
    authority = _AUTHORITY.search(text)
    query = _QUERY.search(text, authority.end()) if authority else _BARE_QUERY.search(text)
    if query and query.end() < len(text):
        rest = text[query.end() :]
        text = text[: query.start()] + CUT
        if authority and _AT.search(rest) and not _ANY_SLASH.search(text, authority.end()):
            text = text[: authority.end()] + CUT  # a password with a question mark, and not a host
    return _USER.sub(r"\1", text) if authority else text


def _without(secret: str, text: str) -> str:
    """The text without a secret; of a very long one, all from its first characters to its last."""
    if len(secret) <= 2 * _EDGE:
        return _forms_of(secret).sub(HIDDEN, text)
    shown, at = [], 0
    tail = _forms_of(secret[-_EDGE:])
    for head in _forms_of(secret[:_EDGE]).finditer(text):
        if head.start() < at:
            continue
        shown += [text[at : head.start()], HIDDEN]
        least = head.start() + len(secret) - _EDGE  # no form of a character is shorter than it
        at = end = min(len(text), head.end() + _LONGEST_ESCAPE * len(secret))
        found = tail.search(text, least, end)
        while found is not None:  # where a secret repeats itself, its last characters may stand there more than once
            at = found.end()
            found = tail.search(text, found.start() + 1, min(end, at + _LONGEST_ESCAPE * _EDGE))
            found = found if found is not None and found.start() < at else None
    return "".join((*shown, text[at:]))


@lru_cache(maxsize=256)
def _forms_of(secret: str) -> re.Pattern[str]:
    """A pattern for a secret in the forms that it may be repeated in."""
    edge = "[A-Za-z0-9+/_-]{0,2}"  # characters that the secret shares with what stands beside it
    forms = [
        _spelled(secret),
        re.escape(secret),
        *(f"{edge}{re.escape(form)}{edge}={{0,2}}" for form in _in_base64(secret)),
    ]
    return re.compile("|".join(forms))


def _spelled(secret: str) -> str:
    r"""A secret character by character, a run of backslashes as one.

    Text may have many of them for each, so they are taken together, and none is given back (`{n,}+`): else the ways to
    divide them among the secret's would be tried one after another, which are as many as two to their number.
    """
    parts: list[str] = []
    after_run = False
    for piece in _PIECES.findall(secret):
        is_run = piece[0] == "\\"
        parts.append(_backslashes(len(piece), first=not parts) if is_run else _character(piece, after_run))
        after_run = is_run
    return "".join(parts)


def _backslashes(number: int, *, first: bool) -> str:
    alone = r"(?<!\\)" if first else ""  # where a run begins, or it would be gone through from each of its places
    url = rf"(?:%(?:25){{0,4}}5[cC]){{{number}}}"
    return rf"(?:{alone}(?:\\{{1,8}}u005[cC]){{{number}}}|{url}|{alone}\\{{{number},}}+)"


@lru_cache(maxsize=1024)
def _character(one: str, after_run: bool) -> str:
    plain = re.escape(one)
    if one.isascii() and one.isalnum():
        return plain
    if one == " ":
        return r"(?:[ +]|%(?:25){0,4}20)"
    least = 0 if after_run else 1  # backslashes: those of a run before it have taken its own
    json = "".join(rf"\\{{{least},8}}u{_either(f'{number:04x}')}" for number in _utf16(one))
    url = "".join(rf"%(?:25){{0,4}}{_either(f'{byte:02x}')}" for byte in one.encode("utf-8", "surrogatepass"))
    return rf"(?:\\{{0,8}}{plain}|{json}|{url})"


def _either(digits: str) -> str:
    """Hexadecimal digits, small or large."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _utf16(one: str) -> list[int]:
    data = one.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[start : start + 2]) for start in range(0, len(data), 2)]


def _in_base64(secret: str) -> set[str]:
    """What every base64 text with the secret in it contains, wherever in the text the secret begins."""
    found = set()
    data = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        start = -(-before * 8 // 6)  # the characters that also depend on what stands before
        whole = (before + len(data)) * 8 // 6  # and those that do not depend on what follows
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            piece = encode(b"\0" * before + data).decode()[start:whole]
            if len(piece) >= _SHORTEST_BASE64:
                found.add(piece)
    return found
