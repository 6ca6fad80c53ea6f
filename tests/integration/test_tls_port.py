"""The client port with TLS: stock clients get in, wrong octets hurt nobody."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import wire_frames as wire
from tests.support.certs import Authority
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import Etcdctl
from tests.support.processes import PROGRAMS, RunningMember, TlsFiles

pytestmark = pytest.mark.integration

SOCKET_TIMEOUT_S = 5.0


def tls_files(folder: Path, *, client_cert_auth: bool = False) -> TlsFiles:
    authority = Authority(folder)
    issued = authority.issue("member")
    return TlsFiles(
        Path(issued.cert_file), Path(issued.key_file), Path(authority.ca_file), client_cert_auth
    )


@pytest.fixture(scope="module", params=PROGRAMS)
def secure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMember]:
    tls = tls_files(tmp_path_factory.mktemp("tls"))
    with RunningMember(str(request.param), tls=tls) as running:
        yield running
        assert running.is_running
        assert "Traceback" not in running.stderr(), running.stderr()[-4000:]


def serves(member: RunningMember) -> bool:
    assert member.tls is not None
    with EtcdClient(member.endpoint, ca_file=member.tls.ca_file) as client:
        client.put(b"tls", b"value")
        return bool(client.range(b"tls").kvs[0].value == b"value")


def connect(member: RunningMember) -> socket.socket:
    host, _, port = member.endpoint.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOCKET_TIMEOUT_S)


def test_grpcio_and_etcdctl_get_in(secure: RunningMember) -> None:
    assert serves(secure)
    etcdctl = Etcdctl(secure)
    assert etcdctl.lines("get", "tls", "--print-value-only") == ["value"]
    assert etcdctl.run("endpoint", "health").returncode == 0


def test_curl_reads_health_over_http_1_1(secure: RunningMember) -> None:
    assert secure.tls is not None
    done = subprocess.run(
        ["curl", "-sS", "--http1.1", "--cacert", secure.tls.ca_file, f"{secure.client_url}/health"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"health":"true"' in done.stdout.replace(" ", "")


def test_plain_http_2_to_the_tls_port_ends_the_connection(secure: RunningMember) -> None:
    with closing(connect(secure)) as sock:
        sock.sendall(wire.PREFACE + wire.settings({}))
        received = sock.recv(65536)
    assert wire.settings({})[:4] != received[:4]
    assert serves(secure)


def test_plain_http_1_to_the_tls_port_is_refused(secure: RunningMember) -> None:
    with closing(connect(secure)) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " not in sock.recv(65536)
    assert serves(secure)


def test_handshakes_that_never_end_disturb_nobody(secure: RunningMember) -> None:
    slow = [connect(secure) for _ in range(30)]
    for sock in slow:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    assert serves(secure)
    for sock in slow:
        sock.close()


def test_a_client_of_another_authority_is_turned_away(
    secure: RunningMember, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cafile=Authority(tmp_path).ca_file)
    with closing(connect(secure)) as sock, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(sock, server_hostname="localhost")
    assert serves(secure)


@pytest.mark.parametrize("program", PROGRAMS)
def test_client_certificates_are_demanded_when_the_flag_says_so(
    program: str, tmp_path: Path
) -> None:
    tls = tls_files(tmp_path, client_cert_auth=True)
    with RunningMember(program, tls=tls) as member:
        with (
            EtcdClient(
                member.endpoint,
                ca_file=tls.ca_file,
                cert_file=tls.cert_file,
                key_file=tls.key_file,
            ) as client,
        ):
            client.put(b"tls", b"value")
        with EtcdClient(member.endpoint, ca_file=tls.ca_file) as stranger:
            with pytest.raises(RpcFailedError) as caught:
                stranger.put(b"tls", b"other")
            assert caught.value.code == 14
