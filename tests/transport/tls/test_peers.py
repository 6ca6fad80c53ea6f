"""Mutual TLS between members: who is refused, by whom, and in which words."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from etcdtw.transport.rejections import (
    REJECTION_WINDOW_S,
    REJECTIONS_LOGGED_MAX,
    RejectionLog,
)
from etcdtw.transport.tls.admission import HANDSHAKE_S, UNCHECKED_OCTETS_MAX, Admission
from etcdtw.transport.tls.context import DialFiles
from etcdtw.transport.tls.dial import DIAL_HANDSHAKE_S, PeerDialTls
from etcdtw.transport.tls.policy import TlsError, TlsFactory
from etcdtw.transport.tls.verification import NOT_ALLOWED, common_name_of, failure_text
from tests.support.certs import DAY, Authority, Issued
from tests.transport.tls.tls_rig import REMOTE, End, PeerRig, Speaker, Speakers, Wire, log_lines

PREFIX = f"rejected connection on peer endpoint from {REMOTE}:4000: "


@pytest.fixture
def rig(tmp_path: Path) -> PeerRig:
    return PeerRig(tmp_path)


def showing(rig: PeerRig, issued: Issued) -> PeerDialTls:
    return rig.dialler(
        replace(rig.dial_files, cert_file=issued.cert_file, key_file=issued.key_file)
    )


def shown(rig: PeerRig, issued: Issued) -> TlsFactory:
    return rig.listener(
        replace(rig.listen_files, cert_file=issued.cert_file, key_file=issued.key_file)
    )


def strangers(rig: PeerRig) -> Authority:
    folder = rig.folder / "strange"
    folder.mkdir()
    return Authority(folder, "strange")


def bad_certificates(rig: PeerRig) -> dict[str, Issued]:
    """Return certificates for m1.test, 10.0.0.9 and 127.0.0.1 that nobody should believe."""
    issue = rig.authority.issue
    return {
        "wrong authority": strangers(rig).issue("strange", host="m1.test"),
        "expired": issue("old", begins=-2 * DAY, ends=timedelta(hours=-1), host="m1.test"),
        "not yet valid": issue("early", begins=timedelta(hours=1), host="m1.test"),
        "wrong use": issue("use", host="m1.test", usages=(ExtendedKeyUsageOID.CODE_SIGNING,)),
    }


WORDS = {
    "wrong authority": "the certificate 'CN=strange' is issued by an authority that is not trusted",
    "expired": "the certificate 'CN=old' has expired",
    "not yet valid": "the certificate 'CN=early' is not valid yet",
    "wrong use": "the certificate 'CN=use' is not meant for this use (extended key usage)",
}


def test_policies_are_what_twisted_asks_for(rig: PeerRig) -> None:
    dialler = rig.dialler()
    assert verifyObject(IOpenSSLClientConnectionCreator, dialler.creator("m1.test"))
    assert verifyObject(IStreamClientEndpoint, dialler.wrap(Wire(None), "m1.test"))
    gate = Admission(Protocol(), rig.clock, RejectionLog("peer"), None)
    assert verifyObject(IHandshakeListener, gate)


@pytest.mark.parametrize("host", ["m1.test", "M1.test", "m1.test.", "10.0.0.9"])
def test_members_of_one_authority_talk(rig: PeerRig, host: str) -> None:
    meeting = rig.meet(host=host, greeting=b"GET /raft/stream/message/1")
    assert meeting.works
    assert meeting.server is not None
    assert meeting.server.heard.startswith(b"GET /raft/stream")
    assert (meeting.server.made, meeting.client.made) == (1, 1)


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("case", list(WORDS))
def test_a_listener_refuses_and_says_why(rig: PeerRig, case: str, version: str) -> None:
    listener = rig.listener(replace(rig.listen_files, version_max=version, version_min=version))
    with log_lines() as lines:
        meeting = rig.meet(listener, showing(rig, bad_certificates(rig)[case]), greeting=b"hello")
    assert lines == [PREFIX + WORDS[case]]
    assert meeting.server is not None
    assert meeting.server.heard == b""
    assert meeting.server.lost is not None


@pytest.mark.parametrize("case", list(WORDS))
def test_a_dialler_refuses_and_says_why(rig: PeerRig, case: str) -> None:
    with log_lines() as lines:
        meeting = rig.meet(shown(rig, bad_certificates(rig)[case]), greeting=b"secret")
    assert meeting.fault == f"no TLS with m1.test: {WORDS[case]}"
    assert meeting.server is not None
    assert meeting.server.heard == b""
    # The listener learns what the other side makes of its certificate.
    assert len(lines) == 1
    assert lines[0].startswith(PREFIX + "it ")


def test_a_server_must_be_who_the_url_names(rig: PeerRig) -> None:
    for host in ("m2.test", "10.0.0.8", "test", "1.m1.test"):
        fault = rig.meet(host=host).fault
        assert fault == (
            f"no TLS with {host}: the certificate 'CN=server' is not valid for {host}: "
            "it is for 'm1.test, 10.0.0.9'"
        )
    nameless = rig.authority.issue("nameless", host="", address="")
    assert "it is for no name at all" in rig.meet(shown(rig, nameless)).fault
    with pytest.raises(TlsError, match="no host name"):
        rig.dialler().wrap(Wire(None), "")


def test_no_certificate_is_no_admission(rig: PeerRig) -> None:
    bare = rig.dialler(DialFiles(trusted_ca_file=rig.authority.ca_file))
    with log_lines() as lines:
        meeting = rig.meet(dialler=bare, greeting=b"hello")
    assert lines == [PREFIX + "it showed no certificate"]
    assert not meeting.works
    # In TLS 1.3 the dialler is through before the listener has looked, and learns it afterwards.
    assert meeting.client.lost is not None
    assert failure_text(None, meeting.client.lost.value) == (
        "it demands a certificate and we showed none"
    )


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_revoked_certificates_are_refused_also_after_the_list_has_changed(
    rig: PeerRig, role: str
) -> None:
    crl = rig.authority.write_crl(rig.folder / "crl")
    listener = rig.listener(replace(rig.listen_files, crl_file=crl))
    dialler = rig.dialler(replace(rig.dial_files, crl_file=crl))
    other_listener, other_dialler = rig.listener(), rig.dialler()
    assert rig.meet(listener, dialler).works
    rig.authority.revoke(rig.client if role == "listener" else rig.server)
    rig.authority.write_crl(rig.folder / "crl2")
    os.replace(rig.folder / "crl2", crl)
    with log_lines() as lines:
        if role == "listener":
            assert not rig.meet(listener, other_dialler).works
            assert PREFIX + "the certificate 'CN=client' is revoked" in lines
        else:
            fault = rig.meet(other_listener, dialler).fault
            assert fault == "no TLS with m1.test: the certificate 'CN=server' is revoked"
    assert rig.meet(other_listener, other_dialler).works


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_a_new_list_ends_the_connections_of_whom_it_names(rig: PeerRig, role: str) -> None:
    crl = rig.authority.write_crl(rig.folder / "crl")
    listener = rig.listener(replace(rig.listen_files, crl_file=crl))
    dialler = rig.dialler(replace(rig.dial_files, crl_file=crl))
    good = rig.authority.issue("good", address=REMOTE)
    kept = rig.meet(listener, showing(rig, good))
    cut = rig.meet(listener, rig.dialler() if role == "listener" else dialler)
    rig.authority.revoke(rig.client if role == "listener" else rig.server)
    rig.authority.write_crl(rig.folder / "crl2")
    os.replace(rig.folder / "crl2", crl)
    with log_lines() as lines:
        if role == "listener":
            rig.meet(listener, showing(rig, good))
        else:
            dialler.refresh()
    cut.wire.carry()
    assert any("its certificate is revoked" in line for line in lines)
    assert not cut.works
    assert kept.works


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_a_list_that_comes_during_the_handshake_counts(rig: PeerRig, role: str) -> None:
    crl = rig.authority.write_crl(rig.folder / "crl")
    listener = rig.listener(replace(rig.listen_files, crl_file=crl))
    dialler = rig.dialler(replace(rig.dial_files, crl_file=crl))
    wire = Wire(listener)
    results: list[object] = []
    dialled = dialler.wrap(wire, "m1.test").connect(Speakers())
    dialled.addErrback(lambda failure: results.append(str(failure.value)))
    rig.authority.revoke(rig.client if role == "listener" else rig.server)
    rig.authority.write_crl(rig.folder / "crl2")
    os.replace(rig.folder / "crl2", crl)
    (listener._policy if role == "listener" else dialler).refresh()
    with log_lines() as lines:
        wire.carry()
    if role == "listener":
        assert lines == [PREFIX + "its certificate is revoked by now"]
    else:
        assert results == ["no TLS with m1.test: its certificate is revoked by now"]


def test_a_revoked_authority_in_between_takes_its_certificates_along(rig: PeerRig) -> None:
    between = Authority(rig.folder, "between", rig.authority)
    issued = between.issue("below", address=REMOTE)
    crl = rig.authority.write_crl(rig.folder / "crl")
    listener = rig.listener(replace(rig.listen_files, crl_file=crl))
    assert rig.meet(listener, showing(rig, issued)).works
    rig.authority.revoke(between.issued)
    rig.authority.write_crl(rig.folder / "crl2")
    os.replace(rig.folder / "crl2", crl)
    with log_lines() as lines:
        assert not rig.meet(listener, showing(rig, issued)).works
    assert PREFIX + "the certificate 'CN=between' is revoked" in lines


def test_an_authority_in_between_is_shown_and_may_be_trusted_by_itself(rig: PeerRig) -> None:
    between = Authority(rig.folder, "between", rig.authority)
    server = between.issue("server2", host="m1.test")
    client = between.issue("client2", address=REMOTE)
    assert rig.meet(shown(rig, server), showing(rig, client)).works
    only_between = replace(rig.listen_files, trusted_ca_file=between.ca_file)
    listener = rig.listener(only_between)
    assert rig.meet(listener, showing(rig, client)).works
    assert not rig.meet(listener, rig.dialler()).works


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_only_allowed_common_names_pass(rig: PeerRig, role: str) -> None:
    cns = ("member", "client", "server")
    assert rig.meet(
        rig.listener(replace(rig.listen_files, allowed_cns=cns)),
        rig.dialler(replace(rig.dial_files, allowed_cns=cns)),
    ).works
    words = f"has none of the allowed common names member: {NOT_ALLOWED}"
    with log_lines() as lines:
        if role == "listener":
            listener = rig.listener(replace(rig.listen_files, allowed_cns=("member",)))
            assert not rig.meet(listener).works
            assert lines == [PREFIX + f"the certificate 'CN=client' {words}"]
        else:
            dialler = rig.dialler(replace(rig.dial_files, allowed_cns=("member",)))
            fault = rig.meet(dialler=dialler).fault
            assert fault == f"no TLS with m1.test: the certificate 'CN=server' {words}"


def test_only_allowed_host_names_pass(rig: PeerRig) -> None:
    names = ("m1.test", "m2.test")
    assert rig.meet(
        rig.listener(replace(rig.listen_files, allowed_hostnames=names)),
        rig.dialler(replace(rig.dial_files, allowed_hostnames=names)),
    ).works
    listener = rig.listener(replace(rig.listen_files, allowed_hostnames=("m3.test",)))
    with log_lines() as lines:
        assert not rig.meet(listener).works
    words = f"is valid for none of the allowed host names m3.test: {NOT_ALLOWED}"
    assert lines == [PREFIX + f"the certificate 'CN=client' {words}"]


def test_self_signed_members_believe_each_other_unverified(rig: PeerRig) -> None:
    server = strangers(rig).issue("anybody", host="")
    listener = rig.listener(
        replace(
            rig.listen_files,
            cert_file=server.cert_file,
            key_file=server.key_file,
            trusted_ca_file=None,
        )
    )
    dialler = rig.dialler(DialFiles(verifies=False))
    assert rig.meet(listener, dialler).works


def test_a_dialler_without_files_trusts_the_system_alone(rig: PeerRig) -> None:
    assert "not trusted" in rig.meet(dialler=rig.dialler(DialFiles())).fault


def test_no_protocol_is_negotiated_between_members(rig: PeerRig) -> None:
    transport = rig.meet().client.transport
    assert getattr(transport, "negotiatedProtocol", "no TLS") is None


def test_tls_1_1_is_refused_by_both(rig: PeerRig) -> None:
    old = SSL.Context(SSL.TLS_METHOD)
    old.set_min_proto_version(0)
    old.set_cipher_list(b"ALL:@SECLEVEL=0")
    old.set_max_proto_version(SSL.TLS1_1_VERSION)
    client = SSL.Connection(old, None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    wire = Wire(rig.listener())
    wire.connect(Speakers())
    with log_lines() as lines:
        wire.near.write(client.bio_read(65_536))
        wire.carry()
    assert lines == [PREFIX + "it speaks no TLS version that is allowed here"]


def test_plain_text_to_a_tls_port_is_refused(rig: PeerRig) -> None:
    for octets, words in (
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP without TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it does not speak TLS"),
        (bytes(100), "it does not speak TLS"),
    ):
        wire = Wire(rig.listener())
        wire.connect(Speakers(octets))
        with log_lines() as lines:
            wire.carry()
        assert lines == [PREFIX + words]


def test_tls_to_a_plain_port_fails_the_dial(rig: PeerRig) -> None:
    wire = Wire(Speakers(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    results: list[object] = []
    rig.dialler().wrap(wire, "m1.test").connect(Speakers()).addErrback(
        lambda failure: results.append(str(failure.value))
    )
    wire.carry()
    assert results == ["no TLS with m1.test: it does not speak TLS (then its URL is http://)"]


def test_handshakes_that_never_come_are_dropped_on_both_sides(rig: PeerRig) -> None:
    listener = rig.listener()
    wire = Wire(listener)
    wire.connect(Speakers())
    rig.clock.advance(HANDSHAKE_S - 0.1)
    assert not wire.far.is_closing
    with log_lines() as lines:
        rig.clock.advance(0.2)
        wire.carry()
    assert lines == [PREFIX + "no handshake within 10 s"]
    silent = Wire(None)
    results: list[object] = []
    rig.dialler().wrap(silent, "m1.test").connect(Speakers()).addErrback(
        lambda failure: results.append(str(failure.value))
    )
    rig.clock.advance(DIAL_HANDSHAKE_S + 0.1)
    silent.carry()
    assert results == ["no TLS with m1.test: no handshake within 10 s"]
    assert rig.clock.getDelayedCalls() == []


def test_a_dial_can_be_given_up(rig: PeerRig) -> None:
    wire = Wire(None)
    dialled = rig.dialler().wrap(wire, "m1.test").connect(Speakers())
    dialled.addErrback(lambda _: None)
    dialled.cancel()
    assert wire.near.is_reset
    wire.carry()
    assert rig.clock.getDelayedCalls() == []


def test_who_comes_and_goes_without_a_word_is_not_logged(rig: PeerRig) -> None:
    wire = Wire(rig.listener())
    wire.connect(Speakers())
    with log_lines() as lines:
        wire.near.loseConnection()
        wire.carry()
    assert lines == []


def test_a_flood_of_rejections_is_counted_not_logged() -> None:
    log = RejectionLog("peer")
    with log_lines() as lines:
        for _ in range(REJECTIONS_LOGGED_MAX + 7):
            log.rejected("x", "why", 1.0)
        log.rejected("x", "why", 1.0 + REJECTION_WINDOW_S)
    assert len(lines) == REJECTIONS_LOGGED_MAX + 2
    assert lines[-2] == "rejected 7 more connections on peer endpoint"
    assert log.total == REJECTIONS_LOGGED_MAX + 8


def test_a_client_that_floods_before_its_address_is_checked_is_dropped(rig: PeerRig) -> None:
    rig.lookup.waits = True
    anywhere = rig.authority.issue("named", host="m2.test", address="")
    meeting = rig.meet(dialler=showing(rig, anywhere))
    meeting.client.transport.write(bytes(UNCHECKED_OCTETS_MAX + 1))  # type: ignore[union-attr]
    with log_lines() as lines:
        meeting.wire.carry()
    assert lines == [PREFIX + "it does not wait for its address to be checked"]
    assert rig.clock.getDelayedCalls() == []


@implementer(IPushProducer)
class Producing:
    """A producer that knows its connection, as those of answers do."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


