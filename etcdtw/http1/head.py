"""The head of a request: its line and its fields, judged as Go's ``net/http`` judges them.

Go takes more than RFC 9112 allows (line feeds alone, folded fields) and words what it refuses;
clients of etcd see both.  Where leniency would let two ends see different messages it is strict.
"""

from __future__ import annotations

import re
from typing import Final

from etcdtw.http1.target import BadTargetError, split_target

VERSION_1_0: Final = 10
VERSION_1_1: Final = 11
CHUNKED: Final = -1
"""Stands for the length of a body that comes in chunks."""
FIELDS_MAX: Final = 1_000
LENGTH_DIGITS_MAX: Final = 18

BAD_REQUEST: Final = 400
EXPECTATION_FAILED: Final = 417
HEAD_TOO_LARGE: Final = 431
NOT_IMPLEMENTED: Final = 501
BAD_VERSION: Final = 505
UNKNOWN_CODING: Final = "Unsupported transfer encoding"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SPACED_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z ]+")
_BAD_OCTET: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""What no head may hold, and a carriage return that ends no line."""
_HOST: Final = re.compile(rb"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]*")
_DIGITS: Final = re.compile(rb"[0-9]+")
_CONTINUE: Final = re.compile(rb"(?:^|[ ,\t])100-continue(?:$|[ ,\t])", re.IGNORECASE)
_KEEP_ALIVE: Final = re.compile(rb"(?:^|[ ,\t])keep-alive(?:$|[ ,\t])", re.IGNORECASE)
_BLANK: Final = b" \t"


class HttpError(Exception):
    """A head that cannot be served.  ``text`` is what Go adds to the status; often nothing."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Head:
    """One request's head.

    ``path``: of the target, as it came, without the query; empty where a target has none.
    ``fields``: the first value of each name, names in lower case; ``repeated``: the others.
    ``length``: of the body, or `CHUNKED`.  ``keeps_alive``: as far as the client is concerned.
    """

    __slots__ = (
        "expects_continue",
        "fields",
        "host",
        "keeps_alive",
        "length",
        "path",
        "query",
        "repeated",
        "target",
        "verb",
        "version",
    )

    def __init__(self, verb: bytes, target: bytes, version: int) -> None:
        self.verb = verb
        self.target = target
        self.version = version
        self.path = b""
        self.query = b""
        self.host = b""
        self.fields: dict[bytes, bytes] = {}
        self.repeated: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.keeps_alive = False
        self.expects_continue = False

    def all_of(self, name: bytes) -> list[bytes]:
        """Return every value of a field, in their order; ``name`` in lower case."""
        first = self.fields.get(name)
        if first is None:
            return []
        return [first, *(value for other, value in self.repeated if other == name)]


