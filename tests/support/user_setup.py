"""A member with users switched on: ``root``, and ``ann`` who may have every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import grpc

from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from tests.support.token_key_files import key_pair
from tests.support.wire_client import WireClient

AUTH: Final = "/etcdserverpb.Auth/"
USER: Final = "ann"


def switch_users_on(client: WireClient) -> None:
    """Add both users, each with the name as the password, and ask for users from now on."""
    everything = authpb.Permission(permType=authpb.Permission.READWRITE, key=b"\0", range_end=b"\0")
    requests: list[tuple[str, Any]] = [
        ("UserAdd", pb.AuthUserAddRequest(name="root", password="root")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ("UserAdd", pb.AuthUserAddRequest(name=USER, password=USER)),
        ("RoleAdd", pb.AuthRoleAddRequest(name=USER)),
        (
            "RoleGrantPermission",
            pb.AuthRoleGrantPermissionRequest(name=USER, perm=everything),
        ),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user=USER, role=USER)),
        ("AuthEnable", pb.AuthEnableRequest()),
    ]
    for name, request in requests:
        done = client.call(AUTH + name, request.SerializeToString())
        assert done.code == 0, f"{name}: {done.text}"


def token_of(client: WireClient, name: str = USER) -> str:
    """Return a token of one of the users."""
    request = pb.AuthenticateRequest(name=name, password=name)
    done = client.call(AUTH + "Authenticate", request.SerializeToString())
    assert done.code == 0, done.text
    token: str = pb.AuthenticateResponse.FromString(done.messages[0]).token
    return token


def signed_token_flag(method: str, folder: Path) -> str:
    """Return the flag of a member that signs tokens, with keys that are written to ``folder``."""
    private, public = key_pair(method)
    (folder / "token.key").write_bytes(private)
    (folder / "token.pub").write_bytes(public)
    files = f"priv-key={folder / 'token.key'},pub-key={folder / 'token.pub'}"
    return f"--auth-token=jwt,sign-method={method},{files},ttl=1h"


def snapshot_octets(endpoint: str, token: str) -> bytes:
    """Return a snapshot, its digest included."""
    with grpc.insecure_channel(endpoint) as channel:
        stream = channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            request_serializer=pb.SnapshotRequest.SerializeToString,
            response_deserializer=pb.SnapshotResponse.FromString,
        )(pb.SnapshotRequest(), metadata=[("token", token)], timeout=30)
        return b"".join(part.blob for part in stream)
