"""Starts that used to fail or hang, as processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from etcdtw.server.process.services import EXIT_REMOVED
from tests.support.judges import judge_program
from tests.support.launches import launched, member_flags
from tests.support.ports import free_port

pytestmark = pytest.mark.integration
READY = "ready to serve client requests"


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """What most logins have; the suite may run with another."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("kind", ["peer", "client"])
def test_certificates_of_its_own_leave_a_fresh_directory_to_its_owner(
    tmp_path: Path, usual_umask: None, kind: str
) -> None:
    wanted = {
        "peer": ("--peer-auto-tls", "peer-urls=", "cluster="),
        "client": ("--auto-tls", "client-urls="),
    }[kind]
    flags = [
        one.replace("http:", "https:") if any(word in one for word in wanted) else one
        for one in member_flags("m1", tmp_path / "new" / "m1.etcd", free_port(), free_port())
    ]
    with launched([*flags, wanted[0]], tmp_path) as member:
        member.await_text(READY)


def test_members_meet_on_unix_sockets(tmp_path: Path) -> None:
    names = ("m1", "m2", "m3")
    urls = {name: f"unix://{tmp_path}/{name}.sock" for name in names}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    with ExitStack() as running:
        members = []
        for name, url in urls.items():
            client = f"http://127.0.0.1:{free_port()}"
            flags = [
                f"--name={name}",
                f"--data-dir={tmp_path / name}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={url}",
                f"--initial-advertise-peer-urls={url}",
                f"--initial-cluster={cluster}",
            ]
            members.append(running.enter_context(launched(flags, tmp_path, f"{name}.log")))
        for member in members:
            member.await_text(READY)


@pytest.mark.parametrize("role", ["client", "peer", "metrics"])
def test_address_in_use_is_said_before_anything_is_written(tmp_path: Path, role: str) -> None:
    ports = {"client": free_port(), "peer": free_port(), "metrics": free_port()}
    data = tmp_path / "m1.etcd"
    with socket.create_server(("127.0.0.1", ports[role])):
        metrics = f"--listen-metrics-urls=http://127.0.0.1:{ports['metrics']}"
        flags = [*member_flags("m1", data, ports["client"], ports["peer"]), metrics]
        with launched(flags, tmp_path) as member:
            assert member.ended() == 1
    assert not data.exists()
    said = [one for one in member.records() if "the address is in use" in str(one)]
    assert [(one["level"], one["msg"]) for one in said] == [("fatal", "the member cannot start")]
    assert f":{ports[role]}: the address is in use" in said[0]["error"]


def test_learner_without_its_address_publishes_nothing(tmp_path: Path) -> None:
    peer, client = free_port(), free_port()
    with launched(member_flags("m1", tmp_path / "m1", client, peer), tmp_path) as first:
        first.await_text(READY)
        own_client, own_peer = free_port(), free_port()
        endpoint = f"--endpoints=http://127.0.0.1:{client}"
        added = f"http://127.0.0.1:{own_peer}"
        etcdctl(endpoint, "member", "add", "m2", "--learner", f"--peer-urls={added}")
        cluster = f"m1=http://127.0.0.1:{peer},m2={added}"
        flags = member_flags("m2", tmp_path / "m2", own_client, own_peer, cluster)
        with (
            socket.create_server(("127.0.0.1", own_client)),
            launched([*flags, "--initial-cluster-state=existing"], tmp_path, "m2.log") as second,
        ):
            assert second.ended() == 1
        rows = [row.split(", ") for row in etcdctl(endpoint, "member", "list").splitlines()]
    assert sorted(row[1:3] for row in rows) == [["started", "m1"], ["unstarted", ""]]


def test_metrics_port_answers_before_there_is_a_quorum(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    client, peer = free_port(), free_port()
    cluster = f"m1=http://127.0.0.1:{peer},m2=http://127.0.0.1:{other}"
    flags = member_flags("m1", tmp_path / "m1", client, peer, cluster)
    url = f"http://127.0.0.1:{port}"
    with launched([*flags, f"--listen-metrics-urls={url}"], tmp_path) as member:
        member.await_text(f"listening on {url}")
        assert page(f"{url}/livez") == (200, "ok\n")
        status, text = page(f"{url}/health")
        assert (status, json.loads(text)["health"]) == (503, "false")
        assert page(f"{url}/readyz")[0] == 503
        member.await_text("waiting for a leader at term ")
        member.await_text(": 0 of 1 other members are connected")
        assert "etcd_server_has_leader 0" in page(f"{url}/metrics")[1]
        with socket.create_connection(("127.0.0.1", client), 10) as early:
            assert early.recv(1) == b""  # sent away, to try another member


def test_member_that_is_removed_ends_with_a_status_of_its_own_and_so_does_its_next_start(
    tmp_path: Path,
) -> None:
    ports = {name: (free_port(), free_port()) for name in ("m1", "m2", "m3")}
    cluster = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, (_, peer) in ports.items())
    with ExitStack() as running:
        members = {}
        for name, (client, peer) in ports.items():
            flags = member_flags(name, tmp_path / name, client, peer, cluster)
            members[name] = running.enter_context(launched(flags, tmp_path, f"{name}.log"))
        for member in members.values():
            member.await_text(READY)
        endpoint = f"--endpoints=http://127.0.0.1:{ports['m1'][0]}"
        (gone,) = [row for row in etcdctl(endpoint, "member", "list").splitlines() if "m3" in row]
        deadline = time.monotonic() + 30
        while True:  # refused while the members have not been connected for five seconds
            try:
                etcdctl(endpoint, "member", "remove", gone.partition(",")[0])
                break
            except subprocess.CalledProcessError as error:
                if "unhealthy cluster" not in error.stderr or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        assert members["m3"].ended() == EXIT_REMOVED
        flags = member_flags("m3", tmp_path / "m3", *ports["m3"], cluster)
        with launched(flags, tmp_path, "again.log") as again:
            assert again.ended() == EXIT_REMOVED


