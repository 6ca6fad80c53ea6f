"""The replicated state machine: one committed entry in, its outcome out.

Applying is a pure function of (state, entry): no clock, no randomness, no local configuration
and no local failure may change what an entry does, or members diverge.  What only this
member wants to know (a cost, a metric, a deadline) is decided before the proposal or after.

Source: etcd's ``InternalRaftRequest``; the rules are those of the cluster's version line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any, Final

from google.protobuf.message import DecodeError

from etcdtw.apply.alarms import Alarms, encode_alarms
from etcdtw.apply.auth_entries import NAMES as AUTH_NAMES
from etcdtw.apply.auth_entries import PARSERS as AUTH_PARSERS
from etcdtw.apply.auth_entries import AuthEntries
from etcdtw.apply.entries import FIELD_V2, UnknownEntryError, asker_of, find_request
from etcdtw.apply.errors import CorruptError, NoSpaceError
from etcdtw.apply.members import Members
from etcdtw.apply.permissions import LongCheckError, Permissions
from etcdtw.auth.switch import Switch
from etcdtw.cluster.member import MemberFormatError, decode_attributes
from etcdtw.cluster.version import VersionError
from etcdtw.lease.errors import LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.backend import BUCKET_LEASE, Backend
from etcdtw.mvcc.cost import txn_cost
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.long_entry import LongEntryError, Steps
from etcdtw.mvcc.store import Store
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb, membershippb
from etcdtw.wire.entry_header import NOBODY, Asker
from etcdtw.wire.requests import parse_put, parse_txn

FIELD_PUT: Final = 4
FIELD_DELETE_RANGE: Final = 5
FIELD_TXN: Final = 6
FIELD_COMPACTION: Final = 7
FIELD_LEASE_GRANT: Final = 8
FIELD_LEASE_REVOKE: Final = 9
FIELD_ALARM: Final = 10
FIELD_LEASE_CHECKPOINT: Final = 11
FIELD_CLUSTER_VERSION_SET: Final = 1300
FIELD_MEMBER_ATTR_SET: Final = 1301
FIELD_DOWNGRADE_INFO_SET: Final = 1302

NAMES: Final = {
    FIELD_PUT: "put",
    FIELD_DELETE_RANGE: "delete_range",
    FIELD_TXN: "txn",
    FIELD_COMPACTION: "compaction",
    FIELD_LEASE_GRANT: "lease_grant",
    FIELD_LEASE_REVOKE: "lease_revoke",
    FIELD_ALARM: "alarm",
    FIELD_LEASE_CHECKPOINT: "lease_checkpoint",
    FIELD_CLUSTER_VERSION_SET: "cluster_version_set",
    FIELD_MEMBER_ATTR_SET: "cluster_member_attr_set",
    FIELD_DOWNGRADE_INFO_SET: "downgrade_info_set",
    **AUTH_NAMES,
}

_PARSERS: Final[dict[int, Callable[[bytes], Any]]] = {
    FIELD_PUT: parse_put,
    FIELD_DELETE_RANGE: pb.DeleteRangeRequest.FromString,
    FIELD_TXN: parse_txn,
    FIELD_COMPACTION: pb.CompactionRequest.FromString,
    FIELD_LEASE_GRANT: pb.LeaseGrantRequest.FromString,
    FIELD_LEASE_REVOKE: pb.LeaseRevokeRequest.FromString,
    FIELD_ALARM: pb.AlarmRequest.FromString,
    FIELD_LEASE_CHECKPOINT: pb.LeaseCheckpointRequest.FromString,
    FIELD_CLUSTER_VERSION_SET: membershippb.ClusterVersionSetRequest.FromString,
    FIELD_MEMBER_ATTR_SET: membershippb.ClusterMemberAttrSetRequest.FromString,
    FIELD_DOWNGRADE_INFO_SET: membershippb.DowngradeInfoSetRequest.FromString,
    FIELD_V2: pb.Request.FromString,
    **AUTH_PARSERS,
}

_WITHOUT_EFFECT: Final = frozenset(
    (
        3,  # range
        1013,  # auth_status
        1102,  # auth_user_get
        1106,  # auth_user_list
        1107,  # auth_role_list
        1202,  # auth_role_get
        9900,  # downgrade_version_test
    )
)
_ATTRIBUTES_PATH: Final = re.compile(rb"/0/members/([0-9A-Fa-f]{1,16})/attributes")
_VERSION_PATH: Final = b"/0/version"

# What an alarm refuses (etcd's semantics of NOSPACE and CORRUPT).
_REFUSED_WHEN_CORRUPT: Final = frozenset(
    (
        FIELD_PUT,
        FIELD_DELETE_RANGE,
        FIELD_TXN,
        FIELD_COMPACTION,
        FIELD_LEASE_GRANT,
        FIELD_LEASE_REVOKE,
    )
)


class Applier:
    """Applies entries to store, lessor, alarms, users and membership.  One a member.

    ``permissions`` None: everybody may have everything.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        lessor: Lessor,
        members: Members,
        alarms: Alarms,
        auth: AuthEntries,
        permissions: Permissions | None = None,
    ) -> None:
        self._backend = backend
        self.counts: dict[int, int] = {}
        """Requests applied, by field; whoever measures them clears it."""
        self.failed: dict[int, int] = {}
        """Those of them that etcd counts as failures."""
        self._store = store
        self._lessor = lessor
        self._members = members
        self._alarms = alarms
        self._permissions = permissions
        self._switch = Switch() if permissions is None else permissions.switch
        self.auth = auth
        self._apply_field: dict[int, Callable[[Any], Applied]] = {
            FIELD_PUT: store.apply_put,
            FIELD_DELETE_RANGE: store.apply_delete_range,
            FIELD_TXN: store.apply_txn,
            FIELD_COMPACTION: store.apply_compaction,
            FIELD_LEASE_GRANT: self._lease_grant,
            FIELD_LEASE_REVOKE: self._lease_revoke,
            FIELD_ALARM: self._alarm,
            FIELD_LEASE_CHECKPOINT: self._lease_checkpoint,
            FIELD_CLUSTER_VERSION_SET: self._cluster_version_set,
            FIELD_MEMBER_ATTR_SET: self._member_attr_set,
            FIELD_DOWNGRADE_INFO_SET: self._downgrade_info_set,
            FIELD_V2: self._v2_request,
            **auth.deeds,
        }

    def restore(self) -> None:
        """Take what stands in the buckets: at boot, and after a snapshot."""
        rows = [
            leasepb.Lease.FromString(row) for _, row in self._backend.bucket_items(BUCKET_LEASE)
        ]
        self._lessor.restore([(lease.ID, lease.TTL, lease.RemainingTTL) for lease in rows])
        self._members.restore()
        self._alarms.restore()
        self.auth.restore()

    def apply_data(self, data: bytes) -> Applied:
        """Apply the octets of a normal entry; an empty one (a leader's no-op) does nothing.

        Raises `LongEntryError`, as `apply` does: whoever applies goes on with its steps.
        """
        if not data:
            return Applied(self._store.revision, b"", None)
        try:
            field, start, end = find_request(data)
        except ValueError as error:
            raise _unknown_entry() from error
        parse = _PARSERS.get(field)
        if parse is None:
            return self._apply_rare(field)
        try:
            request = parse(data[start:end])
            asker = NOBODY
            # A bare request of the old API is a member's own word and has no header.
            if self._switch.is_on and field != FIELD_V2:
                asker = asker_of(data, start, end)
        except (DecodeError, ValueError) as error:
            raise _unknown_entry() from error
        return self.apply(field, request, asker)

    def _apply_rare(self, field: int) -> Applied:
        if field in _WITHOUT_EFFECT:
            return Applied(self._store.revision, b"", None)
        raise _unknown_entry()

    def apply(self, field: int, request: Any, asker: Asker = NOBODY) -> Applied:
        """Apply one request of InternalRaftRequest's ``field``; errors are in the outcome.

        Puts and txns come as records of `wire.requests`, all others as protobuf's messages.
        """
        self.counts[field] = self.counts.get(field, 0) + 1
        refusal: Exception | None = None
        if self._alarms.is_any:
            refusal = self._refusal(field, request)
        if self._switch.is_on and refusal is None:
            permissions = self._permissions
            assert permissions is not None
            try:
                refusal = permissions.refusal(asker, field, request)
            except LongCheckError as check:
                steps = self._checked_steps(permissions, check.steps, asker, field, request)
                raise LongEntryError(steps) from None
        return self._apply_unless(refusal, field, request)

    def _checked_steps(
        self,
        permissions: Permissions,
        steps: Generator[None, None, None],
        asker: Asker,
        field: int,
        request: Any,
    ) -> Steps:
        """Apply a request once it is known, in steps, whether who asked may have it."""
        while True:
            yield from steps
            try:
                refusal = permissions.refusal(asker, field, request)
                break
            except LongCheckError as check:
                steps = check.steps  # another lease of the same txn
        permissions.checked()
        try:
            return self._apply_unless(refusal, field, request)
        except LongEntryError as long:
            rest = long.steps
        return (yield from rest)

    def _apply_unless(self, refusal: Exception | None, field: int, request: Any) -> Applied:
        if refusal is not None:
            self.failed[field] = self.failed.get(field, 0) + 1
            return Applied(self._store.revision, b"", refusal)
        applied = self._apply_field[field](request)
        if applied.error is not None and not isinstance(applied.error, CompactedError):
            self.failed[field] = self.failed.get(field, 0) + 1
        return applied

    def _refusal(self, field: int, request: Any) -> Exception | None:
        if self._alarms.corrupt and field in _REFUSED_WHEN_CORRUPT:
            return CorruptError()
        if self._alarms.no_space and (
            field in (FIELD_PUT, FIELD_LEASE_GRANT)
            or (field == FIELD_TXN and txn_cost(request) > 0)
        ):
            return NoSpaceError()
        return None

    def _lease_grant(self, request: pb.LeaseGrantRequest) -> Applied:
        revision = self._store.revision
        try:
            lease = self._lessor.grant(request.ID, request.TTL)
        except (LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError) as error:
            return Applied(revision, b"", error)
        self._backend.bucket_put(
            BUCKET_LEASE,
            _lease_key(lease.lease_id),
            leasepb.Lease(ID=lease.lease_id, TTL=lease.ttl_s).SerializeToString(),
        )
        body = pb.LeaseGrantResponse(ID=lease.lease_id, TTL=lease.ttl_s)
        return Applied(revision, body.SerializeToString(), None)

    def _lease_revoke(self, request: pb.LeaseRevokeRequest) -> Applied:
        if self._lessor.lookup(request.ID) is None:
            return Applied(self._store.revision, b"", LeaseNotFoundError(request.ID))
        lease_id = request.ID
        # The keys go first, in one revision; then nobody can see a lease without its keys.
        deleted: Applied | None = None
        if not self._backend.has_attached(lease_id, self._store.bounds.long_keys_min):
            deleted = self._store.delete_attached(self._backend.attached(lease_id))
        if deleted is None:
            raise LongEntryError(self._lease_revoke_steps(lease_id))
        return self._forget_lease(lease_id)

    def _lease_revoke_steps(self, lease_id: int) -> Steps:
        yield from self._store.delete_attached_steps(lease_id)
        return self._forget_lease(lease_id)

    def _forget_lease(self, lease_id: int) -> Applied:
        self._lessor.revoke(lease_id)
        self._backend.bucket_delete(BUCKET_LEASE, _lease_key(lease_id))
        return Applied(self._store.revision, b"", None)

    def _lease_checkpoint(self, request: pb.LeaseCheckpointRequest) -> Applied:
        for checkpoint in request.checkpoints:
            lease = self._lessor.lookup(checkpoint.ID)
            if lease is None:
                continue
            self._lessor.checkpoint(checkpoint.ID, checkpoint.remaining_TTL)
            if not self._members.keeps_checkpoints:
                continue
            row = leasepb.Lease(
                ID=lease.lease_id, TTL=lease.ttl_s, RemainingTTL=checkpoint.remaining_TTL
            )
            self._backend.bucket_put(
                BUCKET_LEASE, _lease_key(lease.lease_id), row.SerializeToString()
            )
        return Applied(self._store.revision, b"", None)

    def _alarm(self, request: pb.AlarmRequest) -> Applied:
        if request.action == pb.AlarmRequest.ACTIVATE:
            pairs = self._alarms.activate(request.memberID, request.alarm)
        elif request.action == pb.AlarmRequest.DEACTIVATE:
            pairs = self._alarms.deactivate(request.memberID, request.alarm)
        else:
            pairs = self._alarms.active(request.alarm)
        return Applied(self._store.revision, encode_alarms(pairs), None)

    def _cluster_version_set(self, request: Any) -> Applied:
        self._members.has_new_members = True
        self._set_cluster_version(request.ver)
        return Applied(self._store.revision, b"", None)

    def _set_cluster_version(self, text: str) -> None:
        try:
            self._members.set_cluster_version(text)
        except VersionError as error:
            raise UnknownEntryError(str(error)) from error

    def _member_attr_set(self, request: Any) -> Applied:
        self._members.has_new_members = True
        attributes = request.member_attributes
        self._members.set_attributes(
            request.member_ID, attributes.name, tuple(attributes.client_urls)
        )
        return Applied(self._store.revision, b"", None)

    def _downgrade_info_set(self, request: Any) -> Applied:
        self._members.set_downgrade(request.enabled, request.ver)
        return Applied(self._store.revision, b"", None)

    def _v2_request(self, request: Any) -> Applied:
        """Apply what the old API is still used for; anything else only moves the index."""
        self._members.has_old_members = True
        is_plain_put = request.Method == b"PUT" and not (
            request.HasField("PrevExist") or request.PrevIndex or request.PrevValue
        )
        if is_plain_put:
            published = _ATTRIBUTES_PATH.fullmatch(request.Path)
            if published is not None:
                try:
                    name, client_urls = decode_attributes(request.Val)
                except MemberFormatError as error:
                    raise UnknownEntryError(f"attributes of a member: {error}") from error
                self._members.set_attributes(int(published[1], 16), name, client_urls)
            elif request.Path == _VERSION_PATH:
                self._set_cluster_version(request.Val.decode(errors="replace"))
        return Applied(self._store.revision, b"", None)


def _unknown_entry() -> UnknownEntryError:
    return UnknownEntryError(
        "a committed entry holds no request that this version knows; "
        "run a version at least as new as the cluster's newest member"
    )


def _lease_key(lease_id: int) -> bytes:
    return lease_id.to_bytes(8, "big", signed=True)
