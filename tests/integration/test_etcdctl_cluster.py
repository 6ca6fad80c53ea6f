"""etcdctl lease, endpoint, member, defrag and check."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

CHECK_PERF_TIMEOUT_S = 120.0


@pytest.fixture
def etcdctl(member: RunningMember) -> Etcdctl:
    return Etcdctl(member)


def grant(etcdctl: Etcdctl, ttl_s: int) -> str:
    words = etcdctl.output("lease", "grant", str(ttl_s)).split()
    assert words[0] == "lease"
    assert words[2:] == ["granted", "with", f"TTL({ttl_s}s)"]
    return words[1]


def test_a_lease_takes_its_keys_along_when_it_is_revoked(etcdctl: Etcdctl) -> None:
    lease = grant(etcdctl, 600)
    etcdctl.output("put", "leased", "value", f"--lease={lease}")
    told = etcdctl.output("lease", "timetolive", lease, "--keys")
    assert told.startswith(f"lease {lease} granted with TTL(600s), remaining(")
    assert told.endswith("attached keys([leased])\n")
    assert lease in etcdctl.lines("lease", "list")
    assert etcdctl.output("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert etcdctl.output("get", "leased") == ""
    assert etcdctl.output("lease", "timetolive", lease) == f"lease {lease} already expired\n"
    failed = etcdctl.run("lease", "revoke", lease)
    assert failed.returncode == 1
    assert "etcdserver: requested lease not found" in failed.stderr


def test_lease_list_says_how_many(etcdctl: Etcdctl) -> None:
    lease = grant(etcdctl, 600)
    lines = etcdctl.lines("lease", "list")
    assert lines[0] == f"found {len(lines) - 1} leases"
    assert lease in lines[1:]


def test_keep_alive_renews_once_and_again(etcdctl: Etcdctl) -> None:
    lease = grant(etcdctl, 2)
    renewed = f"lease {lease} keepalived with TTL(2)"
    assert etcdctl.lines("lease", "keep-alive", lease, "--once") == [renewed]
    process = etcdctl.start("lease", "keep-alive", lease)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().rstrip() for _ in range(3)] == [renewed] * 3
        etcdctl.output("lease", "revoke", lease)
        rest = process.communicate(timeout=10)[0]
        assert f"lease {lease} expired or revoked." in rest
    finally:
        process.kill()


def test_a_lease_that_is_not_renewed_expires_with_its_keys(etcdctl: Etcdctl) -> None:
    lease = grant(etcdctl, 2)
    etcdctl.output("put", "expiring", "value", f"--lease={lease}")
    process = etcdctl.start("watch", "expiring")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "DELETE\n"
    finally:
        process.kill()
        process.communicate()
    assert etcdctl.output("get", "expiring") == ""


def test_endpoint_health(etcdctl: Etcdctl) -> None:
    done = etcdctl.run("endpoint", "health")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert f"{etcdctl.member.client_url} is healthy: successfully committed proposal" in text
    answer = etcdctl.json("endpoint", "health")
    assert [(item["endpoint"], item["health"]) for item in answer] == [
        (etcdctl.member.client_url, True)
    ]


def test_endpoint_status(etcdctl: Etcdctl) -> None:
    (line,) = etcdctl.lines("endpoint", "status")
    columns = [column.strip() for column in line.split(",")]
    assert columns[0] == etcdctl.member.client_url
    at = columns.index("true")  # the leader; etcdctl 3.6 puts more sizes before it
    assert columns[at : at + 2] == ["true", "false"]  # and not a learner
    status = etcdctl.json("endpoint", "status")[0]["Status"]
    assert status["leader"] == status["header"]["member_id"]
    assert status["raftAppliedIndex"] <= status["raftIndex"]
    assert status["dbSize"] >= status["dbSizeInUse"] > 0
    assert status["version"].count(".") == 2
    assert etcdctl.member.client_url in etcdctl.output("endpoint", "status", "-w", "table")


def test_endpoint_hashkv(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "hashed", "value")
    first = etcdctl.json("endpoint", "hashkv")[0]["HashKV"]
    assert first["hash"] == etcdctl.json("endpoint", "hashkv")[0]["HashKV"]["hash"]
    etcdctl.output("put", "hashed", "other")
    assert first["hash"] != etcdctl.json("endpoint", "hashkv")[0]["HashKV"]["hash"]
    revision = str(first["header"]["revision"])
    old = etcdctl.json("endpoint", "hashkv", f"--rev={revision}")[0]["HashKV"]
    assert old["hash"] == first["hash"]


def test_member_list(etcdctl: Etcdctl) -> None:
    (line,) = etcdctl.lines("member", "list")
    columns = line.split(", ")
    assert columns[1:3] == ["started", "m1"]
    assert columns[4:] == [etcdctl.member.client_url, "false"]
    (only,) = etcdctl.json("member", "list")["members"]
    assert f"{only['ID']:x}" == columns[0]
    assert only["name"] == "m1"
    assert only["clientURLs"] == [etcdctl.member.client_url]
    assert only["peerURLs"] == [f"http://127.0.0.1:{etcdctl.member.peer_port}"]


def test_defrag(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "fragmented", "value")
    told = etcdctl.output("defrag")
    assert told.startswith(f"Finished defragmenting etcd member[{etcdctl.member.client_url}]")
    assert etcdctl.lines("get", "fragmented", "--print-value-only") == ["value"]


def test_alarm_list_is_empty(etcdctl: Etcdctl) -> None:
    assert etcdctl.output("alarm", "list") == ""


def test_a_member_that_does_not_answer_is_unhealthy(etcdctl: Etcdctl) -> None:
    done = etcdctl.run("--endpoints=http://127.0.0.1:1", "endpoint", "health")
    assert done.returncode == 1
    assert "is unhealthy: failed to commit proposal" in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("load", ["s", "m"])
def test_check_perf_passes(etcdctl: Etcdctl, load: str) -> None:
    done: subprocess.CompletedProcess[str] = etcdctl.run(
        "check", "perf", f"--load={load}", timeout_s=CHECK_PERF_TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout
    assert "PASS" in done.stdout.splitlines()[-1]
