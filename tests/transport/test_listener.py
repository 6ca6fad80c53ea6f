"""Listen URLs, and real sockets with the echo server and independent clients."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from etcdtw.http2.connection import Connection
from etcdtw.transport.listener import (
    ACCEPTS_MAX,
    Bound,
    ListenError,
    ListenUrl,
    bind,
    bind_all,
    listen,
    over_tls,
    parse_listen_url,
    remove_stale_socket,
)
from etcdtw.transport.tls.policy import TlsFactory, TlsFiles, TlsPolicy
from tests.grpc.grpc_rig import request_fields
from tests.support.certs import Authority
from tests.support.ports import free_port

PORT_PLAIN, PORT_TLS, PORT_MUTUAL, PORT_USED = (free_port() for _ in range(4))
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


def test_each_kind_of_url_is_bound_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "s"
    urls = [parse_listen_url(text) for text in ("http://127.0.0.1:0", f"unix://{path}")]
    bound = bind_all(urls)
    assert bound[0].socket.getsockname()[0] == "127.0.0.1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    for one in bound:
        one.close()
    assert not path.exists()


def test_a_bound_address_queues_whoever_comes_before_it_is_served() -> None:
    (bound,) = bind_all([parse_listen_url("http://127.0.0.1:0")])
    with socket.create_connection(bound.socket.getsockname()):
        accepted, _ = bound.socket.accept()
        accepted.close()
    bound.close()


def test_tls_without_a_policy_is_refused() -> None:
    url = parse_listen_url("https://127.0.0.1:1")
    with pytest.raises(ListenError, match="--cert-file"):
        listen(MemoryReactorClock(), url, Factory(), None)


def test_a_bind_failure_is_said_precisely_and_frees_the_rest() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        free = socket.create_server(("127.0.0.1", 0))
        other = free.getsockname()[1]
        free.close()
        urls = [parse_listen_url(f"http://127.0.0.1:{port}") for port in (other, taken)]
        with pytest.raises(ListenError, match="the address is in use") as caught:
            bind_all(urls)
        assert f"http://127.0.0.1:{taken}" in str(caught.value)
        socket.create_server(("127.0.0.1", other)).close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://192.0.2.1:1", "this machine does not have that address"),
        ("unix:///no/such/folder/s", "No such file"),
        ("http://no.such.host.invalid:1", "its host is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_had_says_why(url: str, text: str) -> None:
    with pytest.raises(ListenError, match=text):
        bind_all([parse_listen_url(url)])


def test_tls_urls_wrap_the_factory(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("server")
    policy = TlsPolicy(TlsFiles(cert_file=issued.cert_file, key_file=issued.key_file))
    factory = Factory()
    url = parse_listen_url("https://127.0.0.1:1")
    wrapper = over_tls(url, factory, policy, MemoryReactorClock())
    assert isinstance(wrapper, TlsFactory)
    assert wrapper.wrappedFactory is factory
    plain = parse_listen_url("http://127.0.0.1:1")
    assert over_tls(plain, factory, policy, MemoryReactorClock()) is factory


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
        deflate = grpc.Compression.Deflate
        assert error_of(lambda: unary(channel, "Unary")(b"x" * 9_999, compression=deflate)) == (
            "UNIMPLEMENTED",
            'grpc: Decompressor is not installed for grpc-encoding "deflate"',
        )
        for size in (1, 9_999, 1_000_000):
            gzip = grpc.Compression.Gzip
            assert unary(channel, "Unary")(b"x" * size, compression=gzip) == b"x" * size


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


def shared(host: str = "127.0.0.1", *, is_shared: bool = True) -> Bound:
    return bind(parse_listen_url(f"http://{host}:{PORT_USED}"), shares_port=is_shared)


def test_a_shared_port_can_be_listened_on_twice_and_others_cannot() -> None:
    first, second = shared(), shared()
    try:
        with pytest.raises(ListenError, match="in use"):
            shared(is_shared=False)
        shared("127.0.0.2").close()
    finally:
        first.close()
        second.close()


def test_a_shared_port_that_somebody_holds_alone_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", PORT_USED))
        holder.listen()
        with pytest.raises(ListenError, match="the address is in use"):
            shared()


@pytest.mark.processes
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


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_few_connections_are_accepted_at_once(tmp_path: Path, kind: str) -> None:
    text = "http://127.0.0.1:0" if kind == "tcp" else f"unix://{tmp_path}/s"
    bound = bind(parse_listen_url(text), shares_port=False)
    address = bound.socket.getsockname()
    family = bound.socket.family

    class Counted(Factory):
        noisy = False
        count = 0

        def buildProtocol(self, addr: object) -> None:
            self.count += 1

    factory = Counted()
    reactor = MemoryReactorClock()
    port = bound.serve(reactor, factory)
    clients = [socket.socket(family) for _ in range(3 * ACCEPTS_MAX)]
    for client in clients:
        client.connect(address)
    for turn in range(1, 4):
        port.doRead()  # type: ignore[attr-defined]
        assert factory.count == turn * ACCEPTS_MAX
    for client in clients:
        client.close()
    port.stopListening()
