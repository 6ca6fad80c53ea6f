"""Users, roles and what they may do: seeded random operations on two members, all answers compared.

Six users with overlapping roles work, in changing order, with keys, leases, watches and
maintenance, while an administrator (and now and then somebody who is none) changes users, roles
and permissions, and switches auth on and off.  Tokens are each member's own: every user gets one
from both, and both are shown together, old ones, wrong ones and none among them.

    python -m tests.differential.users --operations 100000 --seed 7
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from tests.support.processes import RunningMember

FLAGS: Final = ["--bcrypt-cost=4", "--auth-token-ttl=600"]
TIMEOUT_S: Final = 20.0
USERS: Final = ("root", "ann", "bob", "cec", "dan", "eve")
ROLES: Final = ("root", "r1", "r2", "r3")
KEYS: Final = (b"a", b"b", b"ba", b"c", b"ca", b"d", b"e")
LEASES: Final = (11, 12, 13)
STALE: Final = "stale"
CHOICES: Final = (
    "user_add", "user_delete", "change", "grant", "grant", "revoke", "get", "list",
    "role_add", "role_delete", "perm", "perm", "perm", "unperm", "role_get", "role_list", "status",
)  # fmt: skip
"""What is done with users and roles, as often as it stands here."""

KV: Final = "/etcdserverpb.KV/"
LEASE: Final = "/etcdserverpb.Lease/"
AUTH: Final = "/etcdserverpb.Auth/"
CLUSTER: Final = "/etcdserverpb.Cluster/"
MAINTENANCE: Final = "/etcdserverpb.Maintenance/"


@dataclass(slots=True)
class Operation:
    """One call.  ``user``: whose token is shown; None: none; else a text that is none."""

    path: str
    request: Any
    response: Any
    user: str | None
    is_stream: bool = False


@dataclass(slots=True)
class Found:
    """What a run came to."""

    operations: int = 0
    differences: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)


class Member:
    """One side: a channel and the tokens it gave."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self.tokens: dict[str, str] = {}

    def use(self, channel: grpc.Channel) -> None:
        """Call through another channel."""
        self._channel.close()
        self._channel = channel

    def close(self) -> None:
        self._channel.close()

    def call(self, operation: Operation) -> tuple[int, str, Any]:
        """Return code, text and response, of a stream the first one."""
        metadata = [] if operation.user is None else [("token", self._token(operation.user))]
        kinds = {
            "request_serializer": type(operation.request).SerializeToString,
            "response_deserializer": operation.response.FromString,
        }
        try:
            if not operation.is_stream:
                call = self._channel.unary_unary(operation.path, **kinds)
                return 0, "", call(operation.request, metadata=metadata, timeout=TIMEOUT_S)
            if operation.path == "/etcdserverpb.Maintenance/Snapshot":
                stream = self._channel.unary_stream(operation.path, **kinds)(
                    operation.request, metadata=metadata, timeout=TIMEOUT_S
                )
                next(stream)
                stream.cancel()
                return 0, "", None
            if operation.path == KV + "RangeStream":
                stream = self._channel.unary_stream(operation.path, **kinds)(
                    operation.request, metadata=metadata, timeout=TIMEOUT_S
                )
                return 0, "", next(stream)
            stream = self._channel.stream_stream(operation.path, **kinds)(
                iter([operation.request]), metadata=metadata, timeout=TIMEOUT_S
            )
            first = next(stream)
            stream.cancel()
            return 0, "", first
        except grpc.RpcError as error:
            return error.code().value[0], error.details(), None
        except StopIteration:
            return 0, "ended", None

    def _token(self, user: str) -> str:
        if user.startswith(STALE):
            return self.tokens.get(user, "never.1")
        return self.tokens.get(user, user)


