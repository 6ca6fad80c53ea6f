"""The message classes: etcd's names and numbers, in a pool that nobody else sees."""

from __future__ import annotations

from types import ModuleType

import pytest
from google.protobuf import descriptor_pool

from etcdtw.wire import (
    authpb,
    etcdserverpb,
    healthpb,
    leasepb,
    membershippb,
    mvccpb,
    raftpb,
    v3electionpb,
    v3lockpb,
)
from etcdtw.wire.pool import POOL, message_class


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (authpb, "User"),
        (etcdserverpb, "PutRequest"),
        (healthpb, "HealthCheckRequest"),
        (leasepb, "Lease"),
        (membershippb, "Member"),
        (mvccpb, "KeyValue"),
        (raftpb, "Message"),
        (v3electionpb, "LeaderKey"),
        (v3lockpb, "LockRequest"),
    ],
)
def test_each_package_makes_round_trips(module: ModuleType, name: str) -> None:
    message = getattr(module, name)()
    assert type(message).FromString(message.SerializeToString()) == message
    assert message.DESCRIPTOR.file.pool is POOL


def test_another_client_in_this_process_may_register_the_same_names() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("etcdserverpb.PutRequest")
    assert message_class("etcdserverpb.PutRequest") is etcdserverpb.PutRequest


def test_numbers_are_those_of_etcds_log_entries() -> None:
    fields = etcdserverpb.InternalRaftRequest.DESCRIPTOR.fields_by_name
    assert [fields[name].number for name in ("header", "put", "txn", "alarm")] == [100, 4, 6, 10]
    assert fields["cluster_member_attr_set"].number == 1301
