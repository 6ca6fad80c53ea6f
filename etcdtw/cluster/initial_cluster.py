"""The founding members as ``--initial-cluster`` names them: ``name=url,name=url,...``.

The texts of the errors are etcd's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from etcdtw.cluster.urls import MemberUrl, UrlError, parse_url

InitialCluster = Mapping[str, tuple[MemberUrl, ...]]
"""Peer URLs by member name, sorted as text."""


class InitialClusterError(ValueError):
    """The flag does not describe a cluster that this member could found."""


def parse_initial_cluster(text: str) -> dict[str, tuple[MemberUrl, ...]]:
    """Parse the flag; a name may come again with another URL.

    Raises `InitialClusterError`.  An empty text is an empty cluster.
    """
    found: dict[str, list[MemberUrl]] = {}
    for pair in text.split(",") if text else ():
        name, equals, address = pair.strip().partition("=")
        if not equals or not name:
            raise InitialClusterError(f"{pair!r} is not of the form name=url")
        try:
            found.setdefault(name, []).append(parse_url(address))
        except UrlError as error:
            raise InitialClusterError(str(error)) from error
    return {name: tuple(sorted(urls, key=str)) for name, urls in found.items()}


def check_named_once(text: str, cluster: InitialCluster, name: str) -> tuple[MemberUrl, ...]:
    """Check that ``name`` is there and no URL comes twice; returns the name's URLs.

    ``text``: the flag, for the message.  Raises `InitialClusterError`.
    """
    mine = cluster.get(name)
    if mine is None:
        raise InitialClusterError(
            f'couldn\'t find local name "{name}" in the initial cluster configuration'
        )
    urls = [url for member_urls in cluster.values() for url in member_urls]
    if len(set(urls)) != len(urls):
        raise InitialClusterError(f"initial cluster {text} has duplicate url")
    return mine


def check_own_place(
    text: str, cluster: InitialCluster, name: str, advertised: Iterable[MemberUrl]
) -> None:
    """Check that ``name`` founds the cluster with the URLs that it advertises.

    ``text``: the flag, for the message.  Raises `InitialClusterError`.  Names are compared as
    text: etcd also resolves host names, so two spellings of one address are refused here.
    """
    mine = check_named_once(text, cluster, name)
    given = tuple(sorted(advertised, key=str))
    missing = [url for url in given if url not in mine]
    if missing:
        shown = ",".join(f"{name}={url}" for url in missing)
        raise InitialClusterError(
            f"--initial-advertise-peer-urls has {shown} but missing from --initial-cluster={text}"
        )
    missing = [url for url in mine if url not in given]
    if missing:
        shown = ",".join(f"{name}={url}" for url in missing)
        advertised_text = ",".join(str(url) for url in given)
        raise InitialClusterError(
            f"--initial-cluster has {shown} but missing from "
            f"--initial-advertise-peer-urls={advertised_text}"
        )
