"""etcd's methods over a channel: messages in, awaitable messages out.

One line for each method; what they mean is told in `wire/proto/rpc.proto`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

from etcdtw.client.channel import Channel, Metadata, Stream
from etcdtw.wire import etcdserverpb as pb


class Message(Protocol):
    """A message of protobuf."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802  # protobuf's name


Asked = TypeVar("Asked", bound=Message)
AskedIn = TypeVar("AskedIn", bound=Message, contravariant=True)
Answered = TypeVar("Answered")


class Messages(Generic[Asked, Answered]):
    """A stream of messages; ``async for`` takes those that come.

    As `Stream`: to be read to its end or cancelled.  A failed one raises `StatusError`.
    """

    def __init__(self, stream: Stream, parse: Callable[[bytes], Answered]) -> None:
        self._stream = stream
        self._parse = parse
        self.half_close = stream.half_close
        self.cancel = stream.cancel

    def send(self, request: Asked) -> None:
        """As `Stream.send`."""
        self._stream.send(request.SerializeToString())

    def receive(self) -> Deferred[Answered | None]:
        """As `Stream.receive`."""
        return self._stream.receive().addCallback(self._parsed)

    def _parsed(self, message: bytes | None) -> Answered | None:
        return None if message is None else self._parse(message)

    def __aiter__(self) -> Messages[Asked, Answered]:
        return self

    async def __anext__(self) -> Answered:
        answer = await self.receive()
        if answer is None:
            raise StopAsyncIteration
        return answer


class UnaryCall(Protocol[AskedIn, Answered]):
    """A method that answers once."""

    def __call__(
        self, request: AskedIn, *, metadata: Metadata = (), timeout_ms: int | None = None
    ) -> Deferred[Answered]: ...


class StreamCall(Protocol[Asked, Answered]):
    """A method that streams: ``requests`` are sent at once."""

    def __call__(
        self, *requests: Asked, metadata: Metadata = (), timeout_ms: int | None = None
    ) -> Messages[Asked, Answered]: ...


class Unary(Generic[Asked, Answered]):
    """A line of the table: a method that answers once."""

    def __init__(self, path: str, request: type[Asked], answer: type[Answered]) -> None:
        self.path = path
        self.request = request
        self.answer: Any = answer

    def __get__(self, calls: Calls, owner: object = None) -> UnaryCall[Asked, Answered]:
        def call(
            request: Asked, *, metadata: Metadata = (), timeout_ms: int | None = None
        ) -> Deferred[Answered]:
            octets = request.SerializeToString()
            answered = calls.channel.unary(self.path, octets, metadata, timeout_ms)
            return answered.addCallback(self.answer.FromString)

        return call


class Streaming(Generic[Asked, Answered]):
    """A line of the table: a method that streams.

    ``takes_one``: its one request is all that is sent.
    """

    def __init__(
        self, path: str, request: type[Asked], answer: type[Answered], *, takes_one: bool = False
    ) -> None:
        self.path = path
        self.request = request
        self.answer: Any = answer
        self._takes_one = takes_one

    def __get__(self, calls: Calls, owner: object = None) -> StreamCall[Asked, Answered]:
        def call(
            *requests: Asked, metadata: Metadata = (), timeout_ms: int | None = None
        ) -> Messages[Asked, Answered]:
            stream = calls.channel.stream(self.path, metadata, timeout_ms)
            for request in requests:
                stream.send(request.SerializeToString())
            if self._takes_one:
                stream.half_close()
            return Messages(stream, self.answer.FromString)

        return call


_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_CLUSTER = "/etcdserverpb.Cluster/"
_MAINTENANCE = "/etcdserverpb.Maintenance/"
_AUTH = "/etcdserverpb.Auth/"


