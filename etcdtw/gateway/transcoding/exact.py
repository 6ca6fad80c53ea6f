"""JSON to octets letter by letter, with the texts of Go's protojson for what is wrong.

For what `usual` leaves: long bodies, and those that are refused.  Goes on in steps.  Unknown
fields and unknown names of enums are skipped, as etcd's gateway asks for.

Source: Go's ``encoding/protojson``, texts and order of checks.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from json import JSONDecoder
from typing import Final

from etcdtw.gateway.transcoding.scalars import decode_base64, is_default, number_octets
from etcdtw.gateway.transcoding.scanning import (
    ESCAPES_MAX,
    LONG_SIZE,
    STEP,
    scan_value,
    skip_space,
    string_end,
)
from etcdtw.gateway.transcoding.tables import (
    BOOL,
    BYTES,
    ENUM,
    KIND_NAMES,
    MESSAGE,
    STRING,
    Field,
    Table,
)
from etcdtw.grpc.quoting import quote_go
from etcdtw.wire.encode import encode_varint

MESSAGE_DEPTH_MAX: Final = 200
"""Messages within one another; Go's bound is 10,000, the services' own far below both."""
TOO_DEEP: Final = "proto: exceeded max recursion depth"

_TOKEN: Final = re.compile(rb"-?[0-9][-+.0-9eE]*|true|false|null|[{}\[\],:]")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_DECODER: Final = JSONDecoder()
_PLAIN_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class ReadingError(Exception):
    """The JSON is no such message; the text says why."""


Reading = Generator[None, None, bytes]
"""Yields between steps; returns octets."""


def read_value(table: Table, body: bytes, at: int) -> Generator[None, None, tuple[bytes, int]]:
    """Return the message that begins at ``at`` and where it ends.

    Raises `NotJsonError` and `ReadingError`.  ``at`` is where a token begins.
    """
    end = yield from scan_value(body, at)
    octets = yield from _Reader(table, body[at:end]).read()
    return octets, end


class _Frame:
    """A message that is being read."""

    __slots__ = ("field", "found", "seen", "table")

    def __init__(self, table: Table, field: Field | None) -> None:
        self.table = table
        self.field = field
        """Of the message around it."""
        self.found: list[tuple[int, int, bytes]] = []
        self.seen: set[int | str] = set()

    def add(self, field: Field, octets: bytes) -> None:
        """Keep a field's octets, tag included; fields go out in the order of their numbers."""
        self.found.append((field.number, len(self.found), octets))

    def octets(self) -> bytes:
        """Return the message."""
        return b"".join([octets for _, _, octets in sorted(self.found)])


