"""etcdctl member and move-leader on one member, a forced new cluster, older lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcdctl import Etcdctl
from tests.support.judges import judge_version
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration


@pytest.fixture
def member() -> Iterator[RunningMember]:
    """A member of its own: its membership does not come back."""
    with RunningMember("etcdtw") as running:
        yield running


@pytest.fixture
def etcdctl(member: RunningMember) -> Etcdctl:
    return Etcdctl(member)


def failure(etcdctl: Etcdctl, *arguments: str) -> str:
    done = etcdctl.run(*arguments)
    assert done.returncode == 1
    return done.stderr


def test_learner_comes_changes_and_goes(etcdctl: Etcdctl) -> None:
    told = etcdctl.output("member", "add", "l", "--peer-urls=http://127.0.0.1:9", "--learner")
    assert " added as learner to cluster " in told or judge_version() < (3, 6, 0)
    assert 'ETCD_INITIAL_CLUSTER_STATE="existing"' in told
    learner = told.split()[1]
    lines = [line.split(", ") for line in etcdctl.lines("member", "list")]
    (shown,) = [columns for columns in lines if columns[0] == learner]
    assert shown[1:] == ["unstarted", "", "http://127.0.0.1:9", "", "true"]
    assert "can only promote a learner member which is in sync with leader" in failure(
        etcdctl, "member", "promote", learner
    )
    too_many = failure(etcdctl, "member", "add", "k", "--peer-urls=http://127.0.0.1:8", "--learner")
    assert "etcdserver: too many learner members in cluster" in too_many
    told = etcdctl.output("member", "update", learner, "--peer-urls=http://127.0.0.1:7")
    assert f"Member {learner:>16} updated in cluster" in told
    etcdctl.output("put", "key", "a learner counts for no quorum")
    told = etcdctl.output("member", "remove", learner)
    assert f"Member {learner:>16} removed from cluster" in told
    assert "etcdserver: member not found" in failure(etcdctl, "member", "remove", learner)
    assert len(etcdctl.lines("member", "list")) == 1


def test_refusals_are_etcds(etcdctl: Etcdctl) -> None:
    (own,) = etcdctl.json("member", "list")["members"]
    own_id = f"{own['ID']:x}"
    assert "re-configuration failed due to not enough started members" in failure(
        etcdctl, "member", "remove", own_id
    )
    assert "can only promote a learner member" in failure(etcdctl, "member", "promote", own_id)
    assert "Peer URLs already exists" in failure(
        etcdctl, "member", "add", "b", f"--peer-urls={own['peerURLs'][0]}"
    )
    assert "bad leader transferee" in failure(etcdctl, "move-leader", "77")
    assert f"Leadership transferred from {own_id} to {own_id}" in etcdctl.output(
        "move-leader", own_id
    )


def test_voter_that_never_starts_takes_the_quorum_and_a_forced_new_cluster_brings_it_back(
    member: RunningMember, etcdctl: Etcdctl
) -> None:
    etcdctl.output("put", "key", "value")
    told = etcdctl.output("member", "add", "b", "--peer-urls=http://127.0.0.1:9")
    assert " added to cluster " in told
    failed = etcdctl.run("--command-timeout=2s", "put", "key", "other")
    assert failed.returncode != 0
    member.kill()
    member.flags = ["--force-new-cluster"]
    member.start()
    assert etcdctl.lines("get", "key", "--print-value-only") == ["value"]
    assert len(etcdctl.lines("member", "list")) == 1
    etcdctl.output("put", "key", "again")
    member.flags = []
    member.restart()
    assert etcdctl.lines("get", "key", "--print-value-only") == ["again"]


@pytest.mark.parametrize(
    ("line", "server"), [("3.4", "3.4.44"), ("3.5", "3.5.35"), ("3.6", "3.6.16")]
)
def test_cluster_of_an_older_line_stays_one(line: str, server: str) -> None:
    with RunningMember("etcdtw", flags=[f"--compat-version={line}"]) as member:
        etcdctl = Etcdctl(member)
        assert etcdctl.json("endpoint", "status")[0]["Status"]["version"] == server
        member.flags = []
        member.restart()
        assert etcdctl.json("endpoint", "status")[0]["Status"]["version"] == server
        etcdctl.output("put", "key", "value")
