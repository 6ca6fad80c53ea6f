"""What a TLS policy accepts and refuses, with OpenSSL on both ends in memory."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from etcdtw.transport.tls.policy import TlsError, TlsFactory, TlsFiles, TlsPolicy
from tests.support.certs import DAY, Authority, Issued


class Rig:
    """An authority, a server certificate and the files of a policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server")
        self.files = TlsFiles(cert_file=self.server.cert_file, key_file=self.server.key_file)

    def with_trust(self) -> TlsFiles:
        return replace(self.files, trusted_ca_file=self.authority.ca_file)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def server_side(policy: TlsPolicy) -> SSL.Connection:
    wrapper: TLSMemoryBIOProtocol = None  # type: ignore[assignment]  # the policy ignores it
    return policy.serverConnectionForTLS(wrapper)


def shake(
    policy: TlsPolicy,
    client_cert: Issued | None = None,
    *,
    alpn: tuple[bytes, ...] = (),
    version_max: int | None = None,
) -> SSL.Connection:
    """Do a handshake; return the client's side.  Raises SSL.Error when either side refuses."""
    context = SSL.Context(SSL.TLS_METHOD)
    if version_max is not None:
        context.set_min_proto_version(0)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_max_proto_version(version_max)
    if client_cert is not None:
        context.use_certificate_file(client_cert.cert_file)
        context.use_privatekey_file(client_cert.key_file)
    if alpn:
        context.set_alpn_protos(list(alpn))
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server = server_side(policy)
    done = [False, False]
    for _ in range(10):
        for i, side in enumerate((client, server)):
            try:
                side.do_handshake()
                done[i] = True
            except SSL.WantReadError:
                pass
            _carry(side, (server, client)[i])
    assert done == [True, True]
    return client


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    try:
        target.bio_write(source.bio_read(65_536))
    except SSL.WantReadError:
        return


def served_name(policy: TlsPolicy) -> str | None:
    certificate = shake(policy).get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_a_policy_is_what_twisted_asks_for(rig: Rig) -> None:
    assert verifyObject(IOpenSSLServerConnectionCreator, TlsPolicy(rig.files))


def test_a_plain_handshake_succeeds_with_a_modern_suite(rig: Rig) -> None:
    client = shake(TlsPolicy(rig.files))
    assert client.get_protocol_version_name() == "TLSv1.3"


def test_tls_1_2_is_served_with_ecdhe_and_aead(rig: Rig) -> None:
    client = shake(TlsPolicy(rig.files), version_max=SSL.TLS1_2_VERSION)
    name = client.get_cipher_name()
    assert name is not None
    assert name.startswith("ECDHE-ECDSA-")
    assert "GCM" in name or "CHACHA20" in name


def test_tls_1_1_is_refused(rig: Rig) -> None:
    with pytest.raises(SSL.Error):
        shake(TlsPolicy(rig.files), version_max=SSL.TLS1_1_VERSION)


def test_the_range_of_versions_is_configurable(rig: Rig) -> None:
    only_13 = TlsPolicy(replace(rig.files, version_min="TLS1.3"))
    with pytest.raises(SSL.Error):
        shake(only_13, version_max=SSL.TLS1_2_VERSION)
    only_12 = TlsPolicy(replace(rig.files, version_max="TLS1.2"))
    assert shake(only_12).get_protocol_version_name() == "TLSv1.2"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((b"h2",), b"h2"),
        ((b"http/1.1", b"h2"), b"h2"),
        ((b"http/1.1",), b"http/1.1"),
        ((b"spdy",), b""),
        ((), b""),
    ],
)
def test_alpn_prefers_h2_and_refuses_nobody(
    rig: Rig, offered: tuple[bytes, ...], chosen: bytes
) -> None:
    client = shake(TlsPolicy(rig.files), alpn=offered)
    assert client.get_alpn_proto_negotiated() == chosen


def test_a_policy_without_alpn_negotiates_none(rig: Rig) -> None:
    client = shake(TlsPolicy(replace(rig.files, alpn=())), alpn=(b"h2",))
    assert client.get_alpn_proto_negotiated() == b""


def test_a_trusted_ca_alone_demands_client_certificates(rig: Rig) -> None:
    policy = TlsPolicy(rig.with_trust())
    shake(policy, rig.authority.issue("client"))
    with pytest.raises(SSL.Error):
        shake(policy)


