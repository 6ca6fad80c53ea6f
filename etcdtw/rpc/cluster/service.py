"""etcd's Cluster service: who the members are, and how that changes.

Checks before a proposal are `cluster.reconfiguration`; what counts is decided again when the
change is applied, by every member alike.  Responses come after that.  Their headers carry no
revision.  Source: etcd v3 api, Cluster; error texts are in `rpc.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from etcdtw.apply.errors import (
    LearnerNotReadyError,
    NotEnoughStartedError,
    NotLeaderError,
    UnhealthyClusterError,
)
from etcdtw.cluster import reconfiguration as rules
from etcdtw.cluster.errors import MemberIdNotFoundError, MembershipError
from etcdtw.cluster.ids import member_id as member_id_of
from etcdtw.cluster.member import Member, encode_member, encode_promotion
from etcdtw.cluster.membership import ADD_LEARNER_NODE, ADD_NODE, REMOVE_NODE, UPDATE_NODE
from etcdtw.cluster.urls import UrlError, parse_url
from etcdtw.grpc.call import Call, MethodTable
from etcdtw.node.duties.conf_changes import ConfChangeDone
from etcdtw.node.facade import Facade
from etcdtw.rpc.cluster.promotion import PATH, promotion_outcome
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail, status_error, status_of
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.leader_line import LeaderLine
from etcdtw.wire import etcdserverpb as pb


class ClusterService:
    """Lists and changes the members.

    ``unix_s``: the wall clock, which goes into the id of an added member.  ``is_strict``:
    ``--strict-reconfig-check``.  ``line``: None while no other member can be asked.  ``guard``
    None: everybody may change everything.
    """

    def __init__(
        self,
        node: Facade,
        *,
        unix_s: Callable[[], int],
        is_strict: bool = True,
        line: LeaderLine | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._node = node
        self._guard = guard
        self._unix_s = unix_s
        self._is_strict = is_strict
        self._line = line
        self.promotions_total = 0
        self.failed_promotions: dict[str, int] = {}
        """How often, by the reason in etcd's words."""

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        prefix = "/etcdserverpb.Cluster/"
        methods.add_unary(prefix + "MemberAdd", self.member_add)
        methods.add_unary(prefix + "MemberRemove", self.member_remove)
        methods.add_unary(prefix + "MemberUpdate", self.member_update)
        methods.add_unary(prefix + "MemberPromote", self.member_promote)
        methods.add_unary(prefix + "MemberList", self.member_list)

    # Who is there.

    def member_list(self, call: Call, message: bytes) -> bytes | None:
        """Return the members; ``linearizable`` asks the quorum first."""
        if decode(pb.MemberListRequest, message).linearizable:
            self._node.read(call, self._answer_list)
            return None
        return self._body(pb.MemberListResponse(members=self._members()))

    def _answer_list(self, call: Call, error: Exception | None) -> None:
        if error is not None:
            fail(call, error)
        else:
            call.reply(self._body(pb.MemberListResponse(members=self._members())))

    # Changes.

    def member_add(self, call: Call, message: bytes) -> None:
        """Add a voter or a learner; it counts from now on, started or not."""
        request = decode(pb.MemberAddRequest, message)
        try:
            urls = sorted(str(parse_url(text)) for text in request.peerURLs)
        except UrlError:
            urls = []
        if not urls:
            raise status_error("MemberBadURLs")
        refusal = None if self._guard is None else self._guard.admin_refusal(call.caller)
        if refusal is not None:
            fail(call, refusal)
            return
        member = Member(
            member_id=member_id_of(urls, "", self._unix_s()),
            peer_urls=tuple(urls),
            is_learner=request.isLearner,
        )
        refusal = self._refusal_to_add(member.is_learner) if self._is_strict else None
        if refusal is not None:
            fail(call, refusal)
            return
        kind = ADD_LEARNER_NODE if member.is_learner else ADD_NODE

        def done(call: Call, error: Exception | None) -> None:
            if error is not None:
                fail(call, error)
                return
            response = pb.MemberAddResponse(member=_message(member), members=self._members())
            call.reply(self._body(response))

        self._node.conf_changes.propose(kind, member.member_id, encode_member(member), call, done)

    def _refusal_to_add(self, is_learner: bool) -> Exception | None:
        voters = self._node.members.voters()
        if not is_learner and not rules.can_add_voter(voters):
            return NotEnoughStartedError()
        node = self._node
        if not rules.quorum_is_connected(voters, node.member_id, node.connected_since, node.now_ms):
            return UnhealthyClusterError()
        return None

    def member_remove(self, call: Call, message: bytes) -> None:
        """Remove a member; its id never comes back."""
        member_id = decode(pb.MemberRemoveRequest, message).ID
        refusal = self._refusal_to_remove(member_id)
        if refusal is not None:
            fail(call, refusal)
            return
        done = self._answering(lambda: pb.MemberRemoveResponse(members=self._members()))
        self._node.conf_changes.propose(REMOVE_NODE, member_id, b"", call, done)

    def _refusal_to_remove(self, member_id: int) -> Exception | None:
        voters = self._node.members.voters()
        if [one.member_id for one in voters] == [member_id]:
            # Also without strict checks: nobody could apply it, on any member (etcd dies).
            return NotEnoughStartedError()
        member = self._node.members.member(member_id)
        if not self._is_strict or (member is not None and member.is_learner):
            return None
        if not rules.can_remove_voter(voters, member_id):
            return NotEnoughStartedError()
        node = self._node
        if not rules.quorum_survives_removal(
            voters, member_id, node.member_id, node.connected_since, node.now_ms
        ):
            return UnhealthyClusterError()
        return None

    def member_update(self, call: Call, message: bytes) -> None:
        """Change where a member's peers find it.  The URLs are not checked, as in etcd."""
        request = decode(pb.MemberUpdateRequest, message)
        member = Member(member_id=request.ID, peer_urls=tuple(request.peerURLs))
        done = self._answering(lambda: pb.MemberUpdateResponse(members=self._members()))
        self._node.conf_changes.propose(
            UPDATE_NODE, member.member_id, encode_member(member), call, done
        )

    def member_promote(self, call: Call, message: bytes) -> None:
        """Make a learner a voter; only the leader can tell whether it is ready."""
        member_id = decode(pb.MemberPromoteRequest, message).ID
        if self._node.is_leader or self._line is None:
            self.promote(
                member_id,
                call,
                self._answering(lambda: pb.MemberPromoteResponse(members=self._members())),
            )
            return

        def answered(status: int, body: bytes) -> None:
            error, members = promotion_outcome(member_id, status, body)
            if error is not None:
                fail(call, error)
            else:
                response = pb.MemberPromoteResponse(members=map(_message, members))
                call.reply(self._body(response))

        self._line.ask_leader(f"{PATH}{member_id}", b"", answered)

    def promote(self, member_id: int, call: Call, done: ConfChangeDone) -> None:
        """Promote a learner as the leader; also for a member that has forwarded it."""

        def counted(call: Call, error: Exception | None) -> None:
            self._count_promotion(error)
            done(call, error)

        refusal = self._refusal_to_promote(member_id)
        if refusal is not None:
            counted(call, refusal)
        else:
            context = encode_promotion(member_id)
            self._node.conf_changes.propose(ADD_NODE, member_id, context, call, counted)

    def _count_promotion(self, error: Exception | None) -> None:
        if error is None:
            self.promotions_total += 1
        elif not isinstance(error, NotLeaderError):
            reason = error.text if isinstance(error, MembershipError) else status_of(error)[1]
            self.failed_promotions[reason] = self.failed_promotions.get(reason, 0) + 1

    def _refusal_to_promote(self, member_id: int) -> Exception | None:
        node = self._node
        if not node.is_leader:
            return NotLeaderError()
        match_index = node.match_index(member_id)
        if match_index is None:
            return MemberIdNotFoundError(member_id)
        if not rules.learner_is_ready(match_index, node.match_index(node.member_id) or 0):
            return LearnerNotReadyError()
        member = node.members.member(member_id)
        if member is not None and member.is_learner and not member.is_started:
            # What has matched may be a directory that was wiped since (etcd's PR 15096).
            return LearnerNotReadyError()
        if self._is_strict and not rules.can_promote(node.members.voters()):
            return NotEnoughStartedError()
        return None

    # Answers.

    def _answering(self, response: Callable[[], _Response]) -> ConfChangeDone:
        def done(call: Call, error: Exception | None) -> None:
            if error is not None:
                fail(call, error)
            else:
                call.reply(self._body(response()))

        return done

    def _body(self, response: _Response) -> bytes:
        return self._node.header(0) + response.SerializeToString()

    def _members(self) -> Sequence[pb.Member]:
        return [_message(member) for member in self._node.members.all()]


class _Response(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


def _message(member: Member) -> pb.Member:
    return pb.Member(
        ID=member.member_id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )
