"""Who gets in over TLS on a real member: etcdctl, grpcio and OpenSSL against every refusal."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.certs import DAY, Authority, Issued
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import Etcdctl
from tests.support.processes import MemberNotReadyError, RunningMember, TlsFiles

TIMEOUT_S: Final = 10.0
UNAVAILABLE: Final = 14
CLIENT_NAME: Final = "client.test"

pytestmark = pytest.mark.integration


class Site:
    """An authority, a member that trusts it alone and refuses one revoked client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server")
        self.client = self.authority.issue("client", host=CLIENT_NAME)
        self.unnamed = self.authority.issue("unnamed", host="other.test")
        self.expired = self.authority.issue("expired", host=CLIENT_NAME, begins=-3 * DAY, ends=-DAY)
        self.revoked = self.authority.issue("revoked", host=CLIENT_NAME)
        self.authority.revoke(self.revoked)
        self.crl_file = self.authority.write_crl(folder / "revoked.crl")
        (folder / "strange").mkdir()
        self.strange = Authority(folder / "strange", "strange").issue("client", host=CLIENT_NAME)

    def files(self) -> TlsFiles:
        return TlsFiles(
            Path(self.server.cert_file),
            Path(self.server.key_file),
            Path(self.authority.ca_file),
            client_cert_auth=True,
        )

    def member(self, *flags: str) -> RunningMember:
        return RunningMember("etcdtw", tls=self.files(), flags=flags)

    def grpc(self, member: RunningMember, shown: Issued | None) -> EtcdClient:
        return EtcdClient(
            member.endpoint,
            ca_file=Path(self.authority.ca_file),
            cert_file=Path(shown.cert_file) if shown else None,
            key_file=Path(shown.key_file) if shown else None,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def member(site: Site) -> Iterator[RunningMember]:
    flags = (f"--client-crl-file={site.crl_file}", f"--client-cert-allowed-hostname={CLIENT_NAME}")
    with site.member(*flags) as running:
        yield running
        assert "Traceback" not in running.stderr(), running.stderr()[-4000:]


def put(client: EtcdClient) -> None:
    client.call("put", pb.PutRequest(key=b"k", value=b"v"), timeout_s=TIMEOUT_S)


def etcdctl(
    member: RunningMember, shown: Issued | None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    pair = [f"--cert={shown.cert_file}", f"--key={shown.key_file}"] if shown else []
    return Etcdctl(member).run(
        *pair, "--dial-timeout=2s", "--command-timeout=2s", *arguments, timeout_s=TIMEOUT_S
    )


def test_client_of_our_authority_gets_in(site: Site, member: RunningMember) -> None:
    with site.grpc(member, site.client) as client:
        put(client)
    done = etcdctl(member, site.client, "put", "a", "b")
    assert (done.returncode, done.stdout) == (0, "OK\n"), done.stderr


@pytest.mark.parametrize("who", ["none", "strange", "expired", "revoked", "unnamed"])
def test_everybody_else_is_turned_away(site: Site, member: RunningMember, who: str) -> None:
    shown: Issued | None = None if who == "none" else getattr(site, who)
    with site.grpc(member, shown) as client, pytest.raises(RpcFailedError) as caught:
        put(client)
    assert caught.value.code == UNAVAILABLE
    assert etcdctl(member, shown, "put", "a", "b").returncode != 0
    with site.grpc(member, site.client) as client:
        put(client)


def test_plain_text_to_the_tls_port_is_no_call(site: Site, member: RunningMember) -> None:
    with EtcdClient(member.endpoint) as client, pytest.raises(RpcFailedError) as caught:
        put(client)
    assert caught.value.code == UNAVAILABLE
    with socket.create_connection(("127.0.0.1", member.client_port), TIMEOUT_S) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in plain.recv(1000)


def spoken(site: Site, member: RunningMember, version: ssl.TLSVersion) -> str | None:
    """Return the version of a handshake that is made with ``version`` alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.authority.ca_file)
    context.load_cert_chain(site.client.cert_file, site.client.key_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", member.client_port), TIMEOUT_S) as tcp:
        try:
            with context.wrap_socket(tcp, server_hostname="localhost") as wrapped:
                return wrapped.version()
        except (ssl.SSLError, ConnectionError):
            return None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(site: Site, member: RunningMember) -> None:
    assert spoken(site, member, ssl.TLSVersion.TLSv1_1) is None
    assert spoken(site, member, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert spoken(site, member, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


@pytest.mark.parametrize(
    ("flag", "versions"),
    [
        ("--tls-min-version=TLS1.3", [None, "TLSv1.3"]),
        ("--tls-max-version=TLS1.2", ["TLSv1.2", None]),
    ],
)
def test_versions_are_those_of_the_flags(site: Site, flag: str, versions: list[str | None]) -> None:
    with site.member(flag) as member:
        both = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        assert [spoken(site, member, version) for version in both] == versions


def shown_serial(site: Site, member: RunningMember) -> int:
    """Return the serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=site.authority.ca_file)
    context.load_cert_chain(site.client.cert_file, site.client.key_file)
    with (
        socket.create_connection(("127.0.0.1", member.client_port), TIMEOUT_S) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost") as wrapped,
    ):
        certificate = wrapped.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


def test_new_certificate_is_shown_to_new_connections_and_old_streams_stay(tmp_path: Path) -> None:
    site = Site(tmp_path)
    flags = (f"--client-crl-file={site.crl_file}",)
    with site.member(*flags) as member, site.grpc(member, site.client) as client:
        watch = client.watch()
        watch.create(b"k")
        assert watch.take().created
        assert shown_serial(site, member) == site.server.certificate.serial_number

        renewed = site.authority.issue("server")  # the same files
        assert shown_serial(site, member) == renewed.certificate.serial_number
        put(client)
        assert len(watch.take_events(1)) == 1

        site.authority.revoke(site.unnamed)
        with site.grpc(member, site.unnamed) as other:
            put(other)
        site.authority.write_crl(Path(site.crl_file))
        with site.grpc(member, site.unnamed) as other, pytest.raises(RpcFailedError):
            put(other)

        Path(site.server.cert_file).write_text("damaged")
        assert shown_serial(site, member) == renewed.certificate.serial_number
        assert "old ones stay" in member.stderr()
        watch.close()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("missing", "cannot read the certificate"),
        ("garbage", "holds no PEM certificate"),
        ("mismatch", "does not belong to the certificate"),
        ("no crl", "cannot read the revocation list"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_with_status_1(
    tmp_path: Path, fault: str, text: str
) -> None:
    site = Site(tmp_path)
    flags: tuple[str, ...] = ()
    if fault == "missing":
        os.unlink(site.server.cert_file)
    elif fault == "garbage":
        Path(site.server.cert_file).write_text("nothing")
    elif fault == "mismatch":
        Path(site.server.key_file).write_bytes(site.client.key_pem)
    else:
        flags = (f"--client-crl-file={tmp_path / 'gone.crl'}",)
    member = site.member(*flags)
    try:
        with pytest.raises(MemberNotReadyError):
            member.start()
        assert member.exit_status == 1
        assert text in member.stderr()
    finally:
        member.close()
