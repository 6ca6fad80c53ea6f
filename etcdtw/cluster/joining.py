"""How a new member of a running cluster learns who it is: by its peer URLs.

The texts of the errors are etcd's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from etcdtw.cluster.ids import id_text
from etcdtw.cluster.initial_cluster import InitialCluster
from etcdtw.cluster.line import joining_line
from etcdtw.cluster.member import Member
from etcdtw.cluster.remote import RemoteVersion
from etcdtw.cluster.urls import MemberUrl, UrlError, parse_url
from etcdtw.cluster.version import Version, may_join

Resolve = Callable[[str], str]
"""The address of a host name; what cannot be resolved comes back as it is."""


class JoinError(Exception):
    """This member cannot join with these flags."""


class RemoteCluster(NamedTuple):
    """What a running cluster says of itself to one who wants in."""

    cluster_id: int
    """From the X-Etcd-Cluster-ID header of the answer."""
    members: tuple[Member, ...]
    versions: Mapping[int, RemoteVersion]
    """``/version`` of each member that answered."""


def urls_to_ask(cluster: InitialCluster, name: str) -> tuple[str, ...]:
    """Return where the others are, in the order in which etcd asks: sorted as text."""
    return tuple(
        sorted(str(url) for other, urls in cluster.items() if other != name for url in urls)
    )


def as_it_is(host: str) -> str:
    """Resolve nothing: names are compared as text."""
    return host


def match_members(
    cluster: InitialCluster, remote: RemoteCluster, resolve: Resolve = as_it_is
) -> dict[str, Member]:
    """Return the cluster's members by the names that ``--initial-cluster`` gives them.

    Names and members are matched by peer URLs, host names by their addresses.  Raises
    `JoinError` unless every member has one name and every name one member.
    """
    if len(remote.members) != len(cluster):
        raise _invalid(remote.members, "member count is unequal")
    names = {_resolved(urls, resolve): name for name, urls in cluster.items()}
    found: dict[str, Member] = {}
    for member in remote.members:
        name = names.get(_resolved(_parsed(member.peer_urls), resolve))
        if name is None or name in found:
            raise _invalid(
                remote.members,
                f"PeerURLs: no match found for existing member ({id_text(member.member_id)}, "
                f"[{' '.join(member.peer_urls)}]), last resolver error (None)",
            )
        found[name] = member
    return found


def _invalid(members: Iterable[Member], reason: str) -> JoinError:
    shown = " ".join(
        f"{id_text(one.member_id)}:{one.name}=[{' '.join(one.peer_urls)}]" for one in members
    )
    return JoinError(f"error validating peerURLs {{{shown}}}: {reason}")


def _parsed(texts: Sequence[str]) -> list[MemberUrl]:
    try:
        return [parse_url(text) for text in texts]
    except UrlError:
        return []  # what nobody can dial matches nothing


def _resolved(urls: Iterable[MemberUrl], resolve: Resolve) -> tuple[str, ...]:
    return tuple(
        sorted(str(url if url.is_unix else url._replace(host=resolve(url.host))) for url in urls)
    )


def check_versions(versions: Iterable[RemoteVersion]) -> Version:
    """Return the line to join with.  Raises `JoinError` when there is none in common."""
    known = list(versions)
    clusters = [one.cluster for one in known if one.cluster is not None]
    line = joining_line(clusters, (one.server for one in known))
    if line is None or not may_join(line, clusters):
        raise JoinError("incompatible with current running cluster")
    return line


def check_learners(max_learners: int, members: Iterable[Member]) -> None:
    """Raises `JoinError` when the cluster has more learners than ``--max-learners`` allows."""
    count = sum(one.is_learner for one in members)
    if count > max_learners:
        raise JoinError(
            f"max learners is set to {max_learners} and the cluster has {count}: give "
            "--max-learners the same value on all members"
        )


def check_not_bootstrapped(member_id: int, members: Iterable[Member]) -> None:
    """Raises `JoinError` when a member that founds or joins has run before and its data is gone."""
    for one in members:
        if one.member_id == member_id and one.client_urls:
            raise JoinError(
                f"member {id_text(member_id)} has already been bootstrapped: its data directory "
                "is another or empty. Remove the member and add it again"
            )
