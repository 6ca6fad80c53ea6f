"""Where a value of JSON ends, and what is wrong with one that is none, in Go's words.

Goes on in steps (a generator that yields), so that a long body holds nobody up.

Source: RFC 8259; the texts are those of Go's ``encoding/json``.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from json import JSONDecoder
from typing import Final

from etcdtw.grpc.quoting import quote_go

UNEXPECTED_END: Final = "unexpected EOF"
DEPTH_MAX: Final = 10_000
"""Go's bound on objects and arrays within one another."""
TOKENS_MAX: Final = 200_000
"""Of one body; 4 MiB of the smallest would take seconds."""
TOO_MANY_TOKENS: Final = "etcdtw: too many values in one body"
STEP: Final = 250
"""Tokens between two yields: about a millisecond."""
LONG_SIZE: Final = 64 * 1024
"""Octets between two yields, passed by one string."""
ESCAPES_MAX: Final = 10_000
"""Of a string that is none; what is wrong with one of more is not looked for."""
TOO_MANY_ESCAPES: Final = "etcdtw: a string of many escapes is none"

WINDOW_SIZE: Final = 1024 * 1024
"""Octets of a long string that are looked at first."""

_DECODER: Final = JSONDecoder()
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(
    rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
)
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SAFE: Final = bytes([octet for octet in range(0x20, 0x7F) if octet not in b'"\\'])
"""What a string may hold as it is."""
_LITERALS: Final = {0x74: b"true", 0x66: b"false", 0x6E: b"null"}

_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_OBJECT, _OBJECT_END = 0x7B, 0x7D
_ARRAY, _ARRAY_END = 0x5B, 0x5D
_COMMA: Final = 0x2C

# What may come next; names last.
_AFTER: Final = 0
_VALUE: Final = 1
_VALUE_OR_END: Final = 2
_NAME: Final = 3
_NAME_OR_END: Final = 4
_AFTER_PAIR: Final = "after object key:value pair"


class NotJsonError(Exception):
    """The octets are no JSON; the text says why."""


Steps = Generator[None, None, int]
"""Yields between steps; returns a position."""


def skip_space(body: bytes, at: int) -> int:
    """Return where the next token begins."""
    found = _SPACE.match(body, at)
    return at if found is None else found.end()


def scan_value(body: bytes, at: int) -> Steps:
    """Return the end of the value that begins at ``at``.  Raises `NotJsonError`."""
    scan = _Scan(body, at)
    size = len(body)
    tokens = 0
    yielded = at
    while True:
        tokens += 1
        if tokens % STEP == 0 or scan.at - yielded > LONG_SIZE:
            if tokens > TOKENS_MAX:
                raise NotJsonError(TOO_MANY_TOKENS)
            yielded = scan.at
            yield
        began = scan.at = skip_space(body, scan.at)
        if began >= size:
            raise NotJsonError(UNEXPECTED_END)
        if scan.expected == _AFTER:
            scan.after(body[began])
        elif scan.expected >= _NAME:
            scan.name(body[began])
        else:
            scan.value(body[began])
        if not scan.ends:
            return scan.at


class _Scan:
    """Where a scan stands: what is open, and what may come next."""

    __slots__ = ("_body", "at", "ends", "expected")

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self.at = at
        self.ends = bytearray()
        """How what is open will end."""
        self.expected = _VALUE

    def after(self, octet: int) -> None:
        """Behind a value within something: a comma, or its end."""
        end = self.ends[-1]
        self.at += 1
        if octet == _COMMA:
            self.expected = _NAME if end == _OBJECT_END else _VALUE
        elif octet == end:
            self.ends.pop()
        else:
            raise _wrong(octet, _AFTER_PAIR if end == _OBJECT_END else "after array element")

    def name(self, octet: int) -> None:
        """In an object: a name and its colon, or the end of an empty one."""
        if octet == _OBJECT_END and self.expected == _NAME_OR_END:
            self._close()
            return
        if octet != _QUOTE:
            raise _wrong(octet, "looking for beginning of object key string")
        body = self._body
        at = skip_space(body, string_end(body, self.at))
        if body[at : at + 1] != b":":
            raise _wrong_at(body, at, "after object key")
        self.at = at + 1
        self.expected = _VALUE

    def value(self, octet: int) -> None:
        """A value, the beginning of one that holds others, or the end of an empty array."""
        if octet == _OBJECT:
            self._open(octet, _OBJECT_END, _NAME_OR_END)
        elif octet == _ARRAY:
            self._open(octet, _ARRAY_END, _VALUE_OR_END)
        elif octet == _ARRAY_END and self.expected == _VALUE_OR_END:
            self._close()
        else:
            self.at = _scalar_end(self._body, self.at)
            self.expected = _AFTER

    def _open(self, octet: int, end: int, expected: int) -> None:
        if len(self.ends) >= DEPTH_MAX:
            raise _wrong(octet, "exceeded max depth")
        self.ends.append(end)
        self.at += 1
        self.expected = expected

    def _close(self) -> None:
        self.ends.pop()
        self.at += 1
        self.expected = _AFTER


