"""The state machine entry by entry: dispatch, alarms, leases, the cluster's own entries."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.apply import applier as fields
from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import Applier
from etcdtw.apply.entries import UnknownEntryError
from etcdtw.apply.errors import CorruptError, NoSpaceError
from etcdtw.apply.members import Decision, Members, stored_conf_state
from etcdtw.apply.permissions import Permissions
from etcdtw.auth.switch import Switch
from etcdtw.cluster.errors import MemberIdNotFoundError
from etcdtw.cluster.member import Member, encode_member
from etcdtw.lease.errors import LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.backend import BUCKET_LEASE
from etcdtw.mvcc.store import Store
from etcdtw.raft.confchange import ADD_NODE, REMOVE_NODE, ConfChange, encode_conf_change
from etcdtw.raft.entry import ENTRY_CONF_CHANGE, ConfState, Entry
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb, membershippb
from etcdtw.wire.entry_header import Asker
from etcdtw.wire.requests import put_of
from tests.support.auth_rig import LateHashes, auth_entries
from tests.support.model_backend import ModelBackend

MEMBER = Member(member_id=7, peer_urls=("http://localhost:2380",))


class ApplierRig:
    """An applier over the model backend."""

    def __init__(self, permissions: Permissions | None = None) -> None:
        self.backend = ModelBackend()
        self.lessor = Lessor(2)
        self.store = Store(self.backend, self.lessor.exists)
        self.members = Members(self.backend, 1)
        self.alarms = Alarms(self.backend)
        self.hashes = LateHashes()
        self.applier = Applier(
            self.backend,
            self.store,
            self.lessor,
            self.members,
            self.alarms,
            auth_entries(self.backend, self.store, self.hashes),
            permissions,
        )

    def apply(self, **request: Any) -> Applied:
        """Apply an entry as the log holds it."""
        return self.applier.apply_data(pb.InternalRaftRequest(**request).SerializeToString())

    def add_member(self) -> None:
        self.change(ADD_NODE, MEMBER.member_id, encode_member(MEMBER))

    def change(self, kind: int, member_id: int, context: bytes = b"") -> Decision:
        change = ConfChange(((kind, member_id),), 0, context, ENTRY_CONF_CHANGE)
        return self.members.decide(Entry(1, 1, ENTRY_CONF_CHANGE, encode_conf_change(change)))


@pytest.fixture
def rig() -> ApplierRig:
    return ApplierRig()


def test_an_empty_entry_changes_nothing(rig: ApplierRig) -> None:
    applied = rig.applier.apply_data(b"")
    assert (applied.revision, applied.body, applied.error) == (1, b"", None)


def test_an_entry_without_a_known_request_stops_the_member(rig: ApplierRig) -> None:
    with pytest.raises(UnknownEntryError, match="run a version at least as new"):
        rig.applier.apply_data(b"\xa2\x06\x02\x08\x01\xea\x7d\x00")  # field 2013
    with pytest.raises(UnknownEntryError):
        rig.applier.apply_data(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")


def test_replayed_octets_and_a_parsed_request_come_to_the_same(rig: ApplierRig) -> None:
    request = pb.PutRequest(key=b"k", value=b"v")
    other = ApplierRig()
    assert rig.apply(put=request).revision == 2
    assert other.applier.apply(fields.FIELD_PUT, put_of(request)).revision == 2
    assert rig.backend.get(b"k") == other.backend.get(b"k")


def test_every_kind_of_request_reaches_its_rule(rig: ApplierRig) -> None:
    rig.add_member()
    put = pb.PutRequest(key=b"k", value=b"v")
    assert rig.apply(put=put).revision == 2
    txn = pb.TxnRequest(success=[pb.RequestOp(request_put=put)])
    assert rig.apply(txn=txn).revision == 3
    assert rig.apply(delete_range=pb.DeleteRangeRequest(key=b"k")).revision == 4
    assert rig.apply(compaction=pb.CompactionRequest(revision=3)).error is None
    assert rig.store.compact_revision == 3
    rig.apply(cluster_version_set=membershippb.ClusterVersionSetRequest(ver="3.7.0"))
    assert (rig.members.cluster_version, rig.members.storage_version) == ("3.7.0", "3.7.0")
    attributes = membershippb.Attributes(name="m1", client_urls=["http://a:2379"])
    rig.apply(
        cluster_member_attr_set=membershippb.ClusterMemberAttrSetRequest(
            member_ID=7, member_attributes=attributes
        )
    )
    member = rig.members.member(7)
    assert member is not None
    assert (member.name, member.client_urls) == ("m1", ("http://a:2379",))


def test_attributes_of_an_unknown_member_are_ignored(rig: ApplierRig) -> None:
    request = membershippb.ClusterMemberAttrSetRequest(member_ID=99)
    assert rig.apply(cluster_member_attr_set=request).error is None
    assert rig.members.all() == []


def test_a_granted_lease_is_kept_in_its_bucket_with_its_effective_ttl(rig: ApplierRig) -> None:
    applied = rig.apply(lease_grant=pb.LeaseGrantRequest(ID=-6, TTL=1))
    response = pb.LeaseGrantResponse.FromString(applied.body)
    assert (response.ID, response.TTL) == (-6, 2)
    [(key, row)] = rig.backend.bucket_items(BUCKET_LEASE)
    assert key == (-6).to_bytes(8, "big", signed=True)
    assert leasepb.Lease.FromString(row) == leasepb.Lease(ID=-6, TTL=2)


@pytest.mark.parametrize(
    ("lease_id", "ttl_s", "error"),
    [
        (0, 5, LeaseNotFoundError),
        (1, 5, LeaseExistsError),
        (2, 9_000_000_001, LeaseTtlTooLargeError),
    ],
)
def test_a_refused_grant_changes_nothing(
    rig: ApplierRig, lease_id: int, ttl_s: int, error: type[Exception]
) -> None:
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=5))
    applied = rig.apply(lease_grant=pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s))
    assert type(applied.error) is error
    assert len(rig.backend.bucket_items(BUCKET_LEASE)) == 1


def test_a_revoke_deletes_the_keys_in_one_revision_and_then_the_lease(rig: ApplierRig) -> None:
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=5))
    for key in (b"b", b"a"):
        rig.apply(put=pb.PutRequest(key=key, value=b"v", lease=1))
    applied = rig.apply(lease_revoke=pb.LeaseRevokeRequest(ID=1))
    assert (applied.revision, applied.error) == (4, None)
    assert rig.backend.keys(b"\0", None) == []
    assert rig.backend.bucket_items(BUCKET_LEASE) == []
    again = rig.apply(lease_revoke=pb.LeaseRevokeRequest(ID=1))
    assert type(again.error) is LeaseNotFoundError


def test_a_checkpoint_is_kept_and_one_of_a_revoked_lease_is_ignored(rig: ApplierRig) -> None:
    rig.members.set_cluster_version("3.7.0")
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=500))
    checkpoints = [
        pb.LeaseCheckpoint(ID=1, remaining_TTL=200),
        pb.LeaseCheckpoint(ID=2, remaining_TTL=200),
    ]
    rig.apply(lease_checkpoint=pb.LeaseCheckpointRequest(checkpoints=checkpoints))
    [(_, row)] = rig.backend.bucket_items(BUCKET_LEASE)
    assert leasepb.Lease.FromString(row) == leasepb.Lease(ID=1, TTL=500, RemainingTTL=200)


def test_no_space_refuses_what_grows_and_lets_the_rest_pass(rig: ApplierRig) -> None:
    put = pb.PutRequest(key=b"k", value=b"v")
    rig.apply(put=put)
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=5))
    raised = rig.apply(
        alarm=pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE)
    )
    assert pb.AlarmResponse.FromString(raised.body).alarms[0].memberID == 7
    growing = pb.TxnRequest(failure=[pb.RequestOp(request_put=put)])
    deleting = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"z"))
    refused: list[dict[str, Any]] = [
        {"put": put},
        {"txn": growing},
        {"lease_grant": pb.LeaseGrantRequest(ID=2, TTL=5)},
    ]
    for request in refused:
        assert type(rig.apply(**request).error) is NoSpaceError
    admitted: list[dict[str, Any]] = [
        {"txn": pb.TxnRequest(success=[deleting])},
        {"delete_range": pb.DeleteRangeRequest(key=b"k")},
        {"compaction": pb.CompactionRequest(revision=2)},
        {"lease_revoke": pb.LeaseRevokeRequest(ID=1)},
    ]
    for request in admitted:
        assert rig.apply(**request).error is None
    listed = rig.apply(alarm=pb.AlarmRequest(action=pb.AlarmRequest.GET))
    assert len(pb.AlarmResponse.FromString(listed.body).alarms) == 1
    rig.apply(
        alarm=pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=7, alarm=pb.NOSPACE)
    )
    assert rig.apply(put=put).error is None


def test_corrupt_refuses_every_change_of_keys_and_leases(rig: ApplierRig) -> None:
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=5))
    rig.apply(alarm=pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=0, alarm=pb.CORRUPT))
    refused: list[dict[str, Any]] = [
        {"put": pb.PutRequest(key=b"k")},
        {"delete_range": pb.DeleteRangeRequest(key=b"k")},
        {"txn": pb.TxnRequest()},
        {"compaction": pb.CompactionRequest(revision=1)},
        {"lease_grant": pb.LeaseGrantRequest(ID=2, TTL=5)},
        {"lease_revoke": pb.LeaseRevokeRequest(ID=1)},
    ]
    for request in refused:
        assert type(rig.apply(**request).error) is CorruptError


def test_a_refused_conf_change_becomes_one_of_nobody(rig: ApplierRig) -> None:
    rig.add_member()
    refused = rig.change(REMOVE_NODE, 99)
    assert refused.change.changes == ((REMOVE_NODE, 0),)
    assert (type(refused.error), refused.removed_ids) == (MemberIdNotFoundError, ())
    other = Member(member_id=8, peer_urls=("http://localhost:2390",))
    assert rig.change(ADD_NODE, 8, encode_member(other)).error is None
    accepted = rig.change(REMOVE_NODE, 7)
    assert (accepted.change.changes, accepted.error) == (((REMOVE_NODE, 7),), None)
    assert accepted.removed_ids == (7,)
    assert rig.members.is_removed(7)
    assert (rig.members.all(), rig.members.removed_ids) == ([other], [7])
    assert Members(rig.backend, 1).all() == [other]


def test_a_restart_reads_the_members_and_the_configuration_from_the_buckets(
    rig: ApplierRig,
) -> None:
    assert stored_conf_state(rig.backend) is None
    rig.add_member()
    rig.members.set_cluster_version("3.7.0")
    joint = ConfState((7,), (8,), (7, 9), (9,), True)
    for conf_state in (ConfState((7,)), joint):
        rig.members.keep_conf_state(conf_state)
        assert stored_conf_state(rig.backend) == conf_state
    again = Members(rig.backend, 1)
    assert again.all() == [MEMBER]
    assert again.cluster_version == "3.7.0"
    assert Members(ModelBackend(), 1).cluster_version == ""
    assert Members(ModelBackend(), 1).storage_version == ""


class OnlyRoot:
    """Lets root have everything, and nobody else anything."""

    switch = Switch(is_on=True)

    def refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        return None if asker == Asker("root", 4) else PermissionError(asker.user)

    def checked(self) -> None:
        """Nothing took steps."""


def test_entries_of_real_etcd_are_judged_by_whom_their_header_names() -> None:
    rig = ApplierRig(OnlyRoot())
    put = pb.PutRequest(key=b"k", value=b"v")
    roots = pb.RequestHeader(ID=9, username="root", auth_revision=4)
    assert rig.apply(header=roots, put=put).error is None
    for header in (
        pb.RequestHeader(ID=9),
        pb.RequestHeader(ID=9, username="root", auth_revision=3),
        pb.RequestHeader(ID=9, username="eve", auth_revision=4),
    ):
        applied = rig.apply(header=header, put=put)
        assert isinstance(applied.error, PermissionError)
        assert str(applied.error) == header.username
    assert rig.store.revision == 2


def test_what_a_header_holds_beside_its_user_stops_nobody_who_asks_nothing_of_it() -> None:
    rig = ApplierRig()
    put = pb.InternalRaftRequest(put=pb.PutRequest(key=b"k", value=b"v")).SerializeToString()
    strange = b"\x08\x09" + b"\x21" + bytes(8)  # an id, and field 4 as eight octets
    header = b"\xa2\x06" + bytes((len(strange),)) + strange
    assert rig.applier.apply_data(put + header).error is None
