"""TLS between members against real etcd: it dials us and we dial it, with every refusal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Final

import pytest

from tests.support.certs import Authority, Issued
from tests.support.ports import free_port
from tests.support.processes import RunningMember

TIMEOUT_S: Final = 15.0
ROOT: Final = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.integration


class Site:
    """One authority; certificates of two members and of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.ours = self.authority.issue("ours")
        self.etcd = self.authority.issue("etcd")
        self.elsewhere = self.authority.issue("elsewhere", address="10.9.9.9", host="no.invalid")
        self.revoked = self.authority.issue("revoked")
        self.authority.revoke(self.revoked)
        self.crl_file = self.authority.write_crl(folder / "crl")
        (folder / "strange").mkdir()
        self.strange = Authority(folder / "strange", "strange").issue("strange")

    def flags(self, issued: Issued, *more: str) -> list[str]:
        return [
            f"--peer-cert-file={issued.cert_file}",
            f"--peer-key-file={issued.key_file}",
            f"--peer-trusted-ca-file={self.authority.ca_file}",
            "--peer-client-cert-auth",
            *more,
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("peers"))


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.peer_tls_end", *words]


def dial(host: str, port: int, flags: list[str]) -> str:
    """Return what our dialler says of a peer port."""
    done = subprocess.run(
        command("dial", host, str(port), *flags),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout.strip()


class OurListener:
    """Our peer port as a process; a context manager."""

    def __init__(self, flags: list[str]) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            command("listen", str(self.port), *flags),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._said: Queue[str] = Queue()
        Thread(target=self._listen, daemon=True).start()
        self.until("ready")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.rstrip())

    def until(self, *beginnings: str) -> str:
        """Return the next line that begins so.  Raises Empty when none comes."""
        while True:
            line = self._said.get(timeout=TIMEOUT_S)
            if line.startswith(beginnings):
                return line

    def __enter__(self) -> OurListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_S)


@contextmanager
def etcd(peer_flags: list[str], other_port: int) -> Iterator[RunningMember]:
    """Run real etcd, one of two founders: it dials the other and serves its peer port."""
    member = RunningMember("etcd")
    own, other = f"https://127.0.0.1:{member.peer_port}", f"https://127.0.0.1:{other_port}"
    member.flags = [
        f"--listen-peer-urls={own}",
        f"--initial-advertise-peer-urls={own}",
        f"--initial-cluster=m1={own},m2={other}",
        *peer_flags,
    ]
    member.launch()
    try:
        yield member
    finally:
        member.close()


def until(claim: Callable[[], bool]) -> bool:
    """Wait for ``claim`` to come true; says whether it did."""
    deadline = time.monotonic() + TIMEOUT_S
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_real_etcd_is_let_in_and_lets_us_in(site: Site) -> None:
    flags = site.flags(site.ours)
    with (
        OurListener([*flags, "--peer-cert-allowed-cn=etcd"]) as ours,
        etcd(site.flags(site.etcd), ours.port) as member,
    ):
        ours.until("GET /raft/", "POST /raft", "GET /version")
        port = member.peer_port
        assert until(lambda: dial("127.0.0.1", port, flags) == "HTTP/1.1 200 OK")
        assert dial("localhost", port, flags) == "HTTP/1.1 200 OK"
        assert dial("127.0.0.1", port, [*flags, "--peer-cert-allowed-cn=other"]) == (
            "no TLS with 127.0.0.1: the certificate 'CN=etcd' has none of the allowed "
            "common names other: client certificate authentication failed"
        )
        # etcd compares with addresses after the handshake, and hangs up without an answer.
        assert dial("127.0.0.1", port, site.flags(site.elsewhere)) == ""


@pytest.mark.parametrize("who", ["strange", "revoked", "elsewhere"])
def test_real_etcd_with_a_bad_certificate_is_turned_away(site: Site, who: str) -> None:
    shown: Issued = getattr(site, who)
    words = {
        "strange": "'CN=strange' is issued by an authority that is not trusted",
        "revoked": "'CN=revoked' is revoked",
        "elsewhere": '"127.0.0.1" does not match any of DNSNames ["no.invalid"]',
    }
    with (
        OurListener(site.flags(site.ours, f"--peer-crl-file={site.crl_file}")) as ours,
        etcd(site.flags(shown), ours.port),
    ):
        said = ours.until("rejected", "GET", "POST")
        assert said.startswith("rejected connection on peer endpoint from 127.0.0.1:")
        assert words[who] in said


def test_a_member_starts_with_peer_tls_and_shows_when_it_ends(site: Site) -> None:
    member = RunningMember("etcdtw")
    url = f"https://127.0.0.1:{member.peer_port}"
    member.flags = [
        f"--listen-peer-urls={url}",
        f"--initial-advertise-peer-urls={url}",
        f"--initial-cluster=m1={url}",
        *site.flags(site.ours),
    ]
    with member:
        got = subprocess.run(
            ["curl", "-sS", f"{member.client_url}/metrics"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        end_s = site.ours.certificate.not_valid_after_utc.timestamp()
        lines = [line for line in got.stdout.splitlines() if site.ours.cert_file in line]
        assert len(lines) == 1
        assert lines[0].startswith(
            f'etcdtw_tls_certificate_expiry_seconds{{file="{site.ours.cert_file}"}} '
        )
        assert float(lines[0].split()[1]) == end_s
        assert "expires in 0 days" in member.stderr()
        assert os.listdir(member.data_dir) == ["member"]


def test_a_member_makes_its_own_certificates(tmp_path: Path) -> None:
    member = RunningMember("etcdtw", data_dir=tmp_path / "m1")
    url = f"https://127.0.0.1:{member.client_port}"
    member.flags = ["--auto-tls", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    with member:
        for arguments, is_welcome in ((["-k"], True), ([], False)):
            got = subprocess.run(
                ["curl", "-sS", *arguments, f"{url}/health"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert ("true" in got.stdout) is is_welcome
        cert = tmp_path / "m1" / "fixtures" / "client" / "cert.pem"
        made = cert.read_bytes()
        member.restart()
        assert cert.read_bytes() == made
