"""Calls whose service asks who calls, at the place where etcd does."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.grpc.call import MethodTable, StatusError
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.maintenance.service import MaintenanceService
from etcdtw.wire import etcdserverpb as pb
from tests.support.guard_rig import ANN, ROOT, GuardRig
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall

EMPTY = (3, "etcdserver: user name is empty")
DENIED = (7, "etcdserver: permission denied")
BAD_URLS = (3, "etcdserver: given member URLs are invalid")
ALARM = "/etcdserverpb.Maintenance/Alarm"
ADD = "/etcdserverpb.Cluster/MemberAdd"


class GuardedRig:
    """Maintenance and cluster service of a node, with a guard."""

    def __init__(self) -> None:
        self.node_rig = NodeRig().start()
        guard = GuardRig().guard
        self.methods = MethodTable()
        MaintenanceService(self.node_rig.node, 0, guard).register(self.methods)
        ClusterService(self.node_rig.node, unix_s=lambda: 0, guard=guard).register(self.methods)

    def status(self, path: str, request: Any, caller: Caller) -> tuple[int, str] | None:
        call = RecordedCall()
        call.caller = caller
        method = self.methods.find(path.encode())
        assert method is not None
        assert method.unary is not None
        try:
            method.unary(call, request.SerializeToString())
        except StatusError as error:
            return error.code, error.message
        self.node_rig.run()
        return call.status


@pytest.mark.parametrize(
    ("action", "statuses"),
    [
        (pb.AlarmRequest.GET, (EMPTY, (0, ""), (0, ""))),
        (pb.AlarmRequest.ACTIVATE, (EMPTY, DENIED, (0, ""))),
        (pb.AlarmRequest.DEACTIVATE, (EMPTY, DENIED, (0, ""))),
    ],
)
def test_users_look_at_alarms_and_administrators_clear_them(
    action: int, statuses: tuple[tuple[int, str], ...]
) -> None:
    rig = GuardedRig()
    request = pb.AlarmRequest(action=action)
    found = tuple(rig.status(ALARM, request, caller) for caller in (NOBODY_KNOWN, ANN, ROOT))
    assert found == statuses


def test_urls_of_a_new_member_are_looked_at_before_who_adds_it() -> None:
    rig = GuardedRig()
    assert rig.status(ADD, pb.MemberAddRequest(peerURLs=[":"]), NOBODY_KNOWN) == BAD_URLS
    good = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:2390"])
    assert rig.status(ADD, good, NOBODY_KNOWN) == EMPTY
    assert rig.status(ADD, good, ANN) == DENIED
    assert rig.status(ADD, good, ROOT) not in (EMPTY, DENIED)
