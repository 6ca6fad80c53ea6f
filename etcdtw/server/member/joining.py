"""Asking a running cluster who is in it: before a member joins, and before one founds again.

Touches the network only; what the answers mean is decided in `cluster.joining`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.cluster.ids import parse_id
from etcdtw.cluster.joining import RemoteCluster
from etcdtw.cluster.member import Member, MemberFormatError
from etcdtw.cluster.remote import RemoteVersion, decode_member_list, decode_version_page
from etcdtw.transport.peer.client import Dial
from etcdtw.transport.peer.request import PeerRequestError, request_page
from etcdtw.transport.peer.seams import PageAnswer

ASK_S: Final = 5.0
"""How long one member may take to answer."""
CLUSTER_ID: Final = "x-etcd-cluster-id"
OK: Final = 200
log = Logger()


async def ask_cluster(
    dial: Dial, clock: IReactorTime, urls: Sequence[str], own_urls: Sequence[str]
) -> RemoteCluster | None:
    """Return what the first of ``urls`` that answers says of its cluster; None: none answers.

    ``own_urls``: peer URLs of the member that asks, where nobody answers yet.
    """
    for url in urls:
        answer = await _page(dial, clock, url, "/members")
        if answer is None:
            continue
        try:
            members = decode_member_list(answer.body)
            cluster_id = parse_id(dict(answer.headers).get(CLUSTER_ID, ""))
        except (MemberFormatError, ValueError) as error:
            log.warn("{url}/members is unusable: {why}", url=url, why=str(error))
            continue
        others = [one for one in members if not set(one.peer_urls).intersection(own_urls)]
        versions = {one.member_id: await _version(dial, clock, one) for one in others}
        return RemoteCluster(
            cluster_id,
            members,
            {member_id: found for member_id, found in versions.items() if found is not None},
        )
    return None


async def _version(dial: Dial, clock: IReactorTime, member: Member) -> RemoteVersion | None:
    for url in member.peer_urls:
        answer = await _page(dial, clock, url, "/version")
        if answer is not None:
            try:
                return decode_version_page(answer.body)
            except ValueError as error:
                log.warn("{url}/version is unusable: {why}", url=url, why=str(error))
    return None


async def _page(dial: Dial, clock: IReactorTime, url: str, path: str) -> PageAnswer | None:
    asked: Deferred[PageAnswer] = request_page(dial, clock, url, "GET", path, timeout_s=ASK_S)
    try:
        answer = await asked
    except PeerRequestError as error:
        log.info("no answer from {url}{path}: {why}", url=url, path=path, why=str(error))
        return None
    if answer.status != OK:
        log.info("{url}{path} answers {status}", url=url, path=path, status=answer.status)
        return None
    return answer
