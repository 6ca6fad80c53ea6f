"""What administers: each method asks for one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from etcdtw.client.admin import Maintenance, Members, Roles, Users
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import result_of
from tests.client.scripted_channel import ClientRig

Asked = tuple[str, Callable[[ClientRig], Any], Any]


def users(rig: ClientRig) -> Users:
    return Users(rig.channel)


def roles(rig: ClientRig) -> Roles:
    return Roles(rig.channel)


def members(rig: ClientRig) -> Members:
    return Members(rig.channel)


def maintenance(rig: ClientRig) -> Maintenance:
    return Maintenance(rig.channel)


ASKED: Final[list[Asked]] = [
    ("AuthEnable", lambda rig: users(rig).enable(), pb.AuthEnableRequest()),
    ("AuthDisable", lambda rig: users(rig).disable(), pb.AuthDisableRequest()),
    ("AuthStatus", lambda rig: users(rig).status(), pb.AuthStatusRequest()),
    ("UserGet", lambda rig: users(rig).get("u"), pb.AuthUserGetRequest(name="u")),
    ("UserList", lambda rig: users(rig).list(), pb.AuthUserListRequest()),
    ("UserDelete", lambda rig: users(rig).delete("u"), pb.AuthUserDeleteRequest(name="u")),
    (
        "UserChangePassword",
        lambda rig: users(rig).change_password("u", "p"),
        pb.AuthUserChangePasswordRequest(name="u", password="p"),
    ),
    (
        "UserGrantRole",
        lambda rig: users(rig).grant_role("u", "r"),
        pb.AuthUserGrantRoleRequest(user="u", role="r"),
    ),
    (
        "UserRevokeRole",
        lambda rig: users(rig).revoke_role("u", "r"),
        pb.AuthUserRevokeRoleRequest(name="u", role="r"),
    ),
    ("RoleAdd", lambda rig: roles(rig).add("r"), pb.AuthRoleAddRequest(name="r")),
    ("RoleGet", lambda rig: roles(rig).get("r"), pb.AuthRoleGetRequest(role="r")),
    ("RoleList", lambda rig: roles(rig).list(), pb.AuthRoleListRequest()),
    ("RoleDelete", lambda rig: roles(rig).delete("r"), pb.AuthRoleDeleteRequest(role="r")),
    (
        "RoleRevokePermission",
        lambda rig: roles(rig).revoke("r", "a", range_end="b"),
        pb.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b"),
    ),
    ("MemberList", lambda rig: members(rig).list(), pb.MemberListRequest(linearizable=True)),
    (
        "MemberAdd",
        lambda rig: members(rig).add(["http://m:2380"], is_learner=True),
        pb.MemberAddRequest(peerURLs=["http://m:2380"], isLearner=True),
    ),
    ("MemberRemove", lambda rig: members(rig).remove(7), pb.MemberRemoveRequest(ID=7)),
    (
        "MemberUpdate",
        lambda rig: members(rig).update(7, ["http://m:2380"]),
        pb.MemberUpdateRequest(ID=7, peerURLs=["http://m:2380"]),
    ),
    ("MemberPromote", lambda rig: members(rig).promote(7), pb.MemberPromoteRequest(ID=7)),
    ("Status", lambda rig: maintenance(rig).status(), pb.StatusRequest()),
    ("HashKV", lambda rig: maintenance(rig).hash_kv(7), pb.HashKVRequest(revision=7)),
    ("Alarm", lambda rig: maintenance(rig).alarms(), pb.AlarmRequest()),
    (
        "Alarm",
        lambda rig: maintenance(rig).disarm(pb.AlarmMember(memberID=7, alarm=1)),
        pb.AlarmRequest(action=2, memberID=7, alarm=1),
    ),
    ("Defragment", lambda rig: maintenance(rig).defragment(), pb.DefragmentRequest()),
    (
        "MoveLeader",
        lambda rig: maintenance(rig).move_leader(7),
        pb.MoveLeaderRequest(targetID=7),
    ),
]


@pytest.mark.parametrize(("method", "ask", "request_"), ASKED, ids=[asked[0] for asked in ASKED])
def test_each_method_asks_for_one_thing(
    method: str, ask: Callable[[ClientRig], Any], request_: Any
) -> None:
    rig = ClientRig()
    ask(rig)
    (call,) = rig.calls
    assert call.path == method
    assert type(request_).FromString(call.message) == request_


def test_a_snapshot_comes_in_parts() -> None:
    rig = ClientRig()
    parts = maintenance(rig).snapshot()
    first = parts.receive()
    (stream,) = rig.streams
    assert stream.path == "Snapshot"
    stream.push(pb.SnapshotResponse(blob=b"x"))
    assert result_of(first).blob == b"x"