class Script:
    """Makes operations; knows the passwords that were set last, as far as they were.

    ``odd_ranges``: some end before they begin, for which real members' verdicts follow from the
    form of a tree.
    """

    def __init__(self, seed: int, *, odd_ranges: bool = True) -> None:
        self._random = random.Random(seed)
        self._odd_ranges = odd_ranges
        self.passwords: dict[str, str] = {}
        self.tokenless = set(USERS)
        """Users whose tokens are over, as far as one can tell."""

    # Who asks, and what about.

    def _someone(self) -> str | None:
        chance = self._random.random()
        if chance < 0.04:
            return None
        if chance < 0.07:
            return self._random.choice(["abc", "abc.x", "abc.1", "", "a.b.c", "Bearer abc.2"])
        if chance < 0.10:
            return STALE + self._user()
        return self._random.choice(USERS)

    def _admin(self) -> str | None:
        return "root" if self._random.random() < 0.85 else self._someone()

    def _user(self) -> str:
        return self._random.choice(USERS)

    def _role(self) -> str:
        return self._random.choice(ROLES)

    def _key(self) -> bytes:
        return self._random.choice(KEYS)

    def _range(self) -> dict[str, Any]:
        """Every form of a range, those that end before they begin too."""
        key = self._key()
        chance = self._random.random()
        if chance < 0.4:
            return {"key": key}
        if chance < 0.5:
            return {"key": key, "range_end": b"\0"}
        if chance < 0.55:
            return {"key": b"\0", "range_end": b"\0"}
        if chance < 0.8:
            return {"key": key, "range_end": key[:-1] + bytes([key[-1] + 1])}
        end = self._key()
        if not self._odd_ranges and end <= key:
            return {"key": key}
        return {"key": key, "range_end": end}

    # Operations.

    def setup(self) -> Iterator[Operation]:
        """Begin with a root who may everything, and switch auth on."""
        yield self._user_add("root", None)
        yield Operation(
            AUTH + "UserGrantRole",
            pb.AuthUserGrantRoleRequest(user="root", role="root"),
            pb.AuthUserGrantRoleResponse,
            None,
        )
        for name in USERS[1:]:
            yield self._user_add(name, None)
        for role in ROLES[1:]:
            yield Operation(
                AUTH + "RoleAdd", pb.AuthRoleAddRequest(name=role), pb.AuthRoleAddResponse, None
            )
        yield Operation(AUTH + "AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse, None)

    def repair(self) -> Iterator[Operation]:
        """Let root be there, with a token, and be asked."""
        for user in (None, "root"):
            yield self._user_add("root", user)
            grant = pb.AuthUserGrantRoleRequest(user="root", role="root")
            yield Operation(AUTH + "UserGrantRole", grant, pb.AuthUserGrantRoleResponse, user)
            yield Operation(
                AUTH + "AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse, user
            )
            request = pb.AuthenticateRequest(name="root", password=self.passwords.get("root", ""))
            yield Operation(AUTH + "Authenticate", request, pb.AuthenticateResponse, None)

    def _user_add(self, name: str, user: str | None) -> Operation:
        password = f"{name}{self._random.randrange(3)}"
        request = pb.AuthUserAddRequest(name=name, password=password)
        if name != "root" and self._random.random() < 0.05:
            request.options.no_password = True
        return Operation(AUTH + "UserAdd", request, pb.AuthUserAddResponse, user)

    def next(self) -> Operation:
        """Return the next operation."""
        kinds: Sequence[tuple[int, Callable[[], Operation]]] = (
            (14, self.authenticate),
            (22, self._management),
            (30, self._keys),
            (10, self._txn),
            (9, self._leases),
            (6, self._watch),
            (8, self._maintenance),
            (8, self._switch),
        )
        weights = [weight for weight, _ in kinds]
        return self._random.choices([make for _, make in kinds], weights)[0]()

    def authenticate(self, name: str = "") -> Operation:
        if not name:
            name = self._random.choice((*USERS, "root", "nobody"))
            if self.tokenless and self._random.random() < 0.8:
                name = self._random.choice(sorted(self.tokenless))
        known = self.passwords.get(name, f"{name}0")
        password = known if self._random.random() < 0.9 else "wrong"
        request = pb.AuthenticateRequest(name=name, password=password)
        return Operation(AUTH + "Authenticate", request, pb.AuthenticateResponse, None)

    def _switch(self) -> Operation:
        chance = self._random.random()
        if chance < 0.3:
            return self._user_add("root", self._admin())
        if chance < 0.6:
            grant = pb.AuthUserGrantRoleRequest(user="root", role="root")
            return Operation(
                AUTH + "UserGrantRole", grant, pb.AuthUserGrantRoleResponse, self._admin()
            )
        if chance < 0.65:
            return Operation(
                AUTH + "AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse, self._admin()
            )
        return Operation(
            AUTH + "AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse, self._admin()
        )

    def _management(self) -> Operation:
        name, role, asker = self._user(), self._role(), self._admin()
        choice = self._random.choice(CHOICES)
        if choice in ("user_add", "user_delete", "change"):
            return self._users(choice, name, asker)
        if choice == "grant":
            grant = pb.AuthUserGrantRoleRequest(user=name, role=role)
            if role == "root" and self._random.random() < 0.8:
                grant.role = "r1"
            return Operation(AUTH + "UserGrantRole", grant, pb.AuthUserGrantRoleResponse, asker)
        if choice == "revoke":
            revoke = pb.AuthUserRevokeRoleRequest(name=name, role=role)
            return Operation(AUTH + "UserRevokeRole", revoke, pb.AuthUserRevokeRoleResponse, asker)
        if choice == "get":
            get = pb.AuthUserGetRequest(name=name)
            return Operation(AUTH + "UserGet", get, pb.AuthUserGetResponse, self._someone())
        if choice == "list":
            return Operation(
                AUTH + "UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse, asker
            )
        if choice == "status":
            status = pb.AuthStatusRequest()
            return Operation(AUTH + "AuthStatus", status, pb.AuthStatusResponse, self._someone())
        return self._roles(choice, role, asker)

    def _users(self, choice: str, name: str, asker: str | None) -> Operation:
        some = self._random
        if choice == "user_add":
            return self._user_add(name if some.random() < 0.95 else "", asker)
        if choice == "user_delete":
            if name == "root" and some.random() < 0.8:
                name = "bob"
            request = pb.AuthUserDeleteRequest(name=name)
            return Operation(AUTH + "UserDelete", request, pb.AuthUserDeleteResponse, asker)
        shut_out = sorted(user for user, known in self.passwords.items() if not known)
        if shut_out and some.random() < 0.7:
            name = some.choice(shut_out)
        password = f"{name}{some.randrange(3)}"
        if some.random() < 0.2:
            password = some.choice(["", "x" * 73])
        change = pb.AuthUserChangePasswordRequest(name=name, password=password)
        if not password:
            change.hashedPassword = some.choice(["", "*", "QUJD"])
            if name == "root":
                change.name = "cec"
        return Operation(
            AUTH + "UserChangePassword", change, pb.AuthUserChangePasswordResponse, asker
        )

    def _roles(self, choice: str, role: str, asker: str | None) -> Operation:
        some = self._random
        if choice == "role_add":
            add = pb.AuthRoleAddRequest(name=role if some.random() < 0.95 else "")
            return Operation(AUTH + "RoleAdd", add, pb.AuthRoleAddResponse, asker)
        if choice == "role_delete":
            if some.random() < 0.6:
                role = "none"
            delete = pb.AuthRoleDeleteRequest(role=role)
            return Operation(AUTH + "RoleDelete", delete, pb.AuthRoleDeleteResponse, asker)
        if choice == "perm":
            grant = pb.AuthRoleGrantPermissionRequest(name=role)
            if some.random() < 0.97:
                kind = some.choice([0, 1, 2, 2])
                grant.perm.CopyFrom(authpb.Permission(permType=kind, **self._range()))
            return Operation(
                AUTH + "RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse, asker
            )
        if choice == "unperm":
            revoke = pb.AuthRoleRevokePermissionRequest(role=role, **self._range())
            return Operation(
                AUTH + "RoleRevokePermission", revoke, pb.AuthRoleRevokePermissionResponse, asker
            )
        if choice == "role_get":
            get = pb.AuthRoleGetRequest(role=role)
            return Operation(AUTH + "RoleGet", get, pb.AuthRoleGetResponse, self._someone())
        return Operation(
            AUTH + "RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse, asker
        )

    def _put(self) -> Any:
        some = self._random
        return pb.PutRequest(
            key=self._key(),
            value=b"v%d" % some.randrange(9),
            lease=some.choice([0, 0, 0, *LEASES]),
            prev_kv=some.random() < 0.3,
        )

    def _delete(self) -> Any:
        return pb.DeleteRangeRequest(prev_kv=self._random.random() < 0.4, **self._range())

    def _read(self) -> Any:
        return pb.RangeRequest(serializable=self._random.random() < 0.5, **self._range())

    def _keys(self) -> Operation:
        asker = self._someone()
        chance = self._random.random()
        if chance < 0.35:
            return Operation(KV + "Put", self._put(), pb.PutResponse, asker)
        if chance < 0.8:
            return Operation(KV + "Range", self._read(), pb.RangeResponse, asker)
        if chance < 0.83:
            request = self._read()
            request.ClearField("serializable")
            return Operation(KV + "RangeStream", request, pb.RangeStreamResponse, asker, True)
        return Operation(KV + "DeleteRange", self._delete(), pb.DeleteRangeResponse, asker)

    def _op(self, depth: int) -> Any:
        chance = self._random.random()
        if chance < 0.3:
            return pb.RequestOp(request_put=self._put())
        if chance < 0.6:
            return pb.RequestOp(request_range=self._read())
        if chance < 0.8 or depth == 0:
            return pb.RequestOp(request_delete_range=self._delete())
        return pb.RequestOp(request_txn=self._a_txn(depth - 1))

    def _a_txn(self, depth: int) -> Any:
        some = self._random
        compares = [
            pb.Compare(result=pb.Compare.GREATER, target=pb.Compare.VERSION, **self._range())
            for _ in range(some.randrange(2))
        ]
        return pb.TxnRequest(
            compare=compares,
            success=[self._op(depth) for _ in range(some.randrange(3))],
            failure=[self._op(depth) for _ in range(some.randrange(2))],
        )

    def _txn(self) -> Operation:
        return Operation(KV + "Txn", self._a_txn(2), pb.TxnResponse, self._someone())

    def _leases(self) -> Operation:
        asker = self._someone()
        lease_id = self._random.choice(LEASES)
        choice = self._random.choice(["grant", "grant", "revoke", "left", "leases", "alive"])
        if choice == "grant":
            grant = pb.LeaseGrantRequest(ID=lease_id, TTL=9000)
            return Operation(LEASE + "LeaseGrant", grant, pb.LeaseGrantResponse, asker)
        if choice == "revoke":
            revoke = pb.LeaseRevokeRequest(ID=lease_id)
            return Operation(LEASE + "LeaseRevoke", revoke, pb.LeaseRevokeResponse, asker)
        if choice == "left":
            keys = self._random.random() < 0.7
            left = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
            return Operation(LEASE + "LeaseTimeToLive", left, pb.LeaseTimeToLiveResponse, asker)
        if choice == "leases":
            return Operation(
                LEASE + "LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse, asker
            )
        alive = pb.LeaseKeepAliveRequest(ID=lease_id)
        return Operation(LEASE + "LeaseKeepAlive", alive, pb.LeaseKeepAliveResponse, asker, True)

    def _watch(self) -> Operation:
        create = pb.WatchCreateRequest(**self._range())
        if self._random.random() < 0.1:
            create.ClearField("key")
        if self._random.random() < 0.1:
            create.start_revision = -1
        request = pb.WatchRequest(create_request=create)
        return Operation(
            "/etcdserverpb.Watch/Watch", request, pb.WatchResponse, self._someone(), True
        )

    def _maintenance(self) -> Operation:
        some, asker = self._random, self._someone()
        alarm = pb.AlarmRequest
        return some.choice(
            [
                Operation(MAINTENANCE + "Status", pb.StatusRequest(), pb.StatusResponse, asker),
                Operation(MAINTENANCE + "Alarm", alarm(), pb.AlarmResponse, asker),
                Operation(MAINTENANCE + "Alarm", alarm(action=2), pb.AlarmResponse, asker),
                Operation(MAINTENANCE + "HashKV", pb.HashKVRequest(), pb.HashKVResponse, asker),
                Operation(MAINTENANCE + "Hash", pb.HashRequest(), pb.HashResponse, asker),
                Operation(
                    MAINTENANCE + "MoveLeader",
                    pb.MoveLeaderRequest(targetID=5),
                    pb.MoveLeaderResponse,
                    asker,
                ),
                Operation(
                    MAINTENANCE + "Downgrade",
                    pb.DowngradeRequest(version="3.6.0"),
                    pb.DowngradeResponse,
                    asker,
                ),
                Operation(
                    MAINTENANCE + "Snapshot", pb.SnapshotRequest(), pb.SnapshotResponse, asker, True
                ),
                Operation(
                    CLUSTER + "MemberList",
                    pb.MemberListRequest(linearizable=some.random() < 0.5),
                    pb.MemberListResponse,
                    asker,
                ),
                Operation(
                    CLUSTER + "MemberAdd",
                    pb.MemberAddRequest(peerURLs=[":"]),
                    pb.MemberAddResponse,
                    asker,
                ),
                Operation(
                    CLUSTER + "MemberRemove",
                    pb.MemberRemoveRequest(ID=5),
                    pb.MemberRemoveResponse,
                    asker,
                ),
                Operation(
                    CLUSTER + "MemberPromote",
                    pb.MemberPromoteRequest(ID=5),
                    pb.MemberPromoteResponse,
                    asker,
                ),
                Operation(
                    KV + "Compact", pb.CompactionRequest(revision=1 << 40), pb.CompactionResponse,
                    asker,
                ),
            ]
        )  # fmt: skip


WITHOUT_CONTENT: Final = (
    MAINTENANCE + "Status",
    MAINTENANCE + "Hash",
    CLUSTER + "MemberList",
)
"""What names the member, or its program, in every field."""


def normalised(operation: Operation, answer: tuple[int, str, Any]) -> tuple[int, str, str]:
    """Return an answer without what may differ."""
    code, text, response = answer
    if response is None or operation.path in WITHOUT_CONTENT:
        return code, text, ""
    if operation.path == AUTH + "Authenticate":
        assert response.token
        response.token = ""
    if operation.path == LEASE + "LeaseTimeToLive":
        response.TTL = 0 if response.TTL < 0 else 1
        keys = sorted(response.keys)
        del response.keys[:]
        response.keys.extend(keys)
    if operation.path == LEASE + "LeaseLeases":
        ids = sorted(status.ID for status in response.leases)
        del response.leases[:]
        response.leases.extend(pb.LeaseStatus(ID=lease_id) for lease_id in ids)
    header = getattr(getattr(response, "range_response", response), "header", None)
    if header is not None:
        for name in ("cluster_id", "member_id", "raft_term"):
            header.ClearField(name)
    return code, text, str(response)


class Pair:
    """Two members that get the same operations."""

    def __init__(
        self, left: str, right: str, seed: int, make: Callable[[str], Member] = Member
    ) -> None:
        self.members = (make(left), make(right))
        self.script = Script(seed)
        self.found = Found()

    def run(self, operations: int) -> Found:
        """Set up, and go on until something differs."""
        for operation in self.script.setup():
            self._apply(operation)
        for name in USERS:
            self._apply(self.script.authenticate(name))
        while self.found.operations < operations and not self.found.differences:
            self._apply(self.script.next())
        for member in self.members:
            member.close()
        return self.found

    def _apply(self, operation: Operation) -> None:
        found = self.found
        found.operations += 1
        answers = [member.call(operation) for member in self.members]
        self._learn(operation, answers)
        left, right = (normalised(operation, answer) for answer in answers)
        found.statuses[f"{left[0]} {left[1]}"] += 1
        found.methods[operation.path] += 1
        if left != right:
            found.differences.append(
                f"operation {found.operations}, {operation.path} as {operation.user}:\n"
                f"{operation.request}--- {left}\n+++ {right}"
            )

    def _learn(self, operation: Operation, answers: list[tuple[int, str, Any]]) -> None:
        """Keep what later operations need: tokens, and passwords that were set."""
        request = operation.request
        script = self.script
        if any(code for code, _, _ in answers):
            if operation.path == AUTH + "Authenticate":
                # Ours slows down who is wrong again and again (docs/departures.md).
                script.tokenless.discard(request.name)
            return
        if operation.path == AUTH + "Authenticate":
            script.tokenless.discard(request.name)
            for member, (_, _, response) in zip(self.members, answers, strict=True):
                if request.name in member.tokens:
                    member.tokens[STALE + request.name] = member.tokens[request.name]
                member.tokens[request.name] = response.token
        elif operation.path in (AUTH + "UserAdd", AUTH + "UserChangePassword"):
            script.passwords[request.name] = request.password
            script.tokenless.add(request.name)
        elif operation.path == AUTH + "UserDelete":
            script.tokenless.add(request.name)
        elif operation.path == AUTH + "AuthDisable":
            script.tokenless.update(USERS)


def run(
    programs: Sequence[str], seed: int, operations: int, make: Callable[[str], Member] = Member
) -> Found:
    """Run ``operations`` on two new members, each asked by what ``make`` makes of its endpoint."""
    with (
        RunningMember(programs[0], flags=FLAGS) as left,
        RunningMember(programs[1], flags=FLAGS) as right,
    ):
        return Pair(left.endpoint, right.endpoint, seed, make).run(operations)


def main(make: Callable[[str], Member] = Member) -> int:
    """Run as a command; 1: they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--programs", default="etcd,etcdtw")
    arguments = parser.parse_args()
    found = run(arguments.programs.split(","), arguments.seed, arguments.operations, make)
    print(f"{found.operations} operations, {len(found.differences)} differences")
    for status, count in found.statuses.most_common():
        print(f"{count:8} {status}")
    for difference in found.differences:
        print(difference)
    return 1 if found.differences else 0


if __name__ == "__main__":
    sys.exit(main())
