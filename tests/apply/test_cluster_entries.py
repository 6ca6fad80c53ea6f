"""Entries about the cluster itself, in the forms of all lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etcdtw.apply.entries import UnknownEntryError, find_request
from etcdtw.apply.own_entries import attributes_entry, cluster_version_entry
from etcdtw.cluster.line import Line
from etcdtw.cluster.member import Member, encode_member
from etcdtw.cluster.v2_store import V2Store, V2StoreError, encode_v2_store
from etcdtw.cluster.version import Version
from etcdtw.mvcc.backend import BUCKET_CLUSTER, BUCKET_LEASE, BUCKET_MEMBERS
from etcdtw.raft.confchange import ADD_NODE
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb, membershippb
from tests.apply.test_applier import MEMBER, ApplierRig

V34, V35, V36, V37 = (Version(3, minor, 0) for minor in (4, 5, 6, 7))


@pytest.fixture
def rig() -> ApplierRig:
    rig = ApplierRig()
    rig.add_member()
    return rig


def v2(**fields: Any) -> bytes:
    return pb.Request(ID=1, **fields).SerializeToString()


def test_entry_that_etcd_3_5_really_wrote_publishes_a_member(rig: ApplierRig) -> None:
    """As its encoder writes it: every plain field, zero or not."""
    data = (
        bytes.fromhex("0881a0c886d1a6d1c0701203505554")
        + b"\x1a\x17/0/members/7/attributes"
        + b'\x22\x2e{"name":"b","clientURLs":["http://b:22379"]}  '
        + bytes.fromhex("280032003800480050005800600068007000780080010 0".replace(" ", ""))
    )
    rig.applier.apply_data(data)
    member = rig.members.member(7)
    assert member is not None
    assert (member.name, member.client_urls) == ("b", ("http://b:22379",))


@pytest.mark.parametrize("line", [V34, V35, V36, V37])
def test_what_a_member_writes_in_each_line_comes_to_the_same(
    rig: ApplierRig, line: Version
) -> None:
    urls = ("http://a:1", "http://b:2")
    rig.applier.apply_data(attributes_entry(line, 2**63 + 1, 7, "m<1>", urls))
    rig.applier.apply_data(cluster_version_entry(line, 2**63 + 2, line))
    member = rig.members.member(7)
    assert member is not None
    assert (member.name, member.client_urls) == ("m<1>", urls)
    assert rig.members.version == line


def test_new_forms_are_written_from_3_6_on_only() -> None:
    for line, fields in ((V34, (2, 2)), (V35, (2, 2)), (V36, (1301, 1300)), (V37, (1301, 1300))):
        entries = (
            attributes_entry(line, 1, 7, "m", ()),
            cluster_version_entry(line, 1, line),
        )
        assert tuple(find_request(data)[0] for data in entries) == fields


def test_old_form_has_every_plain_field_as_etcds_encoder_writes_it() -> None:
    data = cluster_version_entry(V34, 5, V35)
    assert data == (
        b"\x08\x05\x12\x03PUT\x1a\x0a/0/version\x22\x053.5.0"
        b"\x28\x00\x32\x00\x38\x00\x48\x00\x50\x00\x58\x00\x60\x00\x68\x00\x70\x00\x78\x00\x80\x01\x00"
    )


@pytest.mark.parametrize(
    "data",
    [
        v2(Method=b"PUT", Path=b"/1/key", Val=b"x"),
        v2(Method=b"SYNC", Time=5),
        v2(Method=b"QGET", Path=b"/0/version"),
        v2(Method=b"DELETE", Path=b"/0/members/7/attributes"),
        v2(Method=b"PUT", Path=b"/0/version", Val=b"3.6.0", PrevExist=False),
        v2(Method=b"PUT", Path=b"/0/version", Val=b"3.6.0", PrevIndex=3),
        v2(Method=b"PUT", Path=b"/0/version", Val=b"3.6.0", PrevValue=b"3.5.0"),
        v2(Method=b"PUT", Path=b"/0/members/zz/attributes", Val=b"{}"),
    ],
)
def test_other_requests_of_the_old_api_change_nothing(rig: ApplierRig, data: bytes) -> None:
    applied = rig.applier.apply_data(data)
    assert (applied.revision, applied.error) == (1, None)
    assert rig.members.version is None
    assert rig.members.all() == [MEMBER]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (v2(Method=b"PUT", Path=b"/0/version", Val=b"three"), "is not a version"),
        (v2(Method=b"PUT", Path=b"/0/members/7/attributes", Val=b"{"), "attributes of a member"),
        (
            cluster_version_entry(V37, 1, Version(3, 8, 0)),
            "server version is lower than determined cluster version",
        ),
    ],
)
def test_entry_about_the_cluster_that_makes_no_sense_stops_the_member(
    rig: ApplierRig, data: bytes, message: str
) -> None:
    with pytest.raises(UnknownEntryError, match=message):
        rig.applier.apply_data(data)


@pytest.mark.parametrize(
    "request_without_effect",
    [
        {"range": pb.RangeRequest(key=b"k")},
        {"auth_status": pb.AuthStatusRequest()},
        {"auth_user_list": pb.AuthUserListRequest()},
        {"downgrade_version_test": pb.DowngradeVersionTestRequest(ver="3.6.0")},
    ],
)
def test_question_in_the_log_changes_nothing(
    rig: ApplierRig, request_without_effect: dict[str, Any]
) -> None:
    assert rig.apply(**request_without_effect).error is None


def test_downgrade_is_kept_and_ended(rig: ApplierRig) -> None:
    rig.apply(downgrade_info_set=membershippb.DowngradeInfoSetRequest(enabled=True, ver="3.6.0"))
    targets = [rig.members.downgrade_target]
    row = rig.backend.bucket_get(BUCKET_CLUSTER, b"downgrade")
    assert row == b'{"target-version":"3.6.0","enabled":true}'
    rig.apply(downgrade_info_set=membershippb.DowngradeInfoSetRequest(enabled=False, ver="3.6.0"))
    targets.append(rig.members.downgrade_target)
    row = rig.backend.bucket_get(BUCKET_CLUSTER, b"downgrade")
    assert row == b'{"target-version":"","enabled":false}'
    assert targets == ["3.6.0", None]


@pytest.mark.parametrize(("version", "kept"), [(None, 0), ("3.5.0", 0), ("3.6.0", 200)])
def test_checkpoint_of_a_lease_is_stored_from_3_6_on(
    rig: ApplierRig, version: str | None, kept: int
) -> None:
    if version is not None:
        rig.members.set_cluster_version(version)
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=1, TTL=500))
    checkpoint = pb.LeaseCheckpoint(ID=1, remaining_TTL=200)
    rig.apply(lease_checkpoint=pb.LeaseCheckpointRequest(checkpoints=[checkpoint]))
    [(_, row)] = rig.backend.bucket_items(BUCKET_LEASE)
    assert leasepb.Lease.FromString(row).RemainingTTL == kept


def test_member_says_it_runs_what_its_cluster_does(rig: ApplierRig) -> None:
    members = rig.members
    assert (members.line, members.server_version) == (V37, "3.7.3")
    for version, server in (("3.4.0", "3.4.44"), ("3.5.0", "3.5.35"), ("3.6.0", "3.6.16")):
        members.set_cluster_version(version)
        assert members.server_version == server
    members.line_of_member.offer(V37, members.version)
    assert (members.line, members.server_version) == (V36, "3.7.3")
    members.set_downgrade(True, "3.5.0")
    assert members.server_version == "3.6.16"


def test_membership_of_a_snapshot_comes_from_where_its_leader_keeps_it(rig: ApplierRig) -> None:
    other = Member(member_id=9, peer_urls=("http://b:2380",), name="b", is_learner=True)
    promoted = Member(member_id=9, peer_urls=("http://b:2380",), name="b")
    rig.change(ADD_NODE, 9, encode_member(other))
    assert rig.members.all()[1] == other
    rig.members.take_snapshot_data(encode_v2_store(V2Store((promoted,), (7, 8), V36)))
    assert rig.members.all() == [MEMBER, other], "3.6 keeps it in the buckets"
    rig.members.take_snapshot_data(b"")
    assert rig.members.all() == [MEMBER, other]
    rig.members.take_snapshot_data(encode_v2_store(V2Store((promoted,), (7, 8), V35)))
    assert (rig.members.all(), rig.members.removed_ids) == ([promoted], [7, 8])
    assert rig.members.version == V35
    rig.members.restore()
    assert (rig.members.all(), rig.members.removed_ids) == ([promoted], [7, 8])
    assert [json.loads(row)["id"] for _, row in rig.backend.bucket_items(BUCKET_MEMBERS)] == [9]
    again = rig.members.snapshot_data()
    assert again == encode_v2_store(V2Store((promoted,), (7, 8), V35))
    with pytest.raises(V2StoreError):
        rig.members.take_snapshot_data(b"{")


def test_line_of_a_new_cluster_is_the_one_it_was_founded_with() -> None:
    line = Line(V35)
    assert (line.current(None), line.release(None)) == (V35, Version(3, 5, 35))
