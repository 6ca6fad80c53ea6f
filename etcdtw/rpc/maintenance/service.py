"""etcd's Maintenance service for one member: status, hashes, alarms, defragment.

Source: etcd v3 api, Maintenance; error texts are in `rpc.errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from etcdtw.apply.alarms import NAMES, alarm_name, encode_alarms
from etcdtw.apply.applier import FIELD_ALARM
from etcdtw.apply.errors import BadTransfereeError, NotLeaderError
from etcdtw.cluster.divergence import KeyHash
from etcdtw.grpc.call import INVALID_ARGUMENT, UNKNOWN, Call, MethodTable, StatusError
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.duties.key_hashes import HASH_BOUNDS_S
from etcdtw.node.facade import Facade
from etcdtw.node.intake.requests import Done
from etcdtw.rpc.answers import answer_applied
from etcdtw.rpc.decode import decode, decode_entry
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.storage.state.errands import ErrandError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.histogram import Histogram, exponential_bounds

DEFRAGMENT_BOUNDS_S: Final = exponential_bounds(0.1, 13)
NO_LEADER_TEXT: Final = "etcdserver: no leader"


class MaintenanceService:
    """Answers about this member.  ``guard`` None: everybody may raise and clear alarms."""

    def __init__(self, node: Facade, quota_bytes: int, guard: Guard | None = None) -> None:
        self._node = node
        self._answer: Done = partial(answer_applied, node)
        self._guard = guard
        self._quota_bytes = quota_bytes
        self.hash_s = Histogram(HASH_BOUNDS_S)
        self.defragment_s = Histogram(DEFRAGMENT_BOUNDS_S)
        self.defragments_pending = 0
        self.on_defragment: Callable[[bool], None] | None = None
        """Told whether this member is to be asked: False while it defragments."""

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        prefix = "/etcdserverpb.Maintenance/"
        methods.add_unary(prefix + "Status", self.status)
        methods.add_unary(prefix + "Alarm", self.alarm)
        methods.add_unary(prefix + "Hash", self.hash)
        methods.add_unary(prefix + "HashKV", self.hash_kv)
        methods.add_unary(prefix + "Defragment", self.defragment)
        methods.add_unary(prefix + "MoveLeader", self.move_leader)

    def status(self, call: Call, message: bytes) -> bytes:
        """Return what this member knows of itself; no quorum is asked."""
        decode(pb.StatusRequest, message)
        node = self._node
        errors = [
            f"memberID:{member_id} alarm:{alarm_name(alarm)}"
            for member_id, alarm in node.alarms.active()
        ]
        if node.leader_id == 0:
            errors.append(NO_LEADER_TEXT)
        response = pb.StatusResponse(
            version=node.members.server_version,
            dbSize=node.storage.size_allocated,
            dbSizeInUse=node.storage.size_in_use,
            dbSizeQuota=self._quota_bytes,
            leader=node.leader_id,
            raftIndex=node.commit_index,
            raftTerm=node.term,
            raftAppliedIndex=node.applied_index,
            errors=errors,
            isLearner=node.is_learner,
            storageVersion=node.members.storage_version,
            downgradeInfo=pb.DowngradeInfo(
                enabled=node.members.downgrade_target is not None,
                targetVersion=node.members.downgrade_target or "",
            ),
        )
        return node.header(node.store.revision) + response.SerializeToString()

    def alarm(self, call: Call, message: bytes) -> bytes | None:
        """List alarms after a read of the quorum, or raise and clear them through the log."""
        request, message = decode_entry(pb.AlarmRequest, message)
        refusal = self._alarm_refusal(call, is_look=request.action == pb.AlarmRequest.GET)
        if refusal is not None:
            fail(call, refusal)
            return None
        if request.alarm not in NAMES:
            # etcd has no check here, and its members die when they apply such an alarm.
            raise StatusError(INVALID_ARGUMENT, f"etcdserver: unknown alarm {request.alarm}")
        if request.action == pb.AlarmRequest.GET:
            kind = request.alarm
            self._node.read(call, lambda call, error: self._answer_list(call, error, kind))
        else:
            self._node.propose(FIELD_ALARM, message, request, call, self._answer)
        return None

    def _alarm_refusal(self, call: Call, *, is_look: bool) -> Exception | None:
        guard = self._guard
        if guard is None:
            return None
        return guard.user_refusal(call.caller) if is_look else guard.admin_refusal(call.caller)

    def _answer_list(self, call: Call, error: Exception | None, kind: int) -> None:
        if error is not None:
            fail(call, error)
            return
        node = self._node
        call.reply(node.header(node.store.revision) + encode_alarms(node.alarms.active(kind)))

    def move_leader(self, call: Call, message: bytes) -> None:
        """Hand the leadership to another voter; answered when it leads."""
        target_id = decode(pb.MoveLeaderRequest, message).targetID
        node = self._node
        if not node.is_leader:
            fail(call, NotLeaderError())
            return
        target = node.members.member(target_id)
        if target is None or target.is_learner:
            fail(call, BadTransfereeError())
            return
        node.transfers.start(target_id, call, _answer_move)

    def hash(self, call: Call, message: bytes) -> None:
        """Hash the whole state; comparable only between members of one version."""
        decode(pb.HashRequest, message)
        node = self._node
        started_s = node.clock.seconds()

        def done(value: int | ErrandError) -> None:
            if isinstance(value, ErrandError):
                fail(call, value)
                return
            self.hash_s.observe(node.clock.seconds() - started_s)
            body = pb.HashResponse(hash=value).SerializeToString()
            call.reply(node.header(node.store.revision) + body)

        node.storage.hash_all(done)

    def hash_kv(self, call: Call, message: bytes) -> None:
        """Hash all revisions up to the asked-for one, as etcd does, octet for octet."""
        node = self._node

        def hashed(found: KeyHash | ErrandError | MvccError) -> None:
            if not isinstance(found, KeyHash):
                fail(call, found)
                return
            response = pb.HashKVResponse(
                hash=found.value,
                compact_revision=found.compact_revision,
                hash_revision=found.hash_revision,
            )
            call.reply(node.header(found.revision) + response.SerializeToString())

        node.hashes.compute(decode(pb.HashKVRequest, message).revision, hashed)

    def defragment(self, call: Call, message: bytes) -> None:
        """Give the free pages of the state's file back to the filesystem.

        etcd stalls meanwhile; here the writer process copies, and nobody waits for it.
        """
        decode(pb.DefragmentRequest, message)
        started_s = self._node.clock.seconds()
        self.defragments_pending += 1
        if self.on_defragment is not None:
            self.on_defragment(False)

        def done(error: str) -> None:
            self.defragments_pending -= 1
            if self.on_defragment is not None:
                self.on_defragment(not self.defragments_pending)
            self.defragment_s.observe(self._node.clock.seconds() - started_s)
            if error:
                call.fail(UNKNOWN, error)
            else:
                call.reply(b"")

        self._node.storage.defragment(done)


def _answer_move(call: Call, error: Exception | None) -> None:
    if error is not None:
        fail(call, error)
    else:
        call.reply(b"")
