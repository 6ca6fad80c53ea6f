"""Listen URLs, and real sockets with the echo server and independent clients."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from etcdtw.http2.connection import Connection
from etcdtw.transport.listener import (
    ListenError,
    ListenUrl,
    listen,
    listen_all,
    parse_listen_url,
    remove_stale_socket,
)
from etcdtw.transport.tls import TlsFactory, TlsFiles, TlsPolicy
from tests.grpc.grpc_rig import request_fields
from tests.support.certs import Authority

PORT_PLAIN = 21110
PORT_TLS = 21111
PORT_MUTUAL = 21112
PORT_USED = 21113
BIG = b"z" * 1_572_864


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:2379", ListenUrl(text="", is_tls=False, host="127.0.0.1", port=2379)),
        ("https://localhost:1", ListenUrl(text="", is_tls=True, host="localhost", port=1)),
        ("http://[::1]:2379/", ListenUrl(text="", is_tls=False, host="::1", port=2379)),
        ("http://:2379", ListenUrl(text="", is_tls=False, host="", port=2379)),
        ("http://0.0.0.0:0", ListenUrl(text="", is_tls=False, host="0.0.0.0", port=0)),
        ("unix:///run/e.sock", ListenUrl(text="", is_tls=False, path="/run/e.sock")),
        ("unix://localhost:2379", ListenUrl(text="", is_tls=False, path="localhost:2379")),
        ("unixs://m1/x", ListenUrl(text="", is_tls=True, path="m1/x")),
    ],
)
def test_listen_urls_are_taken_apart(text: str, url: ListenUrl) -> None:
    found = parse_listen_url(text)
    assert (found.is_tls, found.host, found.port, found.path) == (
        url.is_tls,
        url.host,
        url.port,
        url.path,
    )
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://127.0.0.1", "names no port"),
        ("http://127.0.0.1:x", "is no URL"),
        ("http://127.0.0.1:70000", "is no URL"),
        ("ftp://a:1", "the scheme must be"),
        ("127.0.0.1:2379", "the scheme must be"),
        ("unix://", "names no socket file"),
        ("http://a:1/path", "has no path"),
    ],
)
def test_a_url_that_cannot_be_listened_on_says_why(text: str, complaint: str) -> None:
    with pytest.raises(ListenError, match=complaint):
        parse_listen_url(text)


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what ``coroutine`` returns, which must be at once."""
    results: list[Any] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


def test_each_kind_of_url_listens_where_it_says(tmp_path: Path) -> None:
    reactor = MemoryReactorClock()
    texts = ["http://127.0.0.1:1", "http://[::1]:2", f"unix://{tmp_path}/s"]
    urls = [parse_listen_url(text) for text in texts]
    ports: list[IListeningPort] = result_of(listen_all(reactor, urls, Factory(), None))
    assert len(ports) == 3
    assert [server[0] for server in reactor.tcpServers] == [1, 2]
    assert [server[0] for server in reactor.unixServers] == [f"{tmp_path}/s"]
    assert reactor.unixServers[0][3] == 0o660


def test_tls_without_a_policy_is_refused() -> None:
    url = parse_listen_url("https://127.0.0.1:1")
    with pytest.raises(ListenError, match="--cert-file"):
        result_of(listen(MemoryReactorClock(), url, Factory(), None))


