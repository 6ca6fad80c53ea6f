"""Files that change while connections live, on both sides."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certs import Authority, Issued
from tests.transport.tls.tls_rig import REMOTE, Meeting, PeerRig, log_lines

ROTATIONS = 100


@pytest.fixture
def rig(tmp_path: Path) -> PeerRig:
    return PeerRig(tmp_path)


def put(source: str, target: str) -> None:
    """Put a copy of ``source`` in place of ``target`` at once, as rotation should."""
    shutil.copy(source, f"{target}.new")
    os.replace(f"{target}.new", target)


class Generation:
    """All files of both members under one authority."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", host="m1.test", address="10.0.0.9")
        self.client = self.authority.issue("client", host="m2.test", address=REMOTE)
        self.crl_file = self.authority.write_crl(folder / "crl")

    def pairs(self, rig: PeerRig, crl_file: str) -> list[tuple[str, str]]:
        return [
            (self.authority.ca_file, rig.authority.ca_file),
            (self.server.cert_file, rig.server.cert_file),
            (self.server.key_file, rig.server.key_file),
            (self.client.cert_file, rig.client.cert_file),
            (self.client.key_file, rig.client.key_file),
            (self.crl_file, crl_file),
        ]


def test_a_hundred_rotations_of_everything_cost_no_connection(rig: PeerRig) -> None:
    crl = rig.authority.write_crl(rig.folder / "crl")
    listener = rig.listener(replace(rig.listen_files, crl_file=crl))
    dialler = rig.dialler(replace(rig.dial_files, crl_file=crl))
    generations = [Generation(rig.folder / name) for name in ("a", "b", "c")]
    living: list[Meeting] = []
    for i in range(ROTATIONS):
        for source, target in generations[i % 3].pairs(rig, crl):
            put(source, target)
        meeting = rig.meet(listener, dialler)
        assert meeting.works, meeting.fault
        living.append(meeting)
    assert all(meeting.works for meeting in living)
    policy = listener._policy
    assert (policy.reloads, dialler.reloads) == (ROTATIONS, ROTATIONS)
    assert (policy.failed_reloads, dialler.failed_reloads) == (0, 0)


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_half_a_rotation_keeps_the_old_pair_and_says_so(rig: PeerRig, role: str) -> None:
    listener, dialler = rig.listener(), rig.dialler()
    issued: Issued = rig.server if role == "listener" else rig.client
    renewed = rig.authority.issue("renewed", host="m1.test", address=REMOTE)
    with log_lines() as lines:
        put(renewed.cert_file, issued.cert_file)
        assert rig.meet(listener, dialler).works
        assert rig.meet(listener, dialler).works
    assert lines == [
        "TLS files changed but cannot be used, old ones stay: the key in "
        f"{issued.key_file} does not belong to the certificate in {issued.cert_file}: "
        "give the pair that was issued together"
    ]
    with log_lines() as lines:
        put(renewed.key_file, issued.key_file)
        assert rig.meet(listener, dialler).works
    assert len(lines) == 1
    assert lines[0].startswith("TLS files reloaded: ")


def test_a_missing_file_keeps_the_old_state_and_is_said_once(rig: PeerRig) -> None:
    listener, dialler = rig.listener(), rig.dialler()
    with log_lines() as lines:
        os.unlink(rig.authority.ca_file)
        for _ in range(3):
            assert rig.meet(listener, dialler).works
    assert len(lines) == 2  # one for each role
    assert all("No such file" in line for line in lines)


def test_a_new_authority_is_believed_and_the_old_one_is_not(rig: PeerRig) -> None:
    listener, dialler = rig.listener(), rig.dialler()
    kept = rig.meet(listener, dialler)
    other = Generation(rig.folder / "other")
    put(other.authority.ca_file, rig.authority.ca_file)
    assert "not trusted" in rig.meet(listener, dialler).fault
    assert kept.works


def test_keys_that_others_can_read_are_warned_of(rig: PeerRig) -> None:
    os.chmod(rig.server.key_file, 0o644)
    with log_lines() as lines:
        rig.listener()
    assert lines == [
        f"the private key {rig.server.key_file} can be read by everybody (mode 0644): "
        f"chmod 600 {rig.server.key_file}"
    ]
    os.chmod(rig.server.key_file, 0o640)
    with log_lines() as lines:
        rig.listener()
    assert lines == []