def test_supervisor_hears_how_it_goes(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        flags = member_flags("m1", tmp_path / "m1", free_port(), free_port())
        with launched(flags, tmp_path, **watched) as member:
            heard = heard_until(supervisor, "WATCHDOG=1")
            while "READY=1" not in heard:
                heard += heard_until(supervisor, "WATCHDOG=1")
            member.process.terminate()
            heard += heard_until(supervisor, "STOPPING=1")
            member.ended()
    assert heard[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert "STATUS=opening the data" in heard
    assert heard.count("READY=1") == 1


def heard_until(supervisor: socket.socket, wanted: str) -> list[str]:
    heard = []
    while wanted not in heard:
        heard.append(supervisor.recv(4096).decode())
    return heard


def test_tls_and_plain_text_that_meet_are_answered_at_once_and_logged(tmp_path: Path) -> None:
    """Octets of the one kind on a port of the other, as a wrong scheme in a URL sends them."""
    plain, over_tls, client = free_port(), free_port(), free_port()
    urls = f"http://127.0.0.1:{plain},https://127.0.0.1:{over_tls}"
    flags = member_flags("m1", tmp_path / "m1", client, plain)
    listens = f"--listen-peer-urls={urls}"
    with launched([*flags, listens, "--peer-auto-tls"], tmp_path, "m1.log") as served:
        served.await_text(READY)
        begun = time.monotonic()
        assert answer_to(plain, CLIENT_HELLO).startswith(b"HTTP/1.1 400 ")
        assert answer_to(client, CLIENT_HELLO) == b""
        assert answer_to(over_tls, b"GET /version HTTP/1.1\r\n\r\n") == b""
        assert time.monotonic() - begun < 5.0
        served.await_text('"rejected connection on client endpoint","remote-addr":"127.0.0.1:')
        served.await_text("it speaks HTTP without TLS")
        for wrong, said in (
            (f"http://127.0.0.1:{over_tls}", "it hung up without an answer"),
            (f"https://127.0.0.1:{plain}", "it does not speak TLS (then its URL is http://)"),
        ):
            peer = free_port()
            cluster = f"m1={wrong},m2=http://127.0.0.1:{peer}"
            other = member_flags("m2", tmp_path / wrong[:5], free_port(), peer, cluster)
            auto = "--peer-auto-tls"
            with launched([*other, auto], tmp_path, f"{wrong[:5]}.log") as dialling:
                dialling.await_text(said)
        served.await_text("it speaks TLS, this port does not")


CLIENT_HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"


def answer_to(port: int, octets: bytes) -> bytes:
    """Return all that a port says to ``octets`` before it closes."""
    with socket.create_connection(("127.0.0.1", port), 5) as asking:
        asking.sendall(octets)
        said = b""
        while piece := asking.recv(4096):
            said += piece
        return said


def page(url: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def etcdctl(*words: str) -> str:
    """Run real etcdctl; return what it says."""
    command = [str(judge_program("etcdctl")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_one_address_speaks_tls_and_plain_text(tmp_path: Path) -> None:
    client = free_port()
    urls = f"http://127.0.0.1:{client},https://127.0.0.1:{client}"
    flags = member_flags("m1", tmp_path / "m1", client, free_port())
    flags += [f"--listen-client-urls={urls}", "--auto-tls"]
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    with launched(flags, tmp_path, "m1.log") as member:
        member.await_text(READY)
        for scheme, context in (("http", None), ("https", unchecked)):
            url = f"{scheme}://127.0.0.1:{client}/version"
            with urllib.request.urlopen(url, timeout=10, context=context) as answer:
                assert "etcdserver" in json.load(answer)
        etcdctl = str(judge_program("etcdctl"))
        for scheme in ("http", "https"):
            endpoint = f"--endpoints={scheme}://127.0.0.1:{client}"
            words = [etcdctl, endpoint, "--insecure-skip-tls-verify", "put", "k", scheme]
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
            assert done.stdout == "OK\n", done.stderr


def test_logs_begin_anew_at_sighup_and_profiles_are_made(tmp_path: Path) -> None:
    client, log = free_port(), tmp_path / "logs" / "etcd.log"
    log.parent.mkdir()
    flags = member_flags("m1", tmp_path / "m1", client, free_port())
    flags += [f"--log-outputs={log}", "--enable-log-rotation", "--enable-pprof"]
    flags += ["--log-format=json", '--log-rotation-config-json={"maxsize": 1, "maxbackups": 1}']
    with launched(flags, tmp_path, "m1.log") as member:
        page = f"http://127.0.0.1:{client}/debug/pprof/"
        ends_s = time.monotonic() + 20
        while not (log.exists() and READY in log.read_text()):
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        with urllib.request.urlopen(f"{page}profile?seconds=0.2&debug=1", timeout=20) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{page}goroutine", timeout=20) as answer:
            assert b"MainThread" in answer.read()
        log.rename(tmp_path / "renamed")
        member.process.send_signal(signal.SIGHUP)
        member.stop()
    last = json.loads(log.read_text().splitlines()[-1])
    assert {"level", "ts", "logger", "caller", "msg"} <= set(last)