class Calls:
    """What a member can be asked, by the names of its methods."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    range = Unary(_KV + "Range", pb.RangeRequest, pb.RangeResponse)
    range_stream = Streaming(
        _KV + "RangeStream", pb.RangeRequest, pb.RangeStreamResponse, takes_one=True
    )
    put = Unary(_KV + "Put", pb.PutRequest, pb.PutResponse)
    delete_range = Unary(_KV + "DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse)
    txn = Unary(_KV + "Txn", pb.TxnRequest, pb.TxnResponse)
    compact = Unary(_KV + "Compact", pb.CompactionRequest, pb.CompactionResponse)

    watch = Streaming("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)

    lease_grant = Unary(_LEASE + "LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
    lease_revoke = Unary(_LEASE + "LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
    lease_keep_alive = Streaming(
        _LEASE + "LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
    )
    lease_time_to_live = Unary(
        _LEASE + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest, pb.LeaseTimeToLiveResponse
    )
    lease_leases = Unary(_LEASE + "LeaseLeases", pb.LeaseLeasesRequest, pb.LeaseLeasesResponse)

    member_add = Unary(_CLUSTER + "MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse)
    member_remove = Unary(
        _CLUSTER + "MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse
    )
    member_update = Unary(
        _CLUSTER + "MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse
    )
    member_list = Unary(_CLUSTER + "MemberList", pb.MemberListRequest, pb.MemberListResponse)
    member_promote = Unary(
        _CLUSTER + "MemberPromote", pb.MemberPromoteRequest, pb.MemberPromoteResponse
    )

    alarm = Unary(_MAINTENANCE + "Alarm", pb.AlarmRequest, pb.AlarmResponse)
    status = Unary(_MAINTENANCE + "Status", pb.StatusRequest, pb.StatusResponse)
    defragment = Unary(_MAINTENANCE + "Defragment", pb.DefragmentRequest, pb.DefragmentResponse)
    hash = Unary(_MAINTENANCE + "Hash", pb.HashRequest, pb.HashResponse)
    hash_kv = Unary(_MAINTENANCE + "HashKV", pb.HashKVRequest, pb.HashKVResponse)
    snapshot = Streaming(
        _MAINTENANCE + "Snapshot", pb.SnapshotRequest, pb.SnapshotResponse, takes_one=True
    )
    move_leader = Unary(_MAINTENANCE + "MoveLeader", pb.MoveLeaderRequest, pb.MoveLeaderResponse)
    downgrade = Unary(_MAINTENANCE + "Downgrade", pb.DowngradeRequest, pb.DowngradeResponse)

    authenticate = Unary(_AUTH + "Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)
    auth_status = Unary(_AUTH + "AuthStatus", pb.AuthStatusRequest, pb.AuthStatusResponse)
    auth_enable = Unary(_AUTH + "AuthEnable", pb.AuthEnableRequest, pb.AuthEnableResponse)
    auth_disable = Unary(_AUTH + "AuthDisable", pb.AuthDisableRequest, pb.AuthDisableResponse)
    user_add = Unary(_AUTH + "UserAdd", pb.AuthUserAddRequest, pb.AuthUserAddResponse)
    user_get = Unary(_AUTH + "UserGet", pb.AuthUserGetRequest, pb.AuthUserGetResponse)
    user_list = Unary(_AUTH + "UserList", pb.AuthUserListRequest, pb.AuthUserListResponse)
    user_delete = Unary(_AUTH + "UserDelete", pb.AuthUserDeleteRequest, pb.AuthUserDeleteResponse)
    user_change_password = Unary(
        _AUTH + "UserChangePassword",
        pb.AuthUserChangePasswordRequest,
        pb.AuthUserChangePasswordResponse,
    )
    user_grant_role = Unary(
        _AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest, pb.AuthUserGrantRoleResponse
    )
    user_revoke_role = Unary(
        _AUTH + "UserRevokeRole", pb.AuthUserRevokeRoleRequest, pb.AuthUserRevokeRoleResponse
    )
    role_add = Unary(_AUTH + "RoleAdd", pb.AuthRoleAddRequest, pb.AuthRoleAddResponse)
    role_get = Unary(_AUTH + "RoleGet", pb.AuthRoleGetRequest, pb.AuthRoleGetResponse)
    role_list = Unary(_AUTH + "RoleList", pb.AuthRoleListRequest, pb.AuthRoleListResponse)
    role_delete = Unary(_AUTH + "RoleDelete", pb.AuthRoleDeleteRequest, pb.AuthRoleDeleteResponse)
    role_grant_permission = Unary(
        _AUTH + "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest,
        pb.AuthRoleGrantPermissionResponse,
    )
    role_revoke_permission = Unary(
        _AUTH + "RoleRevokePermission",
        pb.AuthRoleRevokePermissionRequest,
        pb.AuthRoleRevokePermissionResponse,
    )
