"""Who gets in at the client and the peer port of a cluster with TLS, and renewal under load."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT, RANGE
from tests.support.certs import DAY, Authority, Issued
from tests.support.cluster_processes import Cluster, ClusterMember, ClusterTls, wait_for
from tests.support.cluster_programs import with_programs
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.processes import READY_LINE
from tests.support.wire_client import ConnectionFailedError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]

TIMEOUT_S: Final = 10.0
UNAVAILABLE: Final = 14
STRANGERS: Final = ("none", "strange", "expired", "revoked", "unnamed")
PORTS: Final = ("client", "peer")
LOAD_CLIENTS: Final = 4
REQUESTS_A_CONNECTION: Final = 5
RENEWALS: Final = 10
RENEWALS_LONG: Final = 100
LEFT_OUTSIDE_S: Final = 3.0
SHOWN_TIMEOUT_S: Final = 5.0
# A machine that is busy with handshakes must not elect: this is about certificates.
PATIENT: Final = ("--election-timeout", "5000", "--heartbeat-interval", "100")


class Site:
    """A cluster with TLS on both ports, a list of revocations, and all who shall not get in."""

    def __init__(self, program: str, folder: Path) -> None:
        tls = ClusterTls(folder)
        self.authority = tls.authority
        self.good = tls.client
        self.expired = self.authority.issue("expired", begins=-3 * DAY, ends=-DAY)
        self.revoked = self.authority.issue("revoked")
        self.unnamed = self.authority.issue("unnamed", host="other.invalid", address="192.0.2.1")
        self.authority.revoke(self.revoked)
        self.crl_file = self.authority.write_crl(folder / "revoked.crl")
        self.strange_authority = Authority(folder / "strange")
        self.strange = self.strange_authority.issue("client")
        flags = [
            *("--client-crl-file", self.crl_file, "--peer-crl-file", self.crl_file),
            # At the peer port the names are held against the address; at the client port not.
            *("--client-cert-allowed-hostname", "localhost"),
        ]
        self.cluster = Cluster([program] * 3, flags=flags, tls=tls)

    def shown(self, who: str) -> Issued | None:
        issued: Issued | None = None if who == "none" else getattr(self, who)
        return issued

    def context(self, shown: Issued | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.ca_file)
        if shown is not None:
            context.load_cert_chain(shown.cert_file, shown.key_file)
        return context


@pytest.fixture(
    scope="module",
    params=[with_programs("etcd"), with_programs("etcd34"), with_programs("etcdtw")],
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "strange").mkdir()
    made = Site(str(request.param), folder)
    with made.cluster:
        yield made
        assert len(made.cluster.serving) == 3
        made.cluster.check_logs()


def port_of(member: ClusterMember, port: str) -> int:
    return member.client_port if port == "client" else member.peer_port


def asked(member: ClusterMember, port: str, context: ssl.SSLContext | None) -> bytes:
    """Return the answer to a request of HTTP/1.1 at a port; empty when it is refused."""
    path = b"/health" if port == "client" else b"/version"
    request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    where = ("127.0.0.1", port_of(member, port))
    with socket.create_connection(where, TIMEOUT_S) as plain:
        try:
            if context is None:
                plain.sendall(request)
                return plain.recv(65536)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                wrapped.sendall(request)
                return wrapped.recv(65536)
        except (ssl.SSLError, ConnectionError):
            return b""


def put(site: Site, member: ClusterMember, shown: Issued | None) -> None:
    with EtcdClient(
        member.endpoint,
        ca_file=Path(site.authority.ca_file),
        cert_file=Path(shown.cert_file) if shown else None,
        key_file=Path(shown.key_file) if shown else None,
    ) as client:
        client.call("put", pb.PutRequest(key=b"k", value=b"v"), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("port", PORTS)
def test_who_has_a_certificate_of_our_authority_gets_in(site: Site, port: str) -> None:
    for member in site.cluster.all:
        assert asked(member, port, site.context(site.good)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("port", PORTS)
def test_everybody_else_is_turned_away(site: Site, port: str, who: str) -> None:
    for member in site.cluster.all:
        assert asked(member, port, site.context(site.shown(who))) == b""
        assert asked(member, port, site.context(site.good)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("who", STRANGERS)
def test_nobody_else_makes_a_call(site: Site, who: str) -> None:
    member = site.cluster.leader()
    with pytest.raises(RpcFailedError) as caught:
        put(site, member, site.shown(who))
    assert caught.value.code == UNAVAILABLE
    put(site, member, site.good)


@pytest.mark.parametrize("port", PORTS)
def test_plain_text_is_not_answered(site: Site, port: str) -> None:
    for member in site.cluster.all:
        assert b" 200 " not in asked(member, port, None)


@pytest.mark.parametrize("port", PORTS)
def test_versions_before_1_2_are_refused(site: Site, port: str) -> None:
    member = site.cluster.all[0]
    found = {}
    for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = site.context(site.good)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        found[version.name] = asked(member, port, context).startswith(b"HTTP/1.1 200 ")
    assert not found["TLSv1_1"]
    assert found["TLSv1_2"]
    # etcd 3.5.1 stops at 1.2.
    assert found["TLSv1_3"] or member.program == "etcd"


@pytest.mark.parametrize("port", PORTS)
def test_members_show_a_certificate_that_a_client_can_check(site: Site, port: str) -> None:
    member = site.cluster.all[0]
    context = ssl.create_default_context(cafile=site.strange_authority.ca_file)
    context.load_cert_chain(site.good.cert_file, site.good.key_file)
    with (
        socket.create_connection(("127.0.0.1", port_of(member, port)), TIMEOUT_S) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


# Not one that is revoked: real etcd looks at the list when it is dialed, not when it dials.
@pytest.mark.parametrize("who", ["strange", "expired", "unnamed"])
def test_a_member_that_shows_the_wrong_certificate_is_left_outside(site: Site, who: str) -> None:
    cluster = site.cluster
    assert cluster.tls is not None
    outside = cluster.followers()[0]
    right = cluster.tls.members[outside.name]
    shown = site.shown(who)
    assert shown is not None
    cluster.stop(outside)
    written_before = len(outside.stderr())
    cluster.tls.members[outside.name] = shown
    rest = [member for member in cluster.all if member is not outside]
    revision = 0
    try:
        outside.launch()
        deadline = time.monotonic() + LEFT_OUTSIDE_S
        while time.monotonic() < deadline:
            revision = cluster.client(rest[0]).put(b"outside", who.encode()).header.revision
            time.sleep(0.1)
        assert cluster.leader_now(rest) in rest
        assert READY_LINE.decode() not in outside.stderr()[written_before:]
    finally:
        cluster.tls.members[outside.name] = right
        cluster.kill([outside])
        cluster.start_members([outside])
    cluster.wait_applied(revision)
    cluster.assert_equal()


class Load(threading.Thread):
    """Puts and reads over connections that are made anew all the time."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._number = number
        self._is_told_to_stop = threading.Event()
        self.requests = 0
        self.connections = 0
        self.failures: list[str] = []

    def run(self) -> None:
        at = self._number
        while not self._is_told_to_stop.is_set():
            at += 1
            try:
                self._connection(self._cluster.all[at % len(self._cluster.all)])
            except (OSError, ConnectionFailedError) as error:
                self.failures.append(repr(error))

    def _connection(self, member: ClusterMember) -> None:
        client = self._cluster.wire_client(member)
        self.connections += 1
        try:
            for i in range(REQUESTS_A_CONNECTION):
                key = b"renew/%d/%d" % (self._number, i)
                for path, request in (
                    (PUT, pb.PutRequest(key=key, value=key).SerializeToString()),
                    (RANGE, pb.RangeRequest(key=key).SerializeToString()),
                ):
                    stream = client.call(path, request)
                    self.requests += 1
                    if stream.code != 0:
                        self.failures.append(f"{stream.code} {stream.text}")
        finally:
            client.close()

    def stop(self) -> None:
        self._is_told_to_stop.set()
        self.join()


