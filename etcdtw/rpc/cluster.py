"""etcd's Cluster service, as far as one member has a cluster: who is in it.

Source: etcd v3 api, Cluster.MemberList.  Its headers carry no revision.
"""

from __future__ import annotations

from etcdtw.grpc.call import Call, MethodTable
from etcdtw.node.node import Node
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail
from etcdtw.wire import etcdserverpb as pb


class ClusterService:
    """Lists the members."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        methods.add_unary("/etcdserverpb.Cluster/MemberList", self.member_list)

    def member_list(self, call: Call, message: bytes) -> bytes | None:
        """Return the members; ``linearizable`` asks the quorum first."""
        if decode(pb.MemberListRequest, message).linearizable:
            self._node.read(call, self._answer)
            return None
        return self._members()

    def _answer(self, call: Call, error: Exception | None) -> None:
        if error is not None:
            fail(call, error)
        else:
            call.reply(self._members())

    def _members(self) -> bytes:
        members = [
            pb.Member(
                ID=member.member_id,
                name=member.name,
                peerURLs=member.peer_urls,
                clientURLs=member.client_urls,
                isLearner=member.is_learner,
            )
            for member in self._node.members.all()
        ]
        return self._node.header(0) + pb.MemberListResponse(members=members).SerializeToString()
