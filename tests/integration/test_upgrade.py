"""A cluster goes from the program before format 3 to this one, member by member, under writes."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etcdtw.storage.presence import MARK_FILE
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.processes import MemberNotReadyError

pytestmark = [pytest.mark.integration, pytest.mark.long]

REPOSITORY = Path(__file__).parent.parent.parent
BEFORE = "2b42417"  # etcdtw-wal 2, etcdtw-state 1
WRITERS = 3
PHASE_S = 3.0  # of writes between two replacements
CALL_TIMEOUT_S = 1.0  # what is sent to a leader that goes is lost, and nobody was told


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the program before."""
    folder = tmp_path_factory.mktemp("before")
    command = ["git", "-C", str(REPOSITORY), "archive", BEFORE, "etcdtw", "twisted"]
    try:
        archive = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"NO GIT HISTORY WITH {BEFORE}: AN UPGRADE FROM IT IS NOT TESTED")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def use(member: ClusterMember, tree: Path | None) -> None:
    """Let the next start be of the program in ``tree``; None: of this one."""
    member.environment = {} if tree is None else {"PYTHONPATH": str(tree)}


class Writer(threading.Thread):
    """Puts one key after the other, at whichever member answers, and notes what was promised."""

    def __init__(self, number: int, members: list[ClusterMember]) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.members = members
        self.promised: dict[bytes, bytes] = {}
        self.refused = 0
        self.is_ended = False

    def run(self) -> None:
        clients = [EtcdClient(member.endpoint) for member in self.members]
        count = 0
        while not self.is_ended:
            count += 1
            key, value = b"%d/%06d" % (self.number, count), b"value %d" % count
            client = clients[(self.number + count // 50 + self.refused) % len(clients)]
            try:
                client.call("put", pb.PutRequest(key=key, value=value), timeout_s=CALL_TIMEOUT_S)
            except RpcFailedError:
                self.refused += 1
                time.sleep(0.02)
            else:
                self.promised[key] = value
        for client in clients:
            client.close()


@contextmanager
def written_to(cluster: Cluster) -> Iterator[list[Writer]]:
    writers = [Writer(number, cluster.all) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.is_ended = True
        for writer in writers:
            writer.join(60)


def promised_count(writers: list[Writer]) -> int:
    return sum(len(writer.promised) for writer in writers)


def check_promises(cluster: Cluster, writers: list[Writer]) -> None:
    for member in cluster.all:
        client = cluster.client(member)
        for writer in writers:
            prefix = b"%d/" % writer.number
            found = client.range(prefix, b"%d0" % writer.number, serializable=False)
            rows = {kv.key: kv.value for kv in found.kvs}
            lost = [key for key, value in writer.promised.items() if rows.get(key) != value]
            assert not lost, f"{member.name}: {lost[:5]} of {len(lost)}"


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_a_cluster_is_replaced_member_by_member_and_loses_nothing(
    old_tree: Path, ends: str
) -> None:
    cluster = Cluster(["etcdtw"] * 3)
    for member in cluster.all:
        use(member, old_tree)
    with cluster:
        with written_to(cluster) as writers:
            time.sleep(PHASE_S)
            for member in cluster.all:
                before = promised_count(writers)
                assert not (member.data_dir / "member" / MARK_FILE).exists(), "an old program runs"
                if ends == "kill":
                    cluster.kill([member])
                else:
                    cluster.stop(member)
                use(member, None)
                cluster.start_members([member])
                assert (member.data_dir / "member" / MARK_FILE).exists(), "this program runs"
                wait_for(lambda: cluster.leader_now() is not None, 30.0, "a leader")
                revision = cluster.revision()
                cluster.wait_applied(revision, [member])
                time.sleep(PHASE_S)
                assert promised_count(writers) > before + 10
        cluster.wait_applied(cluster.revision())
        check_promises(cluster, writers)
        cluster.assert_equal()
        print(f"promised {promised_count(writers)}, refused {sum(w.refused for w in writers)}")
        going_back = cluster.followers()[0]
        cluster.stop(going_back)
        use(going_back, old_tree)
        with pytest.raises(MemberNotReadyError, match="has format 3, this program reads format 2"):
            cluster.start_members([going_back])
        use(going_back, None)
        cluster.start_members([going_back])
        cluster.wait_applied(cluster.revision())
        check_promises(cluster, writers)
        cluster.check_logs()