class BusyReactor(MemoryReactorClock):
    """Lets nobody listen on the named port."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self._port = port
        self._number = number
        self.stopped = 0

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        if port == self._port:
            error = OSError(self._number, "strange")
            raise CannotListenError(interface, port, error)
        listening: IListeningPort = super().listenTCP(port, factory, backlog, interface)
        return listening


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EADDRINUSE, "the address is in use"),
        (errno.EACCES, "permission denied"),
        (errno.EADDRNOTAVAIL, "this machine does not have that address"),
        (errno.ENOBUFS, "strange"),
    ],
)
def test_a_bind_failure_is_said_precisely_and_frees_the_rest(number: int, text: str) -> None:
    reactor = BusyReactor(2, number)
    urls = [parse_listen_url(f"http://127.0.0.1:{port}") for port in (1, 2, 3)]
    with pytest.raises(ListenError, match=text) as caught:
        result_of(listen_all(reactor, urls, Factory(), None))
    assert "http://127.0.0.1:2" in str(caught.value)
    assert [server[0] for server in reactor.tcpServers] == [1]


def test_tls_urls_wrap_the_factory(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("server")
    policy = TlsPolicy(TlsFiles(cert_file=issued.cert_file, key_file=issued.key_file))
    reactor = MemoryReactorClock()
    factory = Factory()
    url = parse_listen_url("https://127.0.0.1:1")
    result_of(listen(reactor, url, factory, policy))
    wrapper = reactor.tcpServers[0][1]
    assert isinstance(wrapper, TlsFactory)
    assert wrapper.wrappedFactory is factory


def test_a_socket_that_cannot_be_probed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as strange:
        strange.bind(str(path))
        with pytest.raises(ListenError, match="cannot listen on unix"):
            remove_stale_socket(parse_listen_url(f"unix://{path}"))
    assert path.exists()


def test_a_stale_socket_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    url = parse_listen_url(f"unix://{path}")
    remove_stale_socket(url)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        with pytest.raises(ListenError, match="another process listens there"):
            remove_stale_socket(url)
    assert path.exists()
    remove_stale_socket(url)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ListenError, match="is no socket"):
        remove_stale_socket(url)


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.transport.echo_server", url, *arguments],
        cwd=Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ready(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"


class Servers:
    """Echo servers of this module: plain, over TLS, with client certificates, on a socket."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        issued = self.authority.issue("server")
        self.client = self.authority.issue("client")
        self.socket_path = folder / "s"
        pair = (issued.cert_file, issued.key_file)
        self.processes = [
            start(f"http://127.0.0.1:{PORT_PLAIN}"),
            start(f"https://127.0.0.1:{PORT_TLS}", *pair),
            start(f"https://127.0.0.1:{PORT_MUTUAL}", *pair, self.authority.ca_file),
            start(f"unix://{self.socket_path}"),
        ]
        for process in self.processes:
            until_ready(process)

    def channel(self, kind: str) -> grpc.Channel:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if kind == "plain":
            return grpc.insecure_channel(f"127.0.0.1:{PORT_PLAIN}", options)
        if kind == "unix":
            return grpc.insecure_channel(f"unix:{self.socket_path}", options)
        root = self.authority.issued.cert_pem
        if kind == "tls":
            secrets = grpc.ssl_channel_credentials(root)
            return grpc.secure_channel(f"127.0.0.1:{PORT_TLS}", secrets, options)
        secrets = grpc.ssl_channel_credentials(root, self.client.key_pem, self.client.cert_pem)
        return grpc.secure_channel(f"127.0.0.1:{PORT_MUTUAL}", secrets, options)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.communicate(timeout=5)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("echo"))
    try:
        yield started
    finally:
        started.stop()


def same(octets: bytes) -> bytes:
    return octets


def unary(channel: grpc.Channel, name: str) -> Callable[..., bytes]:
    method: Callable[..., bytes] = channel.unary_unary(
        f"/test.Echo/{name}", request_serializer=same, response_deserializer=same
    )
    return method


