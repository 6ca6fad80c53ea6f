"""Users and roles in snapshots, both ways: restored by real etcdutl, and sent to who is behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.differential.judged import NEEDS_JUDGE
from tests.differential.users import AUTH, FLAGS, Member
from tests.differential.users_cluster import SETTLED_S, snapshot_buckets
from tests.integration.mixed_clusters import metric
from tests.integration.test_users import ask, log_in, set_up, status_of
from tests.support.cluster_processes import Cluster, wait_for
from tests.support.cluster_programs import with_programs
from tests.support.etcdutl import etcdutl
from tests.support.processes import RunningMember
from tests.support.user_setup import snapshot_octets

pytestmark = pytest.mark.integration

SNAPSHOT_FLAGS: Final = ("--snapshot-count", "50", "--snapshot-catchup-entries", "10")
PUTS: Final = 200
FORGOTTEN_S: Final = 5.0
"""After this a leader of ours keeps no log for a member that is away."""
DENIED: Final = "etcdserver: permission denied"
NOBODY: Final = "etcdserver: user name is empty"


def save_snapshot(endpoint: str, token: str, file: Path) -> None:
    file.write_bytes(snapshot_octets(endpoint, token))


@NEEDS_JUDGE
@pytest.mark.parametrize("program", ["etcdtw", pytest.param("etcd", marks=pytest.mark.long)])
def test_users_of_a_snapshot_that_etcdutl_restores_are_those_of_real_etcd(
    program: str, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot.db"
    with RunningMember(program, flags=FLAGS) as running:
        member = Member(running.endpoint)
        set_up(member)
        token = log_in(member, "root")
        assert status_of(member, "root") == ""
        save_snapshot(running.endpoint, token, file)
        buckets = snapshot_buckets(running.endpoint, token)
        member.close()
    data_dir = tmp_path / "restored"
    etcdutl("snapshot", "restore", str(file), "--data-dir", str(data_dir))
    with RunningMember("etcd", flags=FLAGS, data_dir=data_dir) as running:
        member = Member(running.endpoint)
        assert status_of(member, None) == NOBODY
        token = log_in(member, "root")
        log_in(member, "ann")
        assert (status_of(member, "root"), status_of(member, "ann")) == ("", DENIED)
        assert snapshot_buckets(running.endpoint, token) == buckets
        member.close()


@pytest.mark.parametrize(
    ("first", "second", "behind"),
    [
        with_programs("etcd", "etcd", "etcdtw"),
        with_programs("etcdtw", "etcdtw", "etcd"),
        with_programs("etcdtw", "etcdtw", "etcdtw", is_long=True),
    ],
)
def test_who_is_sent_a_snapshot_asks_the_users_in_it(first: str, second: str, behind: str) -> None:
    with Cluster([first, second, behind], flags=[*FLAGS, *SNAPSHOT_FLAGS]) as cluster:
        ahead, lagging = cluster.all[0], cluster.all[2]
        cluster.kill([lagging])
        cluster.leader()
        member = Member(ahead.endpoint)
        set_up(member)
        log_in(member, "root")
        for number in range(PUTS):
            assert status_of(member, "root", b"k%d" % number) == ""
        ask(
            member,
            AUTH + "RoleAdd",
            pb.AuthRoleAddRequest(name="r"),
            pb.AuthRoleAddResponse,
            "root",
        )
        time.sleep(FORGOTTEN_S)
        lagging.start()
        late = Member(lagging.endpoint)
        wait_for(lambda: status_of(late, None) == NOBODY, SETTLED_S, "it knows of users")
        log_in(late, "ann")
        own = log_in(late, "root")
        assert (status_of(late, "root"), status_of(late, "ann")) == ("", DENIED)
        # Its token came by the log, so that all know it.
        found = [snapshot_buckets(m.endpoint, own) for m in (ahead, lagging)]
        assert found[0] == found[1]
        assert status_of(member, "root") == ""
        sent = sum(metric(m, "etcd_network_snapshot_send_success") for m in cluster.all[:2])
        assert sent >= 1, "it came by the log after all"
        member.close()
        late.close()