def shown_serial(tls: ClusterTls, port: int) -> int:
    """Return the serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain,
        tls.peer_context().wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        certificate = wrapped.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


def renew(cluster: Cluster, times: int) -> None:
    """Renew every certificate ``times`` times; each is shown by both ports soon."""
    tls = cluster.tls
    assert tls is not None
    for _ in range(times):
        # With the key that is there: two files cannot be replaced at one moment, and real etcd
        # reads both at every handshake.
        tls.client = tls.authority.issue("client", key=tls.client.key)
        for member in cluster.all:
            issued = tls.authority.issue(member.name, key=tls.members[member.name].key)
            tls.members[member.name] = issued
        for member in cluster.all:
            wanted = tls.members[member.name].certificate.serial_number
            for port in (member.client_port, member.peer_port):
                wait_for(
                    _shows(tls, port, wanted), SHOWN_TIMEOUT_S, f"{member.name} shows it at {port}"
                )


def _shows(tls: ClusterTls, port: int, wanted: int) -> Callable[[], bool]:
    return lambda: shown_serial(tls, port) == wanted


@pytest.mark.parametrize("program", [with_programs("etcd"), with_programs("etcdtw")])
@pytest.mark.parametrize("times", [RENEWALS, pytest.param(RENEWALS_LONG, marks=pytest.mark.long)])
def test_certificates_are_renewed_under_load_without_a_failed_request(
    program: str, times: int
) -> None:
    with Cluster([program] * 3, tls=True, flags=PATIENT) as cluster:
        loads = [Load(cluster, i) for i in range(LOAD_CLIENTS)]
        for load in loads:
            load.start()
        try:
            renew(cluster, times)
        finally:
            for load in loads:
                load.stop()
        failures = [text for load in loads for text in load.failures]
        assert not failures, failures[:5]
        assert sum(load.connections for load in loads) > times
        assert sum(load.requests for load in loads) > 10 * times
        # Connections between members are long; one that was away makes them anew.
        away = cluster.followers()[0]
        cluster.kill([away])
        cluster.start_members([away])
        cluster.assert_equal()
        cluster.check_logs()
