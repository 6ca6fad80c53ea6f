"""Users over JSON: tokens that both ways take, certificates that only one does."""

from __future__ import annotations

import http.client
import json
import ssl
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3electionpb, v3lockpb
from tests.differential.judged import NEEDS_JUDGE
from tests.differential.users import FLAGS, KV, Member, Operation
from tests.differential.users_json import run
from tests.support.certs import Authority
from tests.support.processes import PROGRAMS, RunningMember, TlsFiles
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.integration

OPERATIONS = 600
SEED = 29
TIMEOUT_S = 10.0
WRONG = "etcdserver: invalid auth token"
EMPTY = "etcdserver: user name is empty"
NAME_IGNORED = (
    b"CommonName of client sending a request against gateway will be ignored and not used as "
    b"expected\n"
)


def of(text: str) -> str:
    return b64encode(text.encode()).decode()


def ask(
    connection: http.client.HTTPConnection, path: str, message: Any = None, token: str = ""
) -> tuple[int, Any]:
    """Return status and JSON."""
    fields = {"Authorization": token} if token else {}
    connection.request("POST", f"/v3/{path}", json.dumps(message or {}), fields)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def set_up(connection: http.client.HTTPConnection) -> None:
    """Add root and ann, who may do what she likes with ``a``; switch auth on."""
    for path, message in (
        ("auth/user/add", {"name": "root", "password": "root"}),
        ("auth/user/add", {"name": "ann", "password": "ann"}),
        ("auth/role/add", {"name": "r"}),
        ("auth/role/grant", {"name": "r", "perm": {"permType": "READWRITE", "key": of("a")}}),
        ("auth/user/grant", {"user": "ann", "role": "r"}),
        ("auth/user/grant", {"user": "root", "role": "root"}),
        ("auth/enable", {}),
    ):
        status, told = ask(connection, path, message)
        assert status == 200, told


def log_in(connection: http.client.HTTPConnection, name: str) -> str:
    status, told = ask(connection, "auth/authenticate", {"name": name, "password": name})
    assert status == 200, told
    return str(told["token"])


@NEEDS_JUDGE
def test_every_answer_to_users_over_json_is_that_of_real_etcd() -> None:
    found = run(["etcd", "etcdtw"], SEED, OPERATIONS)
    assert not found.differences, "\n".join(found.differences)
    assert found.operations == OPERATIONS
    assert found.statuses["7 etcdserver: permission denied"] > 25


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_token_counts_over_json_and_over_grpc(program: str) -> None:
    with RunningMember(program, flags=FLAGS) as running:
        pages = http.client.HTTPConnection(running.endpoint, timeout=TIMEOUT_S)
        with closing(pages), closing(Member(running.endpoint)) as calls:
            set_up(pages)
            token = log_in(pages, "ann")
            put = {"key": of("a"), "value": of("v")}
            for shown in (token, f"Bearer {token}"):
                assert ask(pages, "kv/put", put, shown)[0] == 200
                status, told = ask(pages, "kv/put", {"key": of("b")}, shown)
                assert (status, told["code"]) == (403, 7)
            assert ask(pages, "kv/put", put) == (400, {"code": 3, "message": EMPTY})
            assert ask(pages, "kv/put", put, "no") == (401, {"code": 16, "message": WRONG})
            calls.tokens["ann"] = token
            request = pb.PutRequest(key=b"a", value=b"w")
            operation = Operation(KV + "Put", request, pb.PutResponse, "ann")
            assert calls.call(operation)[0] == 0
            authenticate = pb.AuthenticateRequest(name="root", password="root")
            path = "/etcdserverpb.Auth/Authenticate"
            told = calls.call(Operation(path, authenticate, pb.AuthenticateResponse, None))[2]
            assert ask(pages, "auth/user/list", {}, told.token)[1]["users"] == ["ann", "root"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_websocket_shows_its_token_as_a_subprotocol(program: str) -> None:
    with RunningMember(program, flags=FLAGS) as running:
        with closing(http.client.HTTPConnection(running.endpoint, timeout=TIMEOUT_S)) as pages:
            set_up(pages)
            token = log_in(pages, "ann")
        for protocol, canceled in ((f"Bearer, {token}", False), ("Bearer, no", True)):
            socket = WebSocketClient(running.endpoint, "/v3/watch", Sec_WebSocket_Protocol=protocol)
            with closing(socket.socket):
                socket.send({"create_request": {"key": of("a")}})
                told = socket.message()
                assert ("canceled" in told["result"]) is canceled, told


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_locks_and_elections_are_refused_with_is_unknown(program: str) -> None:
    with RunningMember(program, flags=FLAGS) as running:
        pages = http.client.HTTPConnection(running.endpoint, timeout=TIMEOUT_S)
        with closing(pages), closing(Member(running.endpoint)) as calls:
            set_up(pages)
            token = calls.tokens["ann"] = log_in(pages, "ann")
            denied = "etcdserver: permission denied"
            for shown, user, text in (
                (token, "ann", denied),
                ("no", "no", WRONG),
                ("", None, EMPTY),
            ):
                for path, message in (
                    ("lock/lock", {"name": of("b"), "lease": "7"}),
                    ("lock/unlock", {"key": of("b/7")}),
                    ("election/campaign", {"name": of("b"), "lease": "7"}),
                    ("election/leader", {"name": of("b")}),
                ):
                    assert ask(pages, path, message, shown) == (500, {"code": 2, "message": text})
                lock = v3lockpb.LockRequest(name=b"b", lease=7)
                leader = v3electionpb.LeaderRequest(name=b"b")
                for operation in (
                    Operation("/v3lockpb.Lock/Lock", lock, v3lockpb.LockResponse, user),
                    Operation(
                        "/v3electionpb.Election/Leader", leader, v3electionpb.LeaderResponse, user
                    ),
                ):
                    assert calls.call(operation) == (2, text, None)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_certificates_name_has_no_place_at_the_gateway(program: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, ann = authority.issue("localhost"), authority.issue("ann")
    ca_file = Path(authority.ca_file)
    tls = TlsFiles(Path(server.cert_file), Path(server.key_file), ca_file, client_cert_auth=True)
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.check_hostname = False
    context.load_cert_chain(ann.cert_file, ann.key_file)
    with RunningMember(program, flags=FLAGS, tls=tls) as running:
        pages = http.client.HTTPSConnection(running.endpoint, timeout=TIMEOUT_S, context=context)
        with closing(pages):
            assert ask(pages, "kv/put", {"key": of("a")})[0] == 200
            set_up(pages)
            for verb, path in (("POST", "/v3/kv/put"), ("GET", "/v3/no"), ("OPTIONS", "/v3beta/x")):
                pages.request(verb, path, "{}")
                answer = pages.getresponse()
                assert (answer.status, answer.read()) == (400, NAME_IGNORED)
                assert answer.getheader("Access-Control-Allow-Origin") is None
            for path in ("/version", "/health"):
                pages.request("GET", path)
                answer = pages.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
        credentials = grpc.ssl_channel_credentials(ca_file.read_bytes(), ann.key_pem, ann.cert_pem)
        calls = Member(running.endpoint)
        with closing(calls):
            calls.use(grpc.secure_channel(running.endpoint, credentials))
            for key, code in ((b"a", 0), (b"b", 7)):
                request = pb.PutRequest(key=key)
                assert calls.call(Operation(KV + "Put", request, pb.PutResponse, None))[0] == code