class _Reader:
    """Reads one value that is known to be JSON."""

    def __init__(self, table: Table, text: bytes) -> None:
        self._text = text
        self._at = 0  # of the token at hand
        self._end = 0
        self._frames = [_Frame(table, None)]
        self._steps = 0
        self._yielded = 0  # where the last step ended

    def read(self) -> Reading:
        """Return the message."""
        token = self._next()
        if token != b"{":
            raise self._unexpected(token)
        while True:
            if self._is_due():
                yield
            token = self._next()
            if token == b",":
                continue
            if token == b"}":
                frame = self._frames.pop()
                if not self._frames:
                    return frame.octets()
                self._close(frame)
                continue
            yield from self._member(token)

    def _member(self, raw_name: bytes) -> Generator[None, None, None]:
        """Read one member of an object, up to where a message within it begins."""
        frame = self._frames[-1]
        at = self._at
        name = self._string(raw_name)
        self._next()  # the colon
        field = frame.table.by_name.get(name)
        if field is None:
            yield from self._skip()
            return
        if field.number in frame.seen:
            raise self._wrong(at, f"duplicate field {raw_name.decode()}")
        frame.seen.add(field.number)
        token = self._next()
        if token == b"null":
            return
        if field.is_list:
            yield from self._list(frame, field, token)
            return
        if field.oneof is not None:
            if field.oneof in frame.seen:
                raise self._wrong(
                    at, f"error parsing {raw_name.decode()}, oneof {field.oneof} is already set"
                )
            frame.seen.add(field.oneof)
        if field.kind == MESSAGE:
            self._open(field, token)
            return
        if len(token) > LONG_SIZE:
            yield
        octets = self._scalar(field, token)
        if octets is not None and not is_default(field, octets):
            frame.add(field, _with_tag(field, octets))

    def _open(self, field: Field, token: bytes) -> None:
        """A message begins within the one at hand."""
        if len(self._frames) >= MESSAGE_DEPTH_MAX:
            raise ReadingError(TOO_DEEP)
        if token != b"{":
            raise self._unexpected(token)
        self._frames.append(_Frame(field.table, field))

    def _close(self, frame: _Frame) -> None:
        """It has ended; a list of such goes on."""
        field = frame.field
        assert field is not None
        octets = frame.octets()
        self._frames[-1].add(field, b"%b%b%b" % (field.tag, encode_varint(len(octets)), octets))
        if field.is_list:
            token = self._next()
            if token == b",":
                self._open(field, self._next())

    def _list(self, frame: _Frame, field: Field, token: bytes) -> Generator[None, None, None]:
        if token != b"[":
            raise self._unexpected(token)
        token = self._next()
        if token == b"]":
            return
        if field.kind == MESSAGE:
            self._open(field, token)
            return
        parts: list[bytes] = []
        while token != b"]":
            if token != b",":
                octets = self._scalar(field, token)
                if octets is not None:
                    parts.append(octets if field.is_packed else _with_tag(field, octets))
                if self._is_due():
                    yield
            token = self._next()
        joined = b"".join(parts)
        if joined and field.is_packed:
            joined = b"%b%b%b" % (field.tag, encode_varint(len(joined)), joined)
        frame.add(field, joined)

    def _skip(self) -> Generator[None, None, None]:
        """Pass over a value that nobody asked for; its strings must be strings all the same."""
        depth = 0
        while True:
            if self._is_due():
                yield
            token = self._next()
            if token == b"{" or token == b"[":
                depth += 1
            elif token == b"}" or token == b"]":
                depth -= 1
            elif token[0] == 0x22:
                self._string(token)
            if depth == 0:
                return

    def _scalar(self, field: Field, token: bytes) -> bytes | None:
        """Return what follows the tag; None: an unknown name, which is skipped."""
        kind = field.kind
        is_text = token[0] == 0x22
        octets: bytes | None = None
        text = self._string(token) if is_text else ""
        if kind == BOOL:
            if token == b"true" or token == b"false":
                return b"\1" if token == b"true" else b"\0"
        elif kind == STRING:
            octets = text.encode() if is_text else None
        elif kind == BYTES:
            octets = decode_base64(text) if is_text else None
        elif kind == ENUM and is_text:
            known = field.enum_numbers.get(text)
            return None if known is None else encode_varint(known)
        elif is_text:
            octets = number_octets(field, text, is_quoted=True)
        else:
            octets = number_octets(field, token.decode("latin-1"), is_quoted=False)
        if octets is None:
            shown = token.decode()
            kind_name = KIND_NAMES[kind]
            raise self._wrong(
                self._at, f"invalid value for {kind_name} field {field.json_name}: {shown}"
            )
        return octets

    # Tokens.

    def _is_due(self) -> bool:
        """Whether this step has lasted long enough."""
        self._steps += 1
        if self._steps % STEP and self._end - self._yielded <= LONG_SIZE:
            return False
        self._yielded = self._end
        return True

    def _next(self) -> bytes:
        text = self._text
        self._at = at = skip_space(text, self._end)
        if text[at] == 0x22:
            self._end = string_end(text, at)
            return text[at : self._end]
        found = _TOKEN.match(text, at)
        assert found is not None, "the text is JSON"
        self._end = found.end()
        return found.group()

    def _string(self, token: bytes) -> str:
        """Return what a string means.  Raises `ReadingError` if it is no UTF-8."""
        try:
            text = token[1:-1].decode()
        except UnicodeDecodeError:
            text = token[1:-1].decode("utf-8", "surrogateescape")
        if "\\" in text:
            return self._unescaped(text)
        return self._sound(text)

    def _sound(self, text: str) -> str:
        if not _is_sound(text):
            raise self._bad_string("invalid UTF-8 in string")
        return text

    def _unescaped(self, text: str) -> str:
        """Put characters for escapes; halves of pairs belong together."""
        found_text = str(_DECODER.decode(f'"{text}"'))
        if _is_sound(found_text):
            return found_text
        if text.count("\\") > ESCAPES_MAX:
            raise self._bad_string("invalid UTF-8 in string")
        parts: list[str] = []
        at = 0
        while (found := _ESCAPE.search(text, at)) is not None:
            parts.append(self._sound(text[at : found.start()]))
            at = found.end()
            digits = found[1]
            if digits is None:
                parts.append(_PLAIN_ESCAPES.get(found[2], found[2]))
                continue
            point = int(digits, 16)
            if 0xD800 <= point <= 0xDFFF:
                point = self._pair(text, at, point)
                at += 6
            parts.append(chr(point))
        parts.append(self._sound(text[at:]))
        return "".join(parts)

    def _pair(self, text: str, at: int, high: int) -> int:
        """Return the character of two halves, the second of which is the escape at ``at``."""
        found = _ESCAPE.match(text, at)
        low = 0 if found is None or found[1] is None else int(found[1], 16)
        if high < 0xDC00 and 0xDC00 <= low <= 0xDFFF:
            return 0x10000 + (high - 0xD800 << 10) + low - 0xDC00
        # Go shows the six octets behind the first half, whatever they are.
        behind = text[at:].encode("utf-8", "surrogateescape") + b'"' + self._text[self._end :]
        if len(behind) < 6:
            raise ReadingError("proto: unexpected EOF")
        raise self._bad_string(f"invalid escape code {quote_go(behind[:6])} in string")

    # What is wrong.

    def _bad_string(self, what: str) -> ReadingError:
        return ReadingError(f"proto: syntax error {self._place(self._at)}: {what}")

    def _unexpected(self, token: bytes) -> ReadingError:
        if token[0] == 0x22:
            self._string(token)
        shown = token.decode()
        return ReadingError(
            f"proto: syntax error {self._place(self._at)}: unexpected token {shown}"
        )

    def _wrong(self, at: int, what: str) -> ReadingError:
        return ReadingError(f"proto: {self._place(at)}: {what}")

    def _place(self, at: int) -> str:
        before = self._text[:at]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        return f"(line {line}:{column})"


def _is_sound(text: str) -> bool:
    """Whether there are no halves of pairs in it, nor octets that are no UTF-8, carried through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_tag(field: Field, octets: bytes) -> bytes:
    if field.kind < BYTES:
        return field.tag + octets
    return b"%b%b%b" % (field.tag, encode_varint(len(octets)), octets)
