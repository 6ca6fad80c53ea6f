"""Our transport and Raft core as a member beside real etcd."""

from __future__ import annotations

import http.client
import json
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.etcdctl import Etcdctl
from tests.support.judges import judge_version
from tests.support.ports import free_port
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

WAIT_S = 20.0
ROOT = Path(__file__).parents[2]


class PeerProcess:
    """A running `tests.support.scripted_peer` and what it has said."""

    def __init__(self, etcd: RunningMember, port: int, directory: Path) -> None:
        self.port = port
        self.said: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.scripted_peer", str(port)),
                *(f"http://127.0.0.1:{etcd.peer_port}", str(directory)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first line, old or new, for which ``wanted`` holds."""
        for fact in self.said:
            if wanted(fact):
                return fact
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                fact = self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"not said: {self.said[-20:]}") from None
            assert fact["what"] != "failed", fact["why"]
            self.said.append(fact)
            if wanted(fact):
                return fact

    def wait_for(self, what: str, **facts: object) -> dict[str, Any]:
        return self.wait(
            lambda fact: fact["what"] == what and all(fact[k] == v for k, v in facts.items())
        )

    def ask(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def etcd() -> Iterator[RunningMember]:
    with RunningMember("etcd") as running:
        yield running


@pytest.fixture
def peer(etcd: RunningMember, tmp_path: Path) -> Iterator[PeerProcess]:
    """A learner of ours in the cluster of ``etcd``, connected both ways."""
    started = add_learner(etcd, tmp_path)
    yield started
    started.close()


def add_learner(etcd: RunningMember, directory: Path) -> PeerProcess:
    port = free_port()
    etcdctl = Etcdctl(etcd)
    etcdctl.output("member", "add", "ours", "--learner", f"--peer-urls=http://127.0.0.1:{port}")
    started = PeerProcess(etcd, port, directory)
    started.wait(lambda fact: fact["what"] == "status" and all(fact["connected"].values()))
    return started


def entry_with(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda fact: fact["what"] == "entry" and text in fact["data"]


def test_a_learner_of_ours_receives_the_log(etcd: RunningMember, peer: PeerProcess) -> None:
    etcdctl = Etcdctl(etcd)
    for i in range(20):
        etcdctl.output("put", "key", f"value {i} of the log")
    peer.wait(entry_with("value 19 of the log"))
    indexes = [fact["index"] for fact in peer.said if fact["what"] in ("entry", "conf change")]
    assert indexes == list(range(1, len(indexes) + 1))
    peer.wait_for("conf change", kind=3, member=peer.wait_for("listening")["id"])
    status = peer.wait(lambda fact: fact["what"] == "status" and "MsgHeartbeat" in fact["types"])
    assert status["failures"] == 0
    assert "Traceback" not in etcd.stderr()


def test_both_sides_answer_probes(etcd: RunningMember, peer: PeerProcess) -> None:
    found = []
    for port in (etcd.peer_port, peer.port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/raft/probing") as answer:
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            found.append(json.loads(answer.read()))
    assert [sorted(one) for one in found] == [["Now", "OK"]] * 2
    assert found[0]["OK"] is found[1]["OK"] is True


def test_a_voter_of_ours_leads_and_real_etcd_follows(
    etcd: RunningMember, peer: PeerProcess
) -> None:
    etcdctl = Etcdctl(etcd)
    own_id = peer.wait_for("listening")["id"]
    for _ in range(50):
        if etcdctl.run("member", "promote", own_id).returncode == 0:
            break
        time.sleep(0.1)
    peer.wait_for("conf change", kind=0, member=own_id)
    etcdctl.output("move-leader", own_id)
    peer.wait_for("status", is_leader=True)
    for i in range(30):
        etcdctl.output("put", "key", f"value {i} under our lead")
    peer.wait(entry_with("value 29 under our lead"))
    assert etcdctl.lines("get", "key", "--print-value-only") == ["value 29 under our lead"]
    # Each put reached us as a proposal: the only client port is that of real etcd.
    last = peer.wait(entry_with("value 29 under our lead"))
    assert last["term"] == peer.wait(entry_with("value 0 under our lead"))["term"]
    assert "Traceback" not in etcd.stderr() and "panic" not in etcd.stderr()
    assert peer.process.poll() is None


def test_real_etcd_takes_a_snapshot_of_ours(etcd: RunningMember, peer: PeerProcess) -> None:
    """One that is out of date: it is received whole, kept as a file, and changes nothing."""
    Etcdctl(etcd).output("put", "key", "before the snapshot")
    status = peer.wait(lambda fact: fact["what"] == "status" and fact["lead"] != "0")
    peer.ask(f"snapshot {status['lead']}")
    assert peer.wait_for("snapshot sent")["ok"] is True
    (kept,) = etcd.data_dir.glob("member/snap/*.snap.db")
    assert kept.name == "0000000000000001.snap.db"
    assert kept.read_bytes() == b"old" * 100_000
    Etcdctl(etcd).output("put", "key", "after the snapshot")
    peer.wait(entry_with("after the snapshot"))


def test_a_removed_member_of_ours_is_told_so(etcd: RunningMember, peer: PeerProcess) -> None:
    Etcdctl(etcd).output("member", "remove", peer.wait_for("listening")["id"])
    peer.wait_for("removed")
    assert peer.process.wait(WAIT_S) == 0


QUESTIONS: list[tuple[str, str, bytes, dict[str, str | None]]] = [
    ("GET", "/raft", b"", {}),
    ("POST", "/raft", b"\x08", {}),
    ("POST", "/raft", b"rubbish", {}),
    ("POST", "/raft", b"", {"X-Etcd-Cluster-ID": "1"}),
    ("POST", "/raft", b"", {"X-Etcd-Cluster-ID": None}),
    ("POST", "/raft", b"", {"X-Server-Version": "2.3.0"}),
    ("POST", "/raft", b"", {"X-Server-Version": None}),
    ("POST", "/raft", b"", {"X-Min-Cluster-Version": "9.0.0"}),
    ("POST", "/raft/stream/message/1", b"", {}),
    ("GET", "/raft/stream/message/1", b"", {}),
    ("GET", "/raft/stream/message/zz", b"", {}),
    ("GET", "/raft/stream/other/1", b"", {}),
    ("GET", "/raft/stream/1", b"", {}),
    ("GET", "/raft/stream/", b"", {}),
    ("GET", "/raft/stream/message/1", b"", {"X-Etcd-Cluster-ID": "1"}),
    ("GET", "/raft/stream/message/1", b"", {"X-Server-Version": "2.3.0"}),
    ("GET", "/raft/stream/message/FROM", b"", {"X-Raft-To": "1"}),
    ("GET", "/raft/snapshot", b"", {}),
    ("POST", "/raft/snapshot", b"", {}),
    ("POST", "/raft/snapshot", b"\0" * 7, {}),
    ("POST", "/raft/snapshot", b"\0" * 8, {}),
    ("POST", "/raft/snapshot", b"\0" * 7 + b"\x05", {}),
    ("POST", "/raft/snapshot", b"\0" * 7 + b"\x05ab", {}),
    ("POST", "/raft/snapshot", b"", {"X-Etcd-Cluster-ID": "1"}),
    ("GET", "/raft/", b"", {}),
    ("GET", "/nowhere", b"", {}),
    ("POST", "/raft/probing/more", b"", {}),
]
COMPARED = (
    "Allow",
    "Content-Type",
    "X-Content-Type-Options",
    "X-Etcd-Cluster-ID",
    "X-Server-Version",
)


def test_our_port_answers_as_real_etcds_does(etcd: RunningMember, peer: PeerProcess) -> None:
    listening = peer.wait_for("listening")
    status = peer.wait(lambda fact: fact["what"] == "status" and fact["lead"] != "0")
    ids = {etcd.peer_port: status["lead"], peer.port: listening["id"]}
    answers: dict[int, list[object]] = {}
    for port, other in ((etcd.peer_port, peer.port), (peer.port, etcd.peer_port)):
        answers[port] = []
        for method, path, body, changes in QUESTIONS:
            headers: dict[str, str | None] = {
                "X-Server-From": ids[other],
                "X-Server-Version": ".".join(map(str, judge_version())),
                "X-Min-Cluster-Version": "3.0.0",
                "X-Etcd-Cluster-ID": listening["cluster"],
                "X-Raft-To": ids[port],
                **changes,
            }
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            sent = {name: value for name, value in headers.items() if value is not None}
            connection.request(method, path.replace("FROM", ids[other]), body, sent)
            answer = connection.getresponse()
            found = [answer.getheader(name) for name in COMPARED]
            answers[port].append((method, path, changes, answer.status, answer.read(), found))
            connection.close()
    pairs = zip(answers[peer.port], answers[etcd.peer_port], strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


@pytest.mark.long
def test_real_etcd_sends_us_a_snapshot(tmp_path: Path) -> None:
    with RunningMember("etcd", flags=["--snapshot-count=100"]) as etcd:
        with EtcdClient(etcd.endpoint) as client:
            # Real etcd keeps 5,000 entries for those that are behind.
            for i in range(5300):
                client.put(b"key %d" % i, b"v" * 1000)
        peer = add_learner(etcd, tmp_path)
        try:
            snapshot = peer.wait_for("snapshot")
            assert snapshot["size"] > 4_000_000
            assert Path(snapshot["path"]).read_bytes()[16:20] == bytes.fromhex("edda0ced")
            Etcdctl(etcd).output("put", "key", "behind the snapshot")
            peer.wait(entry_with("behind the snapshot"))
            assert [path.name for path in tmp_path.iterdir()] == [Path(snapshot["path"]).name]
        finally:
            peer.close()
