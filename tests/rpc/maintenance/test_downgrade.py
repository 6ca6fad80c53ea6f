"""Maintenance's downgrades, transfers of leadership and status, over a node in memory."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.grpc.call import MethodTable, StatusError
from etcdtw.rpc.maintenance.downgrade import CANCEL, ENABLE, VALIDATE, DowngradeService
from etcdtw.rpc.maintenance.service import MaintenanceService
from etcdtw.wire import etcdserverpb as pb
from tests.support.node_rig import MEMBER_ID, NodeRig, log_with_a_learner
from tests.support.recorded_call import RecordedCall

OK = (0, "")
WRONG_FORMAT = (3, "etcdserver: wrong downgrade target version format")
INVALID = (3, "etcdserver: invalid downgrade target version")
IN_PROCESS = (9, "etcdserver: cluster has a downgrade job in progress")


class MaintenanceRig(NodeRig):
    """A leading lone voter in a cluster of 3.7, or in one that cannot decide its version."""

    def __init__(self, version: str = "3.7.0") -> None:
        super().__init__(log=None if version else log_with_a_learner())
        self.node.duties.cluster_version.ask = lambda members, told: None  # nobody ever answers
        self.start()
        if version:
            self.node.members.set_cluster_version(version)
        self.methods = MethodTable()
        MaintenanceService(self.node, 0).register(self.methods)
        DowngradeService(self.node).register(self.methods)

    def ask(self, name: str, request: Any) -> RecordedCall:
        call = RecordedCall()
        method = self.methods.find(f"/etcdserverpb.Maintenance/{name}".encode())
        assert method is not None
        assert method.unary is not None
        try:
            reply = method.unary(call, request.SerializeToString())
        except StatusError as error:
            call.fail(error.code, error.message)
        else:
            if reply is not None:
                call.reply(reply)
        self.run()
        return call

    def downgrade(self, action: int, version: str = "") -> RecordedCall:
        return self.ask("Downgrade", pb.DowngradeRequest(action=action, version=version))

    def status(self) -> pb.StatusResponse:
        return pb.StatusResponse.FromString(self.ask("Status", pb.StatusRequest()).replies[0])


@pytest.fixture
def rig() -> MaintenanceRig:
    return MaintenanceRig()


def test_downgrade_is_judged_enabled_and_called_off(rig: MaintenanceRig) -> None:
    call = rig.downgrade(VALIDATE, "3.6")
    assert call.status == OK
    response = pb.DowngradeResponse.FromString(call.replies[0])
    assert (response.version, response.header.member_id) == ("3.7", MEMBER_ID)
    assert rig.node.members.downgrade_target is None
    assert rig.downgrade(ENABLE, "3.6.4").status == OK
    info = rig.status().downgradeInfo
    assert (info.enabled, info.targetVersion) == (True, "3.6.0")
    for action in (VALIDATE, ENABLE):
        assert rig.downgrade(action, "3.6").status == IN_PROCESS
    assert rig.downgrade(CANCEL).status == OK
    info = rig.status().downgradeInfo
    assert (info.enabled, info.targetVersion) == (False, "")
    assert rig.downgrade(CANCEL).status == OK, "from 3.6 on there need not be one"


@pytest.mark.parametrize("action", [VALIDATE, ENABLE])
@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("", WRONG_FORMAT),
        ("three", WRONG_FORMAT),
        ("3", WRONG_FORMAT),
        ("3.7", INVALID),
        ("3.5", INVALID),
        ("4.6", INVALID),
    ],
)
def test_wrong_target_is_refused(
    rig: MaintenanceRig, action: int, version: str, status: tuple[int, str]
) -> None:
    assert rig.downgrade(action, version).status == status


def test_downgrade_needs_a_known_cluster_version() -> None:
    rig = MaintenanceRig(version="")
    unknown = (9, "etcdserver: cluster version not found during downgrade")
    assert rig.downgrade(VALIDATE, "3.6").status == unknown
    assert rig.downgrade(CANCEL).status == unknown


def test_older_lines_have_their_own_rules() -> None:
    rig = MaintenanceRig(version="3.5.0")
    assert rig.downgrade(CANCEL).status == (9, "etcdserver: no inflight downgrade job")
    assert rig.downgrade(ENABLE, "3.4").status == OK
    assert rig.downgrade(CANCEL).status == OK
    rig = MaintenanceRig(version="3.4.0")
    assert rig.downgrade(ENABLE, "3.3").status == (9, "etcdserver: not capable")


def test_unknown_action_is_refused(rig: MaintenanceRig) -> None:
    assert rig.downgrade(3, "3.6").status == (2, "etcdserver: unknown method")


def test_leadership_is_handed_over_by_the_leader_and_to_voters_only(rig: MaintenanceRig) -> None:
    bad = (9, "etcdserver: bad leader transferee")
    assert rig.ask("MoveLeader", pb.MoveLeaderRequest(targetID=99)).status == bad
    call = rig.ask("MoveLeader", pb.MoveLeaderRequest(targetID=MEMBER_ID))
    assert (call.status, call.replies) == (OK, [b""])
    follower = NodeRig()
    methods = MethodTable()
    MaintenanceService(follower.node, 0).register(methods)
    method = methods.find(b"/etcdserverpb.Maintenance/MoveLeader")
    assert method is not None
    assert method.unary is not None
    call = RecordedCall()
    method.unary(call, pb.MoveLeaderRequest(targetID=MEMBER_ID).SerializeToString())
    assert call.status == (9, "etcdserver: not leader")


def test_status_names_the_line_and_the_role(rig: MaintenanceRig) -> None:
    status = rig.status()
    assert (status.version, status.storageVersion) == ("3.7.3", "3.7.0")
    assert (status.leader, status.isLearner) == (MEMBER_ID, False)
    assert status.raftIndex == status.raftAppliedIndex == rig.log.last_index()
    older = MaintenanceRig(version="3.5.0").status()
    assert (older.version, older.storageVersion) == ("3.5.35", "")


def test_alarm_that_nobody_knows_is_refused_before_it_is_in_the_log(rig: MaintenanceRig) -> None:
    request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=7)
    applied = rig.node.applied_index
    assert rig.ask("Alarm", request).status == (3, "etcdserver: unknown alarm 7")
    assert rig.node.applied_index == applied


def test_alarm_of_a_newer_member_has_a_name(rig: MaintenanceRig) -> None:
    rig.node.alarms.activate(5, 7)
    assert list(rig.status().errors) == ["memberID:5 alarm:UNKNOWN"]