def _scalar_end(body: bytes, at: int) -> int:
    """Return the end of a string, a number or a literal."""
    octet = body[at]
    if octet == _QUOTE:
        return string_end(body, at)
    literal = _LITERALS.get(octet)
    if literal is not None:
        return _literal_end(body, at, literal)
    found = _NUMBER.match(body, at)
    if found is None and octet != 0x2D:
        raise _wrong(octet, "looking for beginning of value")
    end = at + 1 if found is None else found.end()
    _check_number_end(body, at, end)
    return end


def _check_number_end(body: bytes, at: int, end: int) -> None:
    """Refuse what goes on as no number does: a sign alone, ``1.`` or ``1e``."""
    number = body[at:end]
    if number == b"-":
        raise _wrong_at(body, end, "in numeric literal")
    following = body[end : end + 1]
    if following == b"." and b"." not in number and b"e" not in number.lower():
        raise _wrong_at(body, end + 1, "after decimal point in numeric literal")
    if following in (b"e", b"E") and b"e" not in number.lower():
        behind = end + 1
        if body[behind : behind + 1] in (b"+", b"-"):
            behind += 1
        raise _wrong_at(body, behind, "in exponent of numeric literal")


def _literal_end(body: bytes, at: int, literal: bytes) -> int:
    for offset in range(1, len(literal)):
        expected = literal[offset : offset + 1]
        if body[at + offset : at + offset + 1] != expected:
            context = f"in literal {literal.decode()} (expecting '{expected.decode()}')"
            raise _wrong_at(body, at + offset, context)
    return at + len(literal)


def string_end(body: bytes, at: int) -> int:
    """Return the end of the string that begins at ``at``.  Raises `NotJsonError`."""
    quote = body.find(b'"', at + 1)
    if quote - at > LONG_SIZE and not body[at + 1 : quote].translate(None, _SAFE):
        return quote + 1
    found = _STRING.match(body, at, at + LONG_SIZE)
    return _long_string_end(body, at) if found is None else found.end()


def _long_string_end(body: bytes, at: int) -> int:
    """As `string_end`, for one that is long or none."""
    size = WINDOW_SIZE
    while True:
        end = at + size
        try:
            return at + int(_DECODER.raw_decode(body[at:end].decode("latin-1"))[1])
        except ValueError:
            if end < len(body):
                size *= 4
            elif body.count(b"\\", at) > ESCAPES_MAX:
                raise NotJsonError(TOO_MANY_ESCAPES) from None
            else:
                raise _wrong_string(body, at + 1) from None


_UNESCAPED: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPED: Final = b'"\\/bfnrtu'
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


def _wrong_string(body: bytes, at: int) -> NotJsonError:
    """Return what is wrong with a string whose inside begins at ``at``."""
    size = len(body)
    while True:
        found = _UNESCAPED.match(body, at)
        at = at if found is None else found.end()
        if at >= size:
            return NotJsonError(UNEXPECTED_END)
        if body[at] != _BACKSLASH:
            return _wrong(body[at], "in string literal")
        at += 1
        if at >= size or body[at] not in _ESCAPED:
            return _wrong_at(body, at, "in string escape code")
        at += 1
        if body[at - 1] != 0x75:
            continue
        for _ in range(4):
            if at >= size or body[at] not in _HEX:
                return _wrong_at(body, at, "in \\u hexadecimal character escape")
            at += 1


def _wrong_at(body: bytes, at: int, context: str) -> NotJsonError:
    return NotJsonError(UNEXPECTED_END) if at >= len(body) else _wrong(body[at], context)


def _wrong(octet: int, context: str) -> NotJsonError:
    if octet == 0x27:
        shown = "\\'"
    elif octet == _QUOTE:
        shown = '"'
    else:
        shown = quote_go(chr(octet).encode())[1:-1]
    return NotJsonError(f"invalid character '{shown}' {context}")
