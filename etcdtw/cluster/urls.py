"""URLs of members: the form that etcd accepts in flags, and its words when it does not.

A member URL is a scheme and an address, nothing else; see etcd's configuration options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, NamedTuple

SCHEMES: Final = ("http", "https", "unix", "unixs")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
_BAD_HOST_OCTET: Final = re.compile(r'[\x00-\x20"<>\\^`{|}\x7f]')
_PORT: Final = re.compile(r"[0-9]*\Z")
_PORT_DIGITS_MAX: Final = 5


class UrlError(ValueError):
    """The text is not a member URL; the message is etcd's."""


class MemberUrl(NamedTuple):
    """One URL of a member.  ``host`` has no brackets; a unix URL has its path there."""

    scheme: str
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("https", "unixs")

    @property
    def is_unix(self) -> bool:
        return self.scheme in ("unix", "unixs")

    def __str__(self) -> str:
        if self.is_unix:
            return f"{self.scheme}://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_url(text: str) -> MemberUrl:
    """Parse one URL; white space around it is dropped.  Raises `UrlError`."""
    text = text.strip()
    match = _SCHEME.match(text)
    if match is None and ":" in text.split("/", 1)[0]:
        raise UrlError(f'parse "{text}": first path segment in URL cannot contain colon')
    scheme = match.group(1).lower() if match else ""
    if match is None or scheme not in SCHEMES:
        raise UrlError(f"URL scheme must be http, https, unix, or unixs: {text}")
    rest = match.group(2)
    if not rest.startswith("//"):
        raise UrlError(f'URL address does not have the form "host:port": {text}')
    if scheme in ("unix", "unixs"):
        return MemberUrl(scheme, rest[2:], 0)
    authority, slash, _path = rest[2:].partition("/")
    host, port = _split_authority(text, authority)
    if slash:
        raise UrlError(f"URL must not contain a path: {text}")
    return MemberUrl(scheme, host, port)


def _split_authority(text: str, authority: str) -> tuple[str, int]:
    bad = _BAD_HOST_OCTET.search(authority)
    if bad is not None:
        raise UrlError(f'parse "{text}": invalid character "{bad.group()}" in host name')
    if authority.startswith("["):
        host, bracket, tail = authority[1:].partition("]")
        if not bracket:
            raise UrlError(f"parse \"{text}\": missing ']' in host")
    else:
        host, colon, digits = authority.partition(":")
        tail = colon + digits
    if tail and not (tail[0] == ":" and _PORT.match(tail[1:])):
        raise UrlError(f'parse "{text}": invalid port "{tail}" after host')
    if not tail:
        raise UrlError(f'URL address does not have the form "host:port": {text}')
    digits = tail[1:].lstrip("0") or "0"
    if len(digits) > _PORT_DIGITS_MAX or int(digits) > 65535:
        raise UrlError(f"listen port {digits} is not in 0..65535: {text}")
    return host, int(digits)


def parse_urls(text: str) -> tuple[MemberUrl, ...]:
    """Parse a comma-separated list.  Returns the URLs in etcd's order: sorted as text."""
    return tuple(sorted((parse_url(one) for one in text.split(",")), key=str))


def own_address(urls: Iterable[MemberUrl]) -> str | None:
    """Return the first IP address among the hosts that others can reach; None: there is none."""
    for url in urls:
        try:
            address = ip_address(url.host)
        except ValueError:
            continue
        if not (url.is_unix or address.is_loopback or address.is_unspecified):
            return str(address)
    return None
