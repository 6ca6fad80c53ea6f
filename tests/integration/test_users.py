"""Users and roles where members are several, start again, or speak TLS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import grpc
import pytest

from etcdtw.auth.access import LONG_LEASE_KEYS
from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from tests.differential.judged import NEEDS_JUDGE
from tests.differential.users import AUTH, FLAGS, KV, LEASE, Member, Operation, run
from tests.differential.users_cluster import SETTLED_S, MixedRun
from tests.support.certs import Authority
from tests.support.cluster_processes import Cluster, wait_for
from tests.support.cluster_programs import with_programs
from tests.support.processes import RunningMember, TlsFiles

pytestmark = pytest.mark.integration

OPERATIONS: Final = 1200
SEED: Final = 13
MIXED_OPERATIONS: Final = 300


@NEEDS_JUDGE
def test_every_answer_to_users_is_that_of_real_etcd() -> None:
    found = run(["etcd", "etcdtw"], SEED, OPERATIONS)
    assert not found.differences, "\n".join(found.differences)
    assert found.operations == OPERATIONS
    assert len(found.methods) >= 35
    assert found.statuses["7 etcdserver: permission denied"] > 50


def ask(member: Member, path: str, request: Any, response: Any, user: str | None) -> Any:
    """Call, and insist on success."""
    code, text, answer = member.call(Operation(path, request, response, user))
    assert code == 0, f"{path}: {text}"
    return answer


def set_up(member: Member) -> None:
    """Add root and ann, who may everything and ``a``; switch auth on."""
    for name in ("root", "ann"):
        ask(
            member,
            AUTH + "UserAdd",
            pb.AuthUserAddRequest(name=name, password=name),
            pb.AuthUserAddResponse,
            None,
        )
    request = pb.AuthUserGrantRoleRequest(user="root", role="root")
    ask(member, AUTH + "UserGrantRole", request, pb.AuthUserGrantRoleResponse, None)
    ask(member, AUTH + "AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse, None)


def log_in(member: Member, name: str, password: str | None = None) -> str:
    request = pb.AuthenticateRequest(name=name, password=password or name)
    token: str = ask(member, AUTH + "Authenticate", request, pb.AuthenticateResponse, None).token
    member.tokens[name] = token
    return token


def status_of(member: Member, user: str | None, key: bytes = b"a") -> str:
    request = pb.PutRequest(key=key, value=b"v")
    return member.call(Operation(KV + "Put", request, pb.PutResponse, user))[1]


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        with_programs("etcd", "etcdtw", "etcd"),
        with_programs("etcdtw", "etcd", "etcdtw"),
        with_programs("etcd36", "etcdtw", "etcd"),
    ],
)
def test_members_of_a_mixed_cluster_come_to_the_same_verdicts(
    first: str, second: str, third: str
) -> None:
    """All members lead in turn; keys and users are the same on all of them in the end."""
    with Cluster([first, second, third], flags=FLAGS) as cluster:
        run = MixedRun(cluster, SEED)
        run.run(MIXED_OPERATIONS)
        wait_for(lambda: len(run.hashes()) == 1, SETTLED_S, "the members hold the same keys")
        buckets = run.buckets()
        assert buckets[0] == buckets[1] == buckets[2]
        assert buckets[0][1]
        run.close()


def test_users_are_there_again_after_a_restart_and_tokens_are_not() -> None:
    with RunningMember("etcdtw", flags=FLAGS) as running:
        member = Member(running.endpoint)
        set_up(member)
        log_in(member, "root")
        assert status_of(member, "root") == ""
        running.stop()
        running.start()
        again = Member(running.endpoint)
        again.tokens = member.tokens
        assert status_of(again, "root") == "etcdserver: invalid auth token"
        assert status_of(again, None) == "etcdserver: user name is empty"
        log_in(again, "root")
        assert status_of(again, "root") == ""
        member.close()
        again.close()


def test_a_lease_of_a_user_ends_while_users_are_asked() -> None:
    with RunningMember("etcdtw", flags=FLAGS) as running:
        member = Member(running.endpoint)
        set_up(member)
        log_in(member, "root")
        grant = pb.LeaseGrantRequest(ID=7, TTL=1)
        ask(member, "/etcdserverpb.Lease/LeaseGrant", grant, pb.LeaseGrantResponse, "root")
        put = pb.PutRequest(key=b"a", lease=7)
        ask(member, KV + "Put", put, pb.PutResponse, "root")

        def is_gone() -> bool:
            request = pb.RangeRequest(key=b"a")
            return not ask(member, KV + "Range", request, pb.RangeResponse, "root").count

        wait_for(is_gone, SETTLED_S, "the lease ends")
        member.close()


def test_a_lease_with_very_many_keys_of_a_user_is_ended_by_him() -> None:
    with RunningMember("etcdtw", flags=FLAGS) as running:
        member = Member(running.endpoint)
        set_up(member)
        log_in(member, "root")
        ask(
            member,
            AUTH + "RoleAdd",
            pb.AuthRoleAddRequest(name="r"),
            pb.AuthRoleAddResponse,
            "root",
        )
        perm = authpb.Permission(permType=authpb.Permission.READWRITE, key=b"a", range_end=b"b")
        grant = pb.AuthRoleGrantPermissionRequest(name="r", perm=perm)
        answer = pb.AuthRoleGrantPermissionResponse
        ask(member, AUTH + "RoleGrantPermission", grant, answer, "root")
        given = pb.AuthUserGrantRoleRequest(user="ann", role="r")
        ask(member, AUTH + "UserGrantRole", given, pb.AuthUserGrantRoleResponse, "root")
        log_in(member, "ann")
        lease = pb.LeaseGrantRequest(ID=7, TTL=600)
        ask(member, LEASE + "LeaseGrant", lease, pb.LeaseGrantResponse, "ann")
        for first in range(0, LONG_LEASE_KEYS + 500, 100):
            puts = [
                pb.RequestOp(request_put=pb.PutRequest(key=b"a%d" % number, lease=7))
                for number in range(first, first + 100)
            ]
            ask(member, KV + "Txn", pb.TxnRequest(success=puts), pb.TxnResponse, "ann")
        everything = pb.RangeRequest(key=b"a", range_end=b"b", count_only=True)
        count = ask(member, KV + "Range", everything, pb.RangeResponse, "ann").count
        assert count == LONG_LEASE_KEYS + 500
        revoke = pb.LeaseRevokeRequest(ID=7)
        ask(member, LEASE + "LeaseRevoke", revoke, pb.LeaseRevokeResponse, "ann")
        assert ask(member, KV + "Range", everything, pb.RangeResponse, "ann").count == 0


@pytest.mark.parametrize(("old", "new"), [with_programs("etcd34", "etcdtw")])
def test_a_password_that_3_4_has_put_into_the_log_is_known_here(old: str, new: str) -> None:
    with Cluster([old, new, old]) as cluster:
        theirs, ours = (Member(m.endpoint) for m in cluster.all[:2])
        set_up(theirs)
        until_s = time.monotonic() + SETTLED_S
        while status_of(ours, None) == "" and time.monotonic() < until_s:
            time.sleep(0.05)
        log_in(ours, "root")
        assert status_of(ours, "root") == ""
        theirs.tokens = ours.tokens
        assert status_of(theirs, "root") == ""
        code, text, _ = ours.call(
            Operation(
                AUTH + "Authenticate",
                pb.AuthenticateRequest(name="root", password="wrong"),
                pb.AuthenticateResponse,
                None,
            )
        )
        assert (code, text) == (
            3,
            "etcdserver: authentication failed, invalid user ID or password",
        )
        for member in (theirs, ours):
            member.close()


@pytest.mark.parametrize("program", ["etcdtw", pytest.param("etcd", marks=pytest.mark.long)])
def test_a_certificate_names_its_user(program: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("localhost")
    tls = TlsFiles(
        Path(server.cert_file),
        Path(server.key_file),
        Path(authority.ca_file),
        client_cert_auth=True,
    )
    with RunningMember(program, flags=FLAGS, tls=tls) as running:

        def member(name: str) -> Member:
            issued = authority.issue(name)
            credentials = grpc.ssl_channel_credentials(
                tls.ca_file.read_bytes(), issued.key_pem, issued.cert_pem
            )
            made = Member(running.endpoint)
            made.use(grpc.secure_channel(running.endpoint, credentials))
            return made

        root, ann, nobody = member("root"), member("ann"), member("nobody")
        set_up(root)
        assert status_of(root, None) == ""
        assert status_of(ann, None) == "etcdserver: permission denied"
        assert status_of(nobody, None) == "etcdserver: permission denied"
        # A token counts more than the certificate.
        log_in(ann, "root")
        assert status_of(ann, "root") == ""
        assert status_of(root, "wrong") == "etcdserver: invalid auth token"
        for one in (root, ann, nobody):
            one.close()


@pytest.mark.parametrize("kind", ["simple", "jwt"])
def test_no_password_no_token_and_no_key_is_logged_or_told(kind: str, tmp_path: Path) -> None:
    """CVE-2021-28235, and etcd's PRs 20941 and 21993."""
    canary = "canary-3f9b"
    flags = [*FLAGS, "--log-level=debug"]
    secret = tmp_path / "secret"
    secret.write_text(canary)
    if kind == "jwt":
        flags.append(f"--auth-token=jwt,sign-method=HS256,priv-key={secret}")
    with RunningMember("etcdtw", flags=flags) as running:
        member = Member(running.endpoint)
        set_up(member)
        log_in(member, "root")
        add = pb.AuthUserAddRequest(name="bob", password=canary)
        ask(member, AUTH + "UserAdd", add, pb.AuthUserAddResponse, "root")
        token = log_in(member, "bob", canary)
        assert status_of(member, "bob") == "etcdserver: permission denied"
        assert status_of(member, f"{canary}.1") == "etcdserver: invalid auth token"
        wrong = pb.AuthenticateRequest(name="bob", password=f"{canary}-wrong")
        operation = Operation(AUTH + "Authenticate", wrong, pb.AuthenticateResponse, None)
        assert canary not in member.call(operation)[1]
        with urlopen(f"{running.client_url}/metrics", timeout=10) as page:
            metrics = page.read().decode()
        member.close()
        running.stop()
        told = metrics + running.stderr()
        assert canary not in told
        assert max(token.split("."), key=len) not in told
