"""What a member writes into the log about itself and the cluster, in its line's form.

Up to 3.5 members speak through keys of the old API; from 3.6 on through requests of their own.
The wrong form ends real members: 3.4 dies of the new one, 3.7 of the old one, again at every
restart.  Source: etcd's peer contract, sections 5 and 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etcdtw.cluster.ids import id_text
from etcdtw.cluster.line import writes_v2_entries
from etcdtw.cluster.member import encode_json
from etcdtw.cluster.version import Version
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import membershippb
from etcdtw.wire.entry_header import EntryHeader, encode_header


def attributes_entry(
    line: Version, request_id: int, member_id: int, name: str, client_urls: Sequence[str]
) -> bytes:
    """Return the entry that publishes a member's name and where its clients go."""
    if writes_v2_entries(line):
        value = encode_json({"name": name, "clientURLs": list(client_urls)})
        return _v2_put(request_id, f"/0/members/{id_text(member_id)}/attributes", value)
    return _internal(
        request_id,
        cluster_member_attr_set=membershippb.ClusterMemberAttrSetRequest(
            member_ID=member_id,
            member_attributes=membershippb.Attributes(name=name, client_urls=client_urls),
        ),
    )


def cluster_version_entry(line: Version, request_id: int, version: Version) -> bytes:
    """Return the entry by which the leader sets the cluster's version.

    ``line``: before the change.  What goes into 3.6 is written in the old form, for members
    that still read it; every line up to 3.6 takes that.
    """
    if writes_v2_entries(line):
        return _v2_put(request_id, "/0/version", str(version).encode())
    return _internal(
        request_id,
        cluster_version_set=membershippb.ClusterVersionSetRequest(ver=str(version)),
    )


def _v2_put(request_id: int, path: str, value: bytes) -> bytes:
    # Every plain field is written, zero or not, as etcd's encoder does.
    request = pb.Request(
        ID=request_id,
        Method=b"PUT",
        Path=path.encode(),
        Val=value,
        Dir=False,
        PrevValue=b"",
        PrevIndex=0,
        Expiration=0,
        Wait=False,
        Since=0,
        Recursive=False,
        Sorted=False,
        Quorum=False,
        Time=0,
        Stream=False,
    )
    return request.SerializeToString()


def _internal(request_id: int, **request: Any) -> bytes:
    header = encode_header(EntryHeader(request_id))
    return header + pb.InternalRaftRequest(**request).SerializeToString()