def check_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return verb, target and version of a request line.  Raises `HttpError`."""
    verb, _, rest = line.partition(b" ")
    target, space, version = rest.partition(b" ")
    if not space or b"\t" in target or _TOKEN.fullmatch(verb) is None:
        raise HttpError(BAD_REQUEST)
    digits = version[5:8:2]
    if version[:5] != b"HTTP/" or version[6:7] != b"." or len(version) != 8:
        raise HttpError(BAD_REQUEST)
    if not digits.isdigit():
        raise HttpError(BAD_REQUEST)
    return verb, target, version


def parse_head(octets: bytes) -> Head:
    """Return the head in ``octets``, which end before the line that is empty.

    Raises `HttpError`.
    """
    if _BAD_OCTET.search(octets) is not None:
        raise HttpError(BAD_REQUEST)
    line, _, rest = octets.partition(b"\n")
    verb, target, version = check_request_line(line.removesuffix(b"\r"))
    head = Head(verb, target, VERSION_1_0 if version == b"HTTP/1.0" else VERSION_1_1)
    try:
        authority, head.path, head.query = split_target(verb, target)
    except BadTargetError:
        raise HttpError(BAD_REQUEST) from None
    is_spaced = _read_fields(head, rest)
    _read_framing(head)
    if version[5:6] != b"1":
        raise HttpError(BAD_VERSION, "unsupported protocol version")
    _read_host(head, authority)
    if is_spaced:
        raise HttpError(BAD_REQUEST, "invalid header name")
    _read_connection(head)
    return head


def _read_fields(head: Head, octets: bytes) -> bool:
    """Take the fields; return whether a name holds a space, which is refused later."""
    if not octets:
        return False
    if octets[0] in _BLANK:
        raise HttpError(BAD_REQUEST)
    is_folded = b"\n " in octets or b"\n\t" in octets
    lines = octets.split(b"\n")
    if is_folded:
        lines = _unfold(lines)
    if len(lines) > FIELDS_MAX:
        raise HttpError(HEAD_TOO_LARGE)
    fields = head.fields
    is_spaced = False
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HttpError(BAD_REQUEST)
        if _TOKEN.fullmatch(name) is None:
            if _SPACED_TOKEN.fullmatch(name) is None:
                raise HttpError(BAD_REQUEST)
            is_spaced = True
        name = name.lower()
        value = value.removesuffix(b"\r")
        # What Go leaves at the end of a folded value stays there.
        value = value.lstrip(_BLANK) if is_folded else value.strip(_BLANK)
        if name in fields:
            head.repeated.append((name, value))
        else:
            fields[name] = value
    return is_spaced


def _unfold(lines: list[bytes]) -> list[bytes]:
    """Return the fields, of which some stand in several lines; a blank joins these.

    No regular expression: one that looks for blanks before a line's end takes the square of their
    number.
    """
    fields: list[list[bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            parts = fields[-1]
            parts[-1] = parts[-1].removesuffix(b"\r").rstrip(_BLANK)
            parts.append(line.lstrip(_BLANK))
        else:
            fields.append([line])
    return [b" ".join(parts) for parts in fields]


def _read_framing(head: Head) -> None:
    """Find out how long the body is (RFC 9112 section 6.3)."""
    fields = head.fields
    if b"host" in fields and len(head.all_of(b"host")) > 1:
        raise HttpError(BAD_REQUEST)
    is_chunked = False
    if b"transfer-encoding" in fields and head.version >= VERSION_1_1:
        if [value.lower() for value in head.all_of(b"transfer-encoding")] != [b"chunked"]:
            raise HttpError(NOT_IMPLEMENTED, UNKNOWN_CODING)
        is_chunked = True
    if b"content-length" in fields:
        head.length = _length(head.all_of(b"content-length"))
    if is_chunked:
        head.length = CHUNKED


def _length(values: list[bytes]) -> int:
    values = [value.strip(_BLANK) for value in values]
    first = values[0]
    if any(value != first for value in values) or _DIGITS.fullmatch(first) is None:
        raise HttpError(BAD_REQUEST)
    digits = first.lstrip(b"0")
    if len(digits) > LENGTH_DIGITS_MAX:
        raise HttpError(BAD_REQUEST)
    return int(digits or b"0")


def _read_host(head: Head, authority: bytes) -> None:
    host = head.fields.get(b"host")
    if host is None:
        if head.version >= VERSION_1_1 and head.verb != b"CONNECT":
            raise HttpError(BAD_REQUEST, "missing required Host header")
        host = b""
    elif _HOST.fullmatch(host) is None:
        raise HttpError(BAD_REQUEST, "malformed Host header")
    head.host = authority or host


def _read_connection(head: Head) -> None:
    fields = head.fields
    if head.version >= VERSION_1_1:
        head.keeps_alive = b"connection" not in fields or not _has_close(head)
    elif b"connection" in fields:
        head.keeps_alive = _KEEP_ALIVE.search(fields[b"connection"]) is not None
    expected = fields.get(b"expect")
    if expected:
        if _CONTINUE.search(expected) is None:
            raise HttpError(EXPECTATION_FAILED)
        head.expects_continue = head.version >= VERSION_1_1 and head.length != 0


def _has_close(head: Head) -> bool:
    for value in head.all_of(b"connection"):
        for option in value.split(b","):
            if option.strip(_BLANK).lower() == b"close":
                return True
    return False