@pytest.mark.parametrize("is_closing", [False, True])
def test_a_connection_that_ends_amid_tls_leaves_nothing_to_the_garbage_collector(
    rig: PeerRig, is_closing: bool
) -> None:
    listener = rig.listener()
    meeting = rig.meet(listener)
    assert meeting.works
    server, far = meeting.server, meeting.wire.far
    assert server is not None
    cast(IConsumer, server.transport).registerProducer(Producing(server), True)
    if is_closing:
        cast(ITransport, server.transport).loseConnection()  # when its producer has ended
    tls = weakref.ref(far.protocol)
    gc.disable()
    try:
        far.is_gone = True
        far.protocol.connectionLost(Failure(ConnectionDone()))  # without a word of TLS
        cast(Speakers, listener.wrappedFactory).built.clear()
        meeting.server = server = None
        del far.protocol
        assert tls() is None
    finally:
        gc.enable()


def test_the_common_name_is_the_one_that_the_other_end_has_proved(rig: PeerRig) -> None:
    meeting = rig.meet()
    assert meeting.server is not None
    assert common_name_of(meeting.server.transport) == "client"
    assert common_name_of(meeting.client.transport) == "server"
    assert common_name_of(End(REMOTE)) is None
    open_to_all = rig.listener(replace(rig.listen_files, trusted_ca_file=None))
    meeting = rig.meet(open_to_all)
    assert meeting.server is not None
    assert common_name_of(meeting.server.transport) is None