def test_certificates_of_another_authority_or_time_are_refused(rig: Rig, tmp_path: Path) -> None:
    policy = TlsPolicy(rig.with_trust())
    (tmp_path / "other").mkdir()
    strangers = Authority(tmp_path / "other", "other")
    refused = [
        strangers.issue("stranger"),
        rig.authority.issue("old", begins=-2 * DAY, ends=timedelta(hours=-1)),
        rig.authority.issue("early", begins=timedelta(hours=1)),
    ]
    for issued in refused:
        with pytest.raises(SSL.Error):
            shake(policy, issued)


def test_client_cert_auth_without_a_ca_trusts_the_system_only(rig: Rig) -> None:
    policy = TlsPolicy(replace(rig.files, client_cert_auth=True))
    with pytest.raises(SSL.Error):
        shake(policy, rig.authority.issue("client"))


@pytest.mark.parametrize("der", [False, True])
def test_a_revoked_certificate_is_refused_and_others_pass(rig: Rig, der: bool) -> None:
    good, bad = rig.authority.issue("good"), rig.authority.issue("bad")
    rig.authority.revoke(bad)
    crl = rig.authority.write_crl(rig.folder / "crl", der=der)
    policy = TlsPolicy(replace(rig.with_trust(), crl_file=crl))
    shake(policy, good)
    with pytest.raises(SSL.Error):
        shake(policy, bad)


def test_an_outdated_list_still_counts_and_costs_nobody_else(rig: Rig) -> None:
    good, bad = rig.authority.issue("good"), rig.authority.issue("bad")
    rig.authority.revoke(bad)
    crl = rig.authority.write_crl(rig.folder / "crl", ends=-DAY)
    policy = TlsPolicy(replace(rig.with_trust(), crl_file=crl))
    shake(policy, good)
    with pytest.raises(SSL.Error):
        shake(policy, bad)


def test_lists_of_several_authorities_stand_in_one_file(rig: Rig) -> None:
    (rig.folder / "other").mkdir()
    other = Authority(rig.folder / "other", "other")
    bundle = rig.folder / "bundle"
    bundle.write_bytes(rig.authority.issued.cert_pem + other.issued.cert_pem)
    files = replace(rig.files, trusted_ca_file=str(bundle))
    good, bad = other.issue("good"), other.issue("bad")
    other.revoke(bad)
    first = Path(rig.authority.write_crl(rig.folder / "crl"))
    only_first = TlsPolicy(replace(files, crl_file=str(first)))
    shake(only_first, bad)  # its issuer has no list here
    second = Path(other.write_crl(rig.folder / "crl2"))
    both = rig.folder / "both"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    policy = TlsPolicy(replace(files, crl_file=str(both)))
    shake(policy, good)
    with pytest.raises(SSL.Error):
        shake(policy, bad)


def test_a_revocation_list_is_read_again_when_it_changes(rig: Rig) -> None:
    client = rig.authority.issue("client")
    crl = rig.authority.write_crl(rig.folder / "crl")
    policy = TlsPolicy(replace(rig.with_trust(), crl_file=crl))
    shake(policy, client)
    rig.authority.revoke(client)
    rig.authority.write_crl(rig.folder / "crl")
    with pytest.raises(SSL.Error):
        shake(policy, client)


