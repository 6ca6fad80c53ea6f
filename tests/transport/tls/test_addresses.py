"""etcd's rule for peers' certificates: they must fit the address that they come from."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from etcdtw.transport.tls.addresses import (
    LOOKUP_S,
    NAMES_LOOKED_UP_MAX,
    AddressCheck,
    plain_address,
)
from tests.support.certs import Authority
from tests.transport.tls.test_peers import PREFIX, showing
from tests.transport.tls.tls_rig import REMOTE, Lookup, PeerRig, log_lines


@pytest.fixture
def rig(tmp_path: Path) -> PeerRig:
    return PeerRig(tmp_path)


def fault(rig: PeerRig, host: str, address: str, lookup: Lookup, remote: str = REMOTE) -> str:
    issued = rig.authority.issue("x", host=host, address=address)
    found: list[str] = []
    AddressCheck(lookup, rig.clock).check(issued.certificate, remote).addCallback(found.append)
    return found[0]


@pytest.mark.parametrize(
    ("host", "address", "reverse", "forward"),
    [
        ("", "", {}, {}),  # no names at all: from anywhere
        ("", REMOTE, {}, {}),
        ("m2.test", REMOTE, {}, {}),
        ("m2.test", "10.0.0.1", {REMOTE: ["m2.test."]}, {}),
        ("m2.test", "", {REMOTE: ["other", "m2.test"]}, {}),
        ("*.test", "", {REMOTE: ["deep.m2.test."]}, {}),
        ("m2.test", "", {}, {"m2.test": ["10.0.0.1", REMOTE]}),
        ("m2.test", "", {REMOTE: ["localhost"]}, {"m2.test": [REMOTE]}),
    ],
)
def test_a_certificate_fits_by_address_or_by_name(
    rig: PeerRig,
    host: str,
    address: str,
    reverse: dict[str, list[str]],
    forward: dict[str, list[str]],
) -> None:
    assert fault(rig, host, address, Lookup(reverse, forward)) == ""


@pytest.mark.parametrize(
    ("host", "address", "reverse", "words"),
    [
        ("", "10.0.0.1", {}, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"),
        (
            "m2.test",
            "10.0.0.1",
            {REMOTE: ["m3.test."]},
            'tls: "127.0.0.1" does not match any of DNSNames ["m2.test"] (Unknown host)',
        ),
        (
            "*.test",
            "",
            {REMOTE: ["test", "evil-test"]},
            'tls: "127.0.0.1" does not match any of DNSNames ["*.test"]',
        ),
    ],
)
def test_a_certificate_from_elsewhere_is_refused_in_etcds_words(
    rig: PeerRig, host: str, address: str, reverse: dict[str, list[str]], words: str
) -> None:
    assert fault(rig, host, address, Lookup(reverse, {})) == words


def test_ipv4_within_ipv6_is_the_same_address(rig: PeerRig) -> None:
    assert fault(rig, "", REMOTE, Lookup({}, {}), "::ffff:127.0.0.1") == ""
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert plain_address("2001:db8:0:0::1") == "2001:db8::1"


def test_look_ups_of_one_certificate_are_bounded_in_number_and_time(tmp_path: Path) -> None:
    clock = Clock()
    lookup = Lookup({}, {})
    check = AddressCheck(lookup, clock)
    many = ",".join(f"n{i}.test" for i in range(NAMES_LOOKED_UP_MAX + 5)).split(",")
    found: list[str] = []
    Deferred.fromCoroutine(check._match(REMOTE, many)).addCallback(found.append)
    assert len(lookup.asked) == 1 + NAMES_LOOKED_UP_MAX
    lookup.waits = True
    issued = Authority(tmp_path).issue("x", address="")
    check.check(issued.certificate, REMOTE).addCallback(found.append)
    clock.advance(LOOKUP_S - 0.1)
    assert len(found) == 1
    clock.advance(0.2)
    assert found[1] == f"no answer about {REMOTE}"


def test_a_peer_from_elsewhere_is_rejected_unless_that_is_skipped(rig: PeerRig) -> None:
    with log_lines() as lines:
        meeting = rig.meet(remote="127.0.0.2", greeting=b"hello")
    why = 'tls: "127.0.0.2" does not match any of DNSNames ["m2.test"] (Unknown host)'
    assert lines == [PREFIX.replace(REMOTE, "127.0.0.2") + why]
    assert meeting.server is not None
    assert meeting.server.heard == b""
    assert not meeting.works


def test_what_a_peer_says_waits_for_the_answer_about_its_name(rig: PeerRig) -> None:
    rig.lookup.waits = True
    named = rig.authority.issue("named", host="m2.test", address="")
    meeting = rig.meet(dialler=showing(rig, named), greeting=b"hello")
    assert meeting.server is not None
    assert meeting.server.heard == b""
    assert meeting.wire.far.is_paused
    rig.lookup.waiting[0].callback(["m2.test."])
    assert meeting.server.heard == b"hello"
    assert meeting.works
    assert rig.clock.getDelayedCalls() == []


def test_a_peer_that_leaves_while_its_name_is_looked_up_is_forgotten(rig: PeerRig) -> None:
    rig.lookup.waits = True
    named = rig.authority.issue("named", host="m2.test", address="")
    meeting = rig.meet(dialler=showing(rig, named))
    meeting.wire.near.loseConnection()
    meeting.wire.carry()
    assert meeting.server is not None
    assert meeting.server.lost is not None
    assert rig.clock.getDelayedCalls() == []


def test_a_name_that_no_resolver_takes_is_no_crash(rig: PeerRig) -> None:
    class Odd(Lookup):
        def addresses_of(self, name: str) -> Deferred[Any]:
            return succeed(socket.getaddrinfo("x" * 70 + ".test", None))

    with pytest.raises(UnicodeError):
        Odd({}, {}).addresses_of("x")
    assert "does not match" in fault(rig, "m2.test", "", Odd({REMOTE: []}, {}))
