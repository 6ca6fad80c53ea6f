"""Bits that flip in the state of a running member: mended, or that member alone out of service."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest

from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

NEEDLE: Final = b"needle"
RECORD: Final = b"\x0a\x06" + NEEDLE
FRAME_HEAD: Final = 0x12
DATA_LOSS: Final = 15
SETTLED_S: Final = 2.5
WITHIN_S: Final = 15.0

pytestmark = pytest.mark.integration


def flip_value(data_dir: Path, of_present: bool) -> int:
    """Flip a bit of the needle's value where `current` has it, or where `key` has; in each copy."""
    file = data_dir / "member" / "state" / "data.mdb"
    octets = file.read_bytes()
    places = []
    at = octets.find(RECORD)
    while at >= 0:
        is_frame = octets[at - 2] == FRAME_HEAD and octets[at - 1] < 128
        if is_frame == of_present:
            places.append(octets.index(b"sound", at))
        at = octets.find(RECORD, at + 1)
    with file.open("r+b") as stream:
        for place in places:
            stream.seek(place)
            stream.write(bytes((octets[place] ^ 1,)))
    return len(places)


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metric(port: int, name: str) -> float:
    lines = get(port, "/metrics")[1].splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))


def failure(client: EtcdClient, revision: int = 0) -> RpcFailedError | None:
    try:
        client.invoke("range", key=NEEDLE, revision=revision)
    except RpcFailedError as error:
        return error
    return None


@pytest.fixture
def member() -> Iterator[RunningMember]:
    with RunningMember("etcdtw") as running:
        with EtcdClient(running.endpoint) as client:
            for number in range(300):
                client.put(b"key/%d" % number, b"value %d" % number)
            client.put(NEEDLE, b"sound")
            for number in range(300):
                client.put(b"more/%d" % number, b"value %d" % number)
        time.sleep(SETTLED_S)
        yield running


def test_a_flipped_bit_of_the_present_is_never_served_and_mended(member: RunningMember) -> None:
    assert flip_value(member.data_dir, of_present=True)
    with EtcdClient(member.endpoint) as client:
        assert client.range(NEEDLE).kvs[0].value == b"sound"
        wait_for(
            lambda: metric(member.client_port, "etcdtw_state_mended_rows_total") == 1,
            WITHIN_S,
            "mended",
        )
        wait_for(
            lambda: metric(member.client_port, "etcdtw_state_sweeps_total") >= 1, WITHIN_S, "swept"
        )
        assert metric(member.client_port, "etcdtw_state_damaged") == 0
        assert client.range(NEEDLE).kvs[0].value == b"sound"
    assert "made anew from the key's history" in member.stderr()
    assert get(member.client_port, "/readyz")[0] == 200


def test_a_flipped_bit_of_the_history_takes_a_lone_member_out_of_service(
    member: RunningMember,
) -> None:
    assert flip_value(member.data_dir, of_present=False)
    with EtcdClient(member.endpoint) as client:
        revision = client.range(NEEDLE).kvs[0].mod_revision
        assert failure(client, revision) is not None  # cut off, or refused

        def is_refused() -> bool:
            with EtcdClient(member.endpoint) as another:
                error = failure(another)
                return error is not None and error.code == DATA_LOSS

        wait_for(is_refused, WITHIN_S, "refused")
    status, page = get(member.client_port, "/readyz")
    assert status == 503
    assert "[-]state_damage failed: the state is damaged: " in page
    assert metric(member.client_port, "etcdtw_state_damaged") == 1
    assert member.stderr().count("THIS MEMBER'S STATE IS DAMAGED") == 1
    assert member.is_running
    member.kill()
    member.launch()
    wait_for(lambda: not member.is_running, WITHIN_S, "ended")
    assert member.exit_status == 1
    assert "restore a snapshot" in member.stderr()


def test_a_damaged_leader_goes_and_the_cluster_goes_on() -> None:
    with Cluster(["etcdtw"] * 3) as cluster:
        old = cluster.leader()
        client = cluster.client(old)
        for number in range(300):
            client.put(b"key/%d" % number, b"value %d" % number)
        client.put(NEEDLE, b"sound")
        client.put(b"more", b"of it")
        time.sleep(SETTLED_S)
        assert flip_value(Path(old.data_dir), of_present=False)
        revision = client.range(NEEDLE).kvs[0].mod_revision
        assert failure(client, revision) is not None
        others: list[ClusterMember] = [one for one in cluster.all if one is not old]
        wait_for(lambda: cluster.leader_now(others) is not None, WITHIN_S, "led by another")
        healthy = cluster.new_client(others[0])
        wait_for(lambda: healthy.put(b"after", b"it") is not None, WITHIN_S, "put")
        assert healthy.range(NEEDLE).kvs[0].value == b"sound"
        assert healthy.invoke("alarm").alarms == []  # nobody else is concerned
        assert get(old.client_port, "/readyz")[0] == 503
        assert old.is_running


def test_a_member_is_mended_from_a_snapshot_of_another(tmp_path: Path) -> None:
    with Cluster(["etcdtw"] * 3) as cluster:
        leader = cluster.leader()
        client = cluster.client(leader)
        for number in range(300):
            client.put(b"key/%d" % number, b"value %d" % number)
        client.put(NEEDLE, b"sound")
        client.put(b"more", b"of it")
        cluster.wait_applied(cluster.revision())
        time.sleep(SETTLED_S)
        for is_ahead in (False, True):  # of the damaged member's log
            damaged = next(one for one in cluster.all if one is not cluster.leader())
            cluster.stop(damaged)
            assert flip_value(Path(damaged.data_dir), of_present=False)
            if is_ahead:
                for number in range(20):
                    cluster.client(cluster.leader()).put(b"ahead", b"%d" % number)
            saved = tmp_path / f"saved-{is_ahead}.db"
            cluster.ctl("snapshot", "save", str(saved), members=[cluster.leader()])
            command = [sys.executable, "-m", "etcdtw.server.state_mend"]
            command += ["--data-dir", str(damaged.data_dir), str(saved)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            cluster.start_members([damaged])
            cluster.wait_applied(cluster.revision())
            mended = cluster.new_client(damaged)
            found = mended.range(NEEDLE).kvs[0]
            assert found.value == b"sound"
            old = mended.invoke("range", key=NEEDLE, revision=found.mod_revision)
            assert old.kvs[0].value == b"sound"
            hashes = {cluster.new_client(one).invoke("hash_kv").hash for one in cluster.all}
            assert len(hashes) == 1


def test_a_snapshot_of_another_cluster_mends_nothing(member: RunningMember, tmp_path: Path) -> None:
    with RunningMember("etcdtw") as other, EtcdClient(other.endpoint) as client:
        client.put(b"of", b"another")
        saved = tmp_path / "saved.db"
        Etcdctl(other).run("snapshot", "save", str(saved))
    member.stop()
    command = [sys.executable, "-m", "etcdtw.server.state_mend"]
    command += ["--data-dir", str(member.data_dir), str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nothing was changed: " in done.stderr
    member.start()
    with EtcdClient(member.endpoint) as client:
        assert client.range(NEEDLE).kvs[0].value == b"sound"
