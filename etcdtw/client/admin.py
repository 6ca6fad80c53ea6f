"""Users and roles, members, maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from twisted.internet.defer import Deferred

from etcdtw.client.calls import Calls
from etcdtw.client.keys import Key, key_range
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.client.network.server_stream import ServerStream
from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb

Right = Literal["read", "write", "readwrite"]
_RIGHTS: Final[dict[Right, int]] = {"read": 0, "write": 1, "readwrite": 2}
_GET, _ACTIVATE, _DEACTIVATE = range(3)


class Users:
    """Who may do what.  Every method fails with `StatusError`."""

    def __init__(self, channel: RetryingChannel) -> None:
        self._calls = Calls(channel)

    def enable(self) -> Deferred[pb.AuthEnableResponse]:
        """Ask for a user from now on.  There must be a user root with the role root."""
        return self._calls.auth_enable(pb.AuthEnableRequest())

    def disable(self) -> Deferred[pb.AuthDisableResponse]:
        """Ask nobody for a user from now on."""
        return self._calls.auth_disable(pb.AuthDisableRequest())

    def status(self) -> Deferred[pb.AuthStatusResponse]:
        """Return whether users are asked for, and the revision of users and roles."""
        return self._calls.auth_status(pb.AuthStatusRequest())

    def add(self, name: str, password: str | None) -> Deferred[pb.AuthUserAddResponse]:
        """Add a user; without a password one that only a certificate can be."""
        request = pb.AuthUserAddRequest(name=name, password=password or "")
        request.options.no_password = password is None
        return self._calls.user_add(request)

    def get(self, name: str) -> Deferred[pb.AuthUserGetResponse]:
        """Return a user's roles."""
        return self._calls.user_get(pb.AuthUserGetRequest(name=name))

    def list(self) -> Deferred[pb.AuthUserListResponse]:
        """Return all users."""
        return self._calls.user_list(pb.AuthUserListRequest())

    def delete(self, name: str) -> Deferred[pb.AuthUserDeleteResponse]:
        """Delete a user."""
        return self._calls.user_delete(pb.AuthUserDeleteRequest(name=name))

    def change_password(
        self, name: str, password: str
    ) -> Deferred[pb.AuthUserChangePasswordResponse]:
        """Give a user another password."""
        request = pb.AuthUserChangePasswordRequest(name=name, password=password)
        return self._calls.user_change_password(request)

    def grant_role(self, name: str, role: str) -> Deferred[pb.AuthUserGrantRoleResponse]:
        """Give a user a role."""
        return self._calls.user_grant_role(pb.AuthUserGrantRoleRequest(user=name, role=role))

    def revoke_role(self, name: str, role: str) -> Deferred[pb.AuthUserRevokeRoleResponse]:
        """Take a role from a user."""
        return self._calls.user_revoke_role(pb.AuthUserRevokeRoleRequest(name=name, role=role))


class Roles:
    """What users may do.  Every method fails with `StatusError`."""

    def __init__(self, channel: RetryingChannel) -> None:
        self._calls = Calls(channel)

    def add(self, role: str) -> Deferred[pb.AuthRoleAddResponse]:
        """Add a role that may do nothing."""
        return self._calls.role_add(pb.AuthRoleAddRequest(name=role))

    def get(self, role: str) -> Deferred[pb.AuthRoleGetResponse]:
        """Return a role's permissions."""
        return self._calls.role_get(pb.AuthRoleGetRequest(role=role))

    def list(self) -> Deferred[pb.AuthRoleListResponse]:
        """Return all roles."""
        return self._calls.role_list(pb.AuthRoleListRequest())

    def delete(self, role: str) -> Deferred[pb.AuthRoleDeleteResponse]:
        """Delete a role."""
        return self._calls.role_delete(pb.AuthRoleDeleteRequest(role=role))

    def grant(
        self,
        role: str,
        right: Right,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
    ) -> Deferred[pb.AuthRoleGrantPermissionResponse]:
        """Let a role read or write a key, or a range: see `keys.key_range`."""
        first, end = key_range(key, range_end, prefix, from_key)
        permission = authpb.Permission(
            permType=_RIGHTS[right],
            key=first,
            range_end=end,
        )
        request = pb.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        return self._calls.role_grant_permission(request)

    def revoke(
        self,
        role: str,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
    ) -> Deferred[pb.AuthRoleRevokePermissionResponse]:
        """Take back what was granted for exactly this range."""
        first, end = key_range(key, range_end, prefix, from_key)
        request = pb.AuthRoleRevokePermissionRequest(role=role, key=first, range_end=end)
        return self._calls.role_revoke_permission(request)


