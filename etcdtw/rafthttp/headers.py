"""The headers by which members know each other, and the checks on them.

Ids are hexadecimal without padding.  Texts are etcd's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from etcdtw.cluster.ids import id_text, parse_id
from etcdtw.cluster.version import CLUSTER_VERSION_MIN, Version, VersionError, parse_version

INCOMPATIBLE_VERSION: Final = "incompatible version"
CLUSTER_ID_MISMATCH: Final = "cluster ID mismatch"
ID_SHOWN_MAX: Final = 32

PEER_URLS_MAX: Final = 16
"""Of one stranger."""

_VERSION_UNSAID: Final = Version(2, 0, 0)


@dataclass(kw_only=True)
class PeerIdentity:
    """Who we are to our peers.

    ``version``: the etcd release whose protocol is kept; it follows the cluster's.
    """

    cluster_id: int
    member_id: int
    version: Version
    peer_urls: tuple[str, ...]


def request_headers(identity: PeerIdentity, to: int | None = None) -> list[tuple[str, str]]:
    """Return what every request to a peer says; ``to`` belongs to streams."""
    headers = [
        ("X-Server-From", id_text(identity.member_id)),
        ("X-Server-Version", str(identity.version)),
        ("X-Min-Cluster-Version", str(CLUSTER_VERSION_MIN)),
        ("X-Etcd-Cluster-ID", id_text(identity.cluster_id)),
        ("X-PeerURLs", ",".join(identity.peer_urls)),
    ]
    if to is not None:
        headers.append(("X-Raft-To", id_text(to)))
    return headers


def incompatibility(identity: PeerIdentity, headers: dict[str, str]) -> str | None:
    """Return why these headers are not those of a member of our cluster; None: they are."""
    server = _version(headers.get("x-server-version"))
    cluster_min = _version(headers.get("x-min-cluster-version"))
    if server is None or cluster_min is None:
        return INCOMPATIBLE_VERSION
    if server.line < CLUSTER_VERSION_MIN or cluster_min.line > identity.version.line:
        return INCOMPATIBLE_VERSION
    if not is_of_cluster(identity, headers):
        return CLUSTER_ID_MISMATCH
    return None


def mismatch_text(identity: PeerIdentity, headers: dict[str, str]) -> str:
    """Return what operators need to know when another names another cluster than ours."""
    other = headers.get("x-etcd-cluster-id", "none")[:ID_SHOWN_MAX]
    return (
        f"{CLUSTER_ID_MISMATCH}: this member is of cluster {id_text(identity.cluster_id)}, the "
        f"other of {other!a}; compare --initial-cluster, --initial-cluster-token and the data "
        "directories of both: one of them was founded apart, or its URL is another cluster's"
    )


def is_of_cluster(identity: PeerIdentity, headers: dict[str, str]) -> bool:
    """Tell whether a request or an answer names our cluster; all that members say does."""
    return headers.get("x-etcd-cluster-id", "").lower() == id_text(identity.cluster_id)


def sender_of(headers: dict[str, str]) -> int | None:
    """Return the id of the member that asks; None: it does not say."""
    try:
        return parse_id(headers.get("x-server-from", ""))
    except ValueError:
        return None


def urls_of(headers: dict[str, str]) -> list[str]:
    """Return where the member that asks says it is reached; bounded, not checked."""
    urls = [url.strip() for url in headers.get("x-peerurls", "").split(",", PEER_URLS_MAX)]
    return [url for url in urls[:PEER_URLS_MAX] if url]


def _version(text: str | None) -> Version | None:
    if text is None:
        return _VERSION_UNSAID
    try:
        return parse_version(text)
    except VersionError:
        return None