class StdlibClient:
    """A client of the standard library, which can offer an old session."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def shake(self, policy: TlsPolicy, session: ssl.SSLSession | None) -> ssl.SSLObject:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self._context.wrap_bio(to_client, to_server, session=session)
        server = server_side(policy)
        for _ in range(5):
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            if to_server.pending:
                server.bio_write(to_server.read())
            with suppress(SSL.WantReadError):
                server.do_handshake()
            with suppress(SSL.WantReadError):
                to_client.write(server.bio_read(65_536))
        with suppress(ssl.SSLWantReadError):
            client.read()  # takes in the tickets that TLS 1.3 would send now
        return client


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_sessions_are_never_resumed(rig: Rig, version: str) -> None:
    policy = TlsPolicy(replace(rig.files, version_min=version, version_max=version))
    client = StdlibClient()
    first = client.shake(policy, None)
    again = client.shake(policy, first.session)
    assert again.version() == version.replace("TLS", "TLSv")
    assert not again.session_reused


def test_a_new_certificate_is_served_without_a_restart(rig: Rig) -> None:
    policy = TlsPolicy(rig.files)
    assert served_name(policy) == "server"
    other = rig.authority.issue("renewed")
    os.replace(other.key_file, rig.server.key_file)
    os.replace(other.cert_file, rig.server.cert_file)
    assert served_name(policy) == "renewed"
    assert policy.reloads == 1


def test_bad_new_files_keep_the_old_ones_and_are_tried_once(rig: Rig) -> None:
    policy = TlsPolicy(rig.files)
    complaints: list[object] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        complaints.append(event.get("why"))

    globalLogPublisher.addObserver(observe)
    try:
        Path(rig.server.cert_file).write_text("nonsense")
        assert served_name(policy) == "server"
        assert served_name(policy) == "server"
        assert policy.failed_reloads == 1
        assert len(complaints) == 1
        os.unlink(rig.server.cert_file)
        assert served_name(policy) == "server"
        assert policy.failed_reloads == 2
    finally:
        globalLogPublisher.removeObserver(observe)
    rig.server.write()
    assert served_name(policy) == "server"
    assert policy.reloads == 1


def test_half_a_rotation_keeps_the_old_pair_until_the_other_half(rig: Rig) -> None:
    policy = TlsPolicy(rig.files)
    other = rig.authority.issue("renewed")
    os.replace(other.cert_file, rig.server.cert_file)
    assert served_name(policy) == "server"
    os.replace(other.key_file, rig.server.key_file)
    assert served_name(policy) == "renewed"


def test_each_unusable_file_is_named_with_its_fault(rig: Rig) -> None:
    junk = rig.folder / "junk"
    junk.write_text("nonsense")
    other = rig.authority.issue("other")
    cases = [
        (replace(rig.files, cert_file="/no/such"), "cannot read the certificate /no/such"),
        (replace(rig.files, key_file="/no/such"), "cannot read the private key /no/such"),
        (replace(rig.files, cert_file=str(junk)), f"{junk} holds no PEM certificate"),
        (replace(rig.files, key_file=str(junk)), f"{junk} holds no PEM private key"),
        (replace(rig.files, key_file=other.key_file), "does not belong to the certificate in"),
        (replace(rig.files, trusted_ca_file="/no/such"), "cannot read the CA bundle /no/such"),
        (replace(rig.files, trusted_ca_file=str(junk)), f"{junk} holds no PEM certificate"),
        (replace(rig.with_trust(), crl_file="/no/such"), "cannot read the revocation list"),
        (replace(rig.with_trust(), crl_file=str(junk)), f"{junk} holds no certificate revocation"),
        (replace(rig.files, ciphers="NONE"), "no usable TLS cipher suite in 'NONE'"),
        (replace(rig.files, version_min="TLS1.0"), "unknown TLS version 'TLS1.0'"),
        (
            replace(rig.files, version_min="TLS1.3", version_max="TLS1.2"),
            "TLS versions end (TLS1.2) before they begin (TLS1.3)",
        ),
    ]
    for files, text in cases:
        with pytest.raises(TlsError) as caught:
            TlsPolicy(files)
        assert text in str(caught.value)


class Refusing(Factory):
    """A port that is full."""

    def buildProtocol(self, addr: object) -> None:
        return None


def test_a_full_port_refuses_before_any_handshake(rig: Rig) -> None:
    factory: TLSMemoryBIOFactory = TlsFactory(TlsPolicy(rig.files), Refusing(), Clock())
    assert factory.buildProtocol(None) is None


@pytest.mark.parametrize(
    ("allowed", "is_welcome"),
    [
        (("node.test",), True),
        (("other.test", "node.test"), True),
        (("127.0.0.1",), True),
        (("other.test",), False),
        (("10.0.0.1",), False),
        (("node",), False),
    ],
)
def test_client_must_carry_one_of_the_allowed_names(
    rig: Rig, allowed: tuple[str, ...], is_welcome: bool
) -> None:
    policy = TlsPolicy(replace(rig.with_trust(), allowed_hostnames=allowed))
    client = rig.authority.issue("client", host="node.test")
    if is_welcome:
        shake(policy, client, version_max=SSL.TLS1_2_VERSION)
    else:
        with pytest.raises(SSL.Error):
            shake(policy, client, version_max=SSL.TLS1_2_VERSION)


def test_allowed_name_does_not_excuse_a_strange_authority(rig: Rig, tmp_path: Path) -> None:
    policy = TlsPolicy(replace(rig.with_trust(), allowed_hostnames=("node.test",)))
    strange = Authority(tmp_path, "strange").issue("client2", host="node.test")
    with pytest.raises(SSL.Error):
        shake(policy, strange, version_max=SSL.TLS1_2_VERSION)


def test_name_that_no_certificate_can_carry_is_refused_at_the_start(rig: Rig) -> None:
    with pytest.raises(TlsError, match="no host name"):
        TlsPolicy(replace(rig.with_trust(), allowed_hostnames=("",)))
