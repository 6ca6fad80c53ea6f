"""A member's TLS by its flags: who listens and dials with what, and self-made certificates."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.task import Clock

from etcdtw.config.config import Config, configure
from etcdtw.server.doors.self_signed import self_signed_files
from etcdtw.server.doors.tls_roles import client_policy, peer_roles
from etcdtw.transport.tls.policy import TlsError, TlsFactory
from tests.support.certs import Authority
from tests.transport.tls.tls_rig import Lookup, Meeting, Speakers, Wire

NOW = datetime.now(UTC).replace(microsecond=0)


def configured(*arguments: str) -> Config:
    return configure(arguments, {}, lambda path: b"")


def meet(config: Config, other: Config, host: str, remote: str) -> Meeting:
    """Let ``other`` dial ``config``."""
    clock = Clock()
    listens = peer_roles(config, clock, NOW, Lookup({}, {})).listens
    assert listens is not None
    server = Speakers()
    wire = Wire(TlsFactory(listens, server, clock), remote)
    result: list[object] = []
    dialled = (
        peer_roles(other, clock, NOW, Lookup({}, {})).dials.wrap(wire, host).connect(Speakers())
    )
    dialled.addBoth(result.append)
    wire.carry()
    return Meeting(wire, server.built[-1], result)


def test_members_with_the_same_flags_talk(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("m1", host="m1.test")
    dialling = authority.issue("m1-client", address="127.0.0.7")
    config = configured(
        f"--peer-cert-file={server.cert_file}",
        f"--peer-key-file={server.key_file}",
        f"--peer-client-cert-file={dialling.cert_file}",
        f"--peer-client-key-file={dialling.key_file}",
        f"--peer-trusted-ca-file={authority.ca_file}",
        "--peer-cert-allowed-cn=m1,m1-client",
        "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "--tls-max-version=TLS1.2",
    )
    meeting = meet(config, config, "m1.test", "127.0.0.7")
    assert meeting.works, meeting.fault
    assert client_policy(config, NOW) is None


def test_addresses_are_compared_unless_that_is_skipped(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("m1", host="")
    flags = (
        f"--peer-cert-file={issued.cert_file}",
        f"--peer-key-file={issued.key_file}",
        f"--peer-trusted-ca-file={authority.ca_file}",
    )
    strict, lax = configured(*flags), configured(*flags, "--peer-skip-client-san-verification")
    assert not meet(strict, strict, "127.0.0.1", "10.0.0.1").works
    assert meet(lax, strict, "127.0.0.1", "10.0.0.1").works


def test_self_signed_members_talk_and_keep_their_certificates(tmp_path: Path) -> None:
    config = configured(
        f"--data-dir={tmp_path / 'm1'}",
        "--peer-auto-tls",
        "--listen-peer-urls=https://127.0.0.1:1,https://localhost:2",
        "--self-signed-cert-validity=2",
    )
    meeting = meet(config, config, "anything.test", "10.0.0.1")
    assert meeting.works, meeting.fault
    folder = tmp_path / "m1" / "fixtures" / "peer"
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "key.pem"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, *folder.iterdir())]
    assert modes == [0o700, 0o600, 0o600]
    made = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert made.not_valid_after_utc == NOW + timedelta(days=2 * 365)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in names] == ["127.0.0.1", "localhost"]
    assert made.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "etcd"
    usages = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_clients_get_a_self_signed_certificate_on_demand(tmp_path: Path) -> None:
    flags = (
        f"--data-dir={tmp_path}",
        "--listen-client-urls=https://127.0.0.1:1",
        "--advertise-client-urls=https://127.0.0.1:1",
        "--auto-tls",
    )
    policy = client_policy(configured(*flags), NOW)
    assert policy is not None
    assert list(policy.ends) == [str(tmp_path / "fixtures" / "client" / "cert.pem")]


def test_what_is_there_is_used_again_and_half_of_it_is_not(tmp_path: Path) -> None:
    first = self_signed_files(tmp_path / "f", ["a"], 1, NOW)
    octets = Path(first[0]).read_bytes()
    assert self_signed_files(tmp_path / "f", ["b"], 1, NOW) == first
    assert Path(first[0]).read_bytes() == octets
    Path(first[1]).unlink()
    self_signed_files(tmp_path / "f", ["a"], 1, NOW)
    assert Path(first[0]).read_bytes() != octets


def test_every_folder_made_for_a_certificate_is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        self_signed_files(tmp_path / "data" / "fixtures" / "peer", ["a"], 1, NOW)
    finally:
        os.umask(before)
    made = [tmp_path / "data", tmp_path / "data" / "fixtures", tmp_path / "data/fixtures/peer"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 3


def test_a_certificate_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in the way")
    with pytest.raises(TlsError, match="cannot write a self-signed certificate to"):
        self_signed_files(tmp_path / "f" / "client", ["a"], 1, NOW)
