"""Ids of members and clusters.  Pure: time is an argument.

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
