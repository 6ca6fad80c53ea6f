"""Ids of members, clusters and requests.  Pure: time is an argument.

Member and cluster ids are the first eight octets, big-endian, of a SHA-1, so that every
member computes the same ones from the same flags; sources: etcd's peer contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Final

from etcdtw.cluster.urls import MemberUrl

ID_MAX: Final = 2**64 - 1
RESERVED_IDS: Final = frozenset((0, ID_MAX, ID_MAX - 1))
"""No member may have these: 0 means nobody, the last two are raft's local targets."""

_COUNTER_BITS: Final = 8
_TIME_BITS: Final = 40
_SUFFIX_BITS: Final = _COUNTER_BITS + _TIME_BITS


def member_id(
    peer_urls: Iterable[str | MemberUrl], cluster_token: str, added_unix_s: int | None = None
) -> int:
    """Return the id of the member with these peer URLs.

    Static bootstrap: the token of the cluster, no time.  A member added at run time: an
    empty token and the seconds at which the add was asked for.
    """
    text = "".join(sorted(str(url) for url in peer_urls)) + cluster_token
    if added_unix_s is not None:
        text += str(added_unix_s)
    return _first_octets(text.encode())


def cluster_id(member_ids: Sequence[int]) -> int:
    """Return the id of the cluster that these members founded."""
    return _first_octets(b"".join(one.to_bytes(8, "big") for one in sorted(member_ids)))


def _first_octets(data: bytes) -> int:
    # The algorithm is etcd's; nothing here depends on its strength.
    return int.from_bytes(sha1(data, usedforsecurity=False).digest()[:8], "big")


def id_text(number: int) -> str:
    """Return the hex form of paths, headers and bucket keys: lower case, no padding."""
    return f"{number:x}"


def parse_id(text: str) -> int:
    """Parse the hex form.  Raises ValueError on anything but 1 to 16 hex digits."""
    if not 1 <= len(text) <= 16 or not all(c in "0123456789abcdefABCDEF" for c in text):
        raise ValueError(f"{text!r} is not an id in hexadecimal")
    return int(text, 16)


class RequestIds:
    """Hands out request ids that no other member and no earlier run hands out.

    High 16 bits: the low bits of the member id; then 40 bits of milliseconds at the start
    of the process; then a counter, which may run on into the milliseconds: a member that
    serves under 256,000 requests a second since its start never meets a later start's.
    """

    def __init__(self, member: int, started_unix_ms: int) -> None:
        self._prefix = (member & 0xFFFF) << _SUFFIX_BITS
        self._suffix = (started_unix_ms & (1 << _TIME_BITS) - 1) << _COUNTER_BITS

    def next(self) -> int:
        """Return the next id; never 0 twice in 2**48 calls."""
        self._suffix = self._suffix + 1 & (1 << _SUFFIX_BITS) - 1
        return self._prefix | self._suffix