def error_of(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


KINDS = pytest.mark.parametrize("kind", ["plain", "tls", "mutual", "unix"])
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@KINDS
@pytest.mark.integration
def test_an_independent_client_makes_every_kind_of_call(servers: Servers, kind: str) -> None:
    with servers.channel(kind) as channel:
        assert unary(channel, "Unary")(b"hi") == b"hi"
        assert unary(channel, "Later")(b"hi") == b"hi"
        assert unary(channel, "Unary")(BIG) == BIG
        repeat = channel.unary_stream(
            "/test.Echo/Repeat", request_serializer=same, response_deserializer=same
        )
        assert [len(message) for message in repeat(BIG)] == [len(BIG)] * 10
        chat = channel.stream_stream(
            "/test.Echo/Chat", request_serializer=same, response_deserializer=same
        )
        sent = [b"a" * i for i in range(50)] + [BIG]
        assert list(chat(iter(sent))) == sent


@KINDS
@pytest.mark.integration
def test_an_independent_client_sees_every_error(servers: Servers, kind: str) -> None:
    with servers.channel(kind) as channel:
        assert error_of(lambda: unary(channel, "Unary")(b"x" * 2_097_153)) == (
            "RESOURCE_EXHAUSTED",
            "grpc: received message larger than max (2097153 vs. 2097152)",
        )
        assert len(unary(channel, "Unary")(b"x" * 2_097_152)) == 2_097_152
        assert error_of(lambda: unary(channel, "Nope")(b"")) == (
            "UNIMPLEMENTED",
            "unknown method Nope for service test.Echo",
        )
        text = "käse: 100%\n"
        assert error_of(lambda: unary(channel, "Fail")(text.encode())) == ("NOT_FOUND", text)
        assert error_of(lambda: unary(channel, "Never")(b"", timeout=0.2))[0] == "DEADLINE_EXCEEDED"
        gzip = grpc.Compression.Gzip
        assert error_of(lambda: unary(channel, "Unary")(b"x" * 9_999, compression=gzip)) == (
            "UNIMPLEMENTED",
            'grpc: Decompressor is not installed for grpc-encoding "gzip"',
        )


@pytest.mark.integration
def test_a_cancelled_flood_leaves_the_connection_usable(servers: Servers) -> None:
    with servers.channel("plain") as channel:
        flood = channel.unary_stream(
            "/test.Echo/Flood", request_serializer=same, response_deserializer=same
        )(b"go")
        for _ in range(300):
            next(flood)
        flood.cancel()
        assert unary(channel, "Unary")(b"after") == b"after"


@pytest.mark.integration
def test_a_client_without_a_certificate_is_refused(servers: Servers) -> None:
    root = servers.authority.issued.cert_pem
    secrets = grpc.ssl_channel_credentials(root)
    with grpc.secure_channel(f"127.0.0.1:{PORT_MUTUAL}", secrets) as channel:
        assert error_of(lambda: unary(channel, "Unary")(b"", timeout=5))[0] == "UNAVAILABLE"


def raw(port: int, octets: bytes, *, half_close: bool = False) -> bytes:
    """Send ``octets`` and return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(octets)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        found = b""
        while data := client.recv(65_536):
            found += data
        return found


@pytest.mark.integration
def test_strange_clients_are_closed_and_others_served(servers: Servers) -> None:
    assert raw(PORT_PLAIN, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc") == b""
    assert raw(PORT_PLAIN, b"\0garbage") == b""
    assert raw(PORT_PLAIN, b"GET /health HTTP/1.0\r\n\r\n").endswith(b'"reason":""}')
    raw(PORT_PLAIN, b"PRI * HTTP/2.0\r\n\r\nSM", half_close=True)
    raw(PORT_PLAIN, b"", half_close=True)
    raw(PORT_TLS, b"GET /health HTTP/1.1\r\n\r\n")
    with servers.channel("tls") as channel:
        assert unary(channel, "Unary")(b"still here") == b"still here"


def curl(*arguments: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "-m", "5", *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_the_routes_by_every_version(servers: Servers) -> None:
    health = '{"health":"true","reason":""}'
    plain = f"http://127.0.0.1:{PORT_PLAIN}/health"
    secure = f"https://127.0.0.1:{PORT_TLS}/health"
    trust = ("--cacert", servers.authority.ca_file)
    assert curl("--http1.0", plain) == health
    assert curl("--http1.1", plain) == health
    assert curl("--http2-prior-knowledge", plain) == health
    assert curl("--http1.1", *trust, secure) == health
    assert curl("--http2", *trust, secure) == health
    assert curl("--no-alpn", *trust, secure) == health


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_h2load_finds_no_failed_request(servers: Servers, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"\0\0\0\0\5hello")
    for url in (f"http://127.0.0.1:{PORT_PLAIN}", f"https://127.0.0.1:{PORT_TLS}"):
        output = subprocess.run(
            [
                *("h2load", "-n", "2000", "-c", "5", "-m", "10", "-d", str(body)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                f"{url}/test.Echo/Unary",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "2000 succeeded, 0 failed, 0 errored" in output


@pytest.mark.integration
def shared_listener(port: int) -> int:
    """Listen with a shared port on a real descriptor; return the descriptor adopted."""
    adopted: list[int] = []

    class Adopting(MemoryReactorClock):
        def adoptStreamPort(self, descriptor: int, family: int, factory: Factory) -> object:
            adopted.append(os.dup(descriptor))
            return super().listenTCP(port, factory)

    url = parse_listen_url(f"http://127.0.0.1:{port}")
    result_of(listen(Adopting(), url, Factory(), None, shares_port=True))
    return adopted[0]


def test_a_shared_port_can_be_listened_on_twice_and_others_cannot() -> None:
    first, second = shared_listener(PORT_USED), shared_listener(PORT_USED)
    try:
        with socket.socket() as alone, pytest.raises(OSError, match="in use"):
            alone.bind(("127.0.0.1", PORT_USED))
        url = parse_listen_url(f"http://127.0.0.2:{PORT_USED}")
        assert result_of(listen(MemoryReactorClock(), url, Factory(), None)) is not None
    finally:
        os.close(first)
        os.close(second)


def test_a_shared_port_that_somebody_holds_alone_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", PORT_USED))
        holder.listen()
        url = parse_listen_url(f"http://127.0.0.1:{PORT_USED}")
        with pytest.raises(ListenError, match="the address is in use"):
            result_of(listen(MemoryReactorClock(), url, Factory(), None, shares_port=True))


def test_an_address_in_use_is_said_precisely() -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", PORT_USED))
        holder.listen()
        server = start(f"http://127.0.0.1:{PORT_USED}")
        _, errors = server.communicate(timeout=10)
    text = f"cannot listen on http://127.0.0.1:{PORT_USED}: the address is in use"
    assert text in errors


@pytest.mark.integration
def test_a_socket_file_has_its_mode(servers: Servers) -> None:
    assert stat.S_IMODE(os.stat(servers.socket_path).st_mode) == 0o660


@pytest.mark.integration
def test_a_client_that_never_reads_does_not_stop_the_others(servers: Servers) -> None:
    http2 = Connection(client=True)
    http2.begin()
    fields = tuple(
        (name, b"/test.Echo/Flood" if name == b":path" else value)
        for name, value in request_fields()
    )
    stream_id = http2.open_stream()
    http2.send_headers(stream_id, fields)
    http2.send_data(stream_id, b"\0\0\0\0\0", True)
    with socket.create_connection(("127.0.0.1", PORT_PLAIN), timeout=5) as deaf:
        deaf.sendall(http2.take_output())
        time.sleep(0.1)
        with servers.channel("plain") as channel:
            assert unary(channel, "Unary")(b"x", timeout=2) == b"x"
