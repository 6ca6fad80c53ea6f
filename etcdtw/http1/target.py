"""The target of a request line: ``/path?query``, ``*``, ``host:port``, or a whole URL."""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*:")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_AUTHORITY: Final = re.compile(
    rb"(?:[^@/?]*@)?(?P<host>(?:\[[0-9A-Za-z:.]*\]|[^:@\[\]%\"<>\\^`{|}]*)(?::[0-9]*)?)"
)


class BadTargetError(Exception):
    """It is none of these."""


def split_target(verb: bytes, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return host and port, path, and query; what a target does not have is empty.

    Raises `BadTargetError`.  Octets that no head may hold were looked for before.
    """
    authority = b""
    if target[:1] != b"/":
        if target == b"*":
            return b"", b"*", b""
        if verb == b"CONNECT":
            return b"", b"", b""
        authority, target = _split_url(target)
    path, _, query = target.partition(b"?")
    if b"%" in path and _BAD_ESCAPE.search(path) is not None:
        raise BadTargetError
    return authority, path, query


def _split_url(target: bytes) -> tuple[bytes, bytes]:
    """Return host and port of a URL, and what follows."""
    scheme = _SCHEME.match(target)
    if scheme is None:
        raise BadTargetError
    rest = target[scheme.end() :]
    if rest[:2] != b"//":
        # One that is opaque (``a:80``) has no path.
        return b"", rest if rest[:1] == b"/" else b""
    rest = rest[2:]
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    end = min(ends) if ends else len(rest)
    found = _AUTHORITY.fullmatch(rest[:end])
    if found is None:
        raise BadTargetError
    return found["host"], rest[end:]