class Members:
    """The cluster.  Every method fails with `StatusError`."""

    def __init__(self, channel: RetryingChannel) -> None:
        self._calls = Calls(channel)

    def list(self, *, linearizable: bool = True) -> Deferred[pb.MemberListResponse]:
        """Return all members."""
        return self._calls.member_list(pb.MemberListRequest(linearizable=linearizable))

    def add(
        self, peer_urls: Sequence[str], *, is_learner: bool = False
    ) -> Deferred[pb.MemberAddResponse]:
        """Add a member, which is started afterwards."""
        return self._calls.member_add(pb.MemberAddRequest(peerURLs=peer_urls, isLearner=is_learner))

    def remove(self, member_id: int) -> Deferred[pb.MemberRemoveResponse]:
        """Remove a member."""
        return self._calls.member_remove(pb.MemberRemoveRequest(ID=member_id))

    def update(self, member_id: int, peer_urls: Sequence[str]) -> Deferred[pb.MemberUpdateResponse]:
        """Say where a member is found by others."""
        return self._calls.member_update(pb.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls))

    def promote(self, member_id: int) -> Deferred[pb.MemberPromoteResponse]:
        """Let a learner vote."""
        return self._calls.member_promote(pb.MemberPromoteRequest(ID=member_id))


class Maintenance:
    """What concerns one member, or its disk.  Every method fails with `StatusError`.

    Any member answers; `Client.only` is the way to a certain one.
    """

    def __init__(self, channel: RetryingChannel) -> None:
        self._channel = channel
        self._calls = Calls(channel)

    def status(self, *, timeout_ms: int | None = None) -> Deferred[pb.StatusResponse]:
        """Return how the member stands."""
        return self._calls.status(pb.StatusRequest(), timeout_ms=timeout_ms)

    def hash_kv(self, revision: int = 0) -> Deferred[pb.HashKVResponse]:
        """Return the hash of the member's keys up to ``revision`` (0: all)."""
        return self._calls.hash_kv(pb.HashKVRequest(revision=revision))

    def alarms(self) -> Deferred[pb.AlarmResponse]:
        """Return the alarms that stand."""
        return self._calls.alarm(pb.AlarmRequest(action=_GET))

    def disarm(self, alarm: pb.AlarmMember) -> Deferred[pb.AlarmResponse]:
        """Clear an alarm, one of `alarms`."""
        request = pb.AlarmRequest(
            action=_DEACTIVATE,
            memberID=alarm.memberID,
            alarm=alarm.alarm,
        )
        return self._calls.alarm(request)

    def defragment(self, *, timeout_ms: int | None = None) -> Deferred[pb.DefragmentResponse]:
        """Give free space of the member's files back to the disk."""
        return self._calls.defragment(pb.DefragmentRequest(), timeout_ms=timeout_ms)

    def move_leader(self, member_id: int) -> Deferred[pb.MoveLeaderResponse]:
        """Let another member lead; only the leader does."""
        return self._calls.move_leader(pb.MoveLeaderRequest(targetID=member_id))

    def snapshot(self) -> ServerStream[pb.SnapshotResponse]:
        """Return the member's whole state, in parts: the ``blob`` of each, one after the other.

        The last 32 octets are the SHA-256 of those before.
        """
        return ServerStream(self._channel, lambda calls: calls.snapshot(pb.SnapshotRequest()))
