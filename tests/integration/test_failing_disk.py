"""A real member whose disk fails below it: it ends at once, and what it acknowledged is there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import wait_for
from tests.support.crashlab.recording import build_recorder, compiler, parse
from tests.support.processes import RunningMember
from tests.support.wire_client import ConnectionFailedError, WireClient

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(compiler() is None, reason="NO C COMPILER: FAILING DISKS ARE NOT TESTED"),
]

END_S_MAX = 1.0  # from the failure to the end of the process
PUTS_MAX = 200_000
PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"


def put_until_refused(endpoint: str) -> tuple[list[int], int]:
    """Put keys one after the other; return the revisions of those acknowledged, and when last."""
    revisions: list[int] = []
    acknowledged_ns = 0
    client = WireClient(endpoint)
    try:
        for i in range(PUTS_MAX):
            request = pb.PutRequest(key=b"key%d" % i, value=b"%d" % i)
            done = client.call(PUT, request.SerializeToString())
            if done.code != 0:
                break
            acknowledged_ns = time.monotonic_ns()
            revisions.append(pb.PutResponse.FromString(done.messages[0]).header.revision)
    except ConnectionFailedError:
        pass
    finally:
        client.close()
    return revisions, acknowledged_ns


@pytest.mark.parametrize(
    ("eio", "where"),
    [("j500", "the journal"), ("w4", "the log, behind the journal"), ("s3", "the state")],
)
def test_a_member_whose_disk_fails_ends_within_a_second_and_loses_nothing_acknowledged(
    tmp_path: Path, eio: str, where: str
) -> None:
    record = tmp_path / "record"
    preloaded = {
        "LD_PRELOAD": str(build_recorder(tmp_path)),
        "CRASHLAB_LOG": str(record),
        "CRASHLAB_EIO": eio,
    }
    folder = tmp_path / "data"
    with RunningMember("etcdtw", data_dir=folder, environment=preloaded) as member:
        revisions, acknowledged_ns = put_until_refused(member.endpoint)
        wait_for(lambda: not member.is_running, 10.0, f"the member ends: {where} failed")
        ended_ns = time.monotonic_ns()
        assert member.exit_status != 0
    failed_ns = [at for kind, _, at, data in parse(record.read_bytes()) if data == b"E"]
    assert len(failed_ns) == 1, "the disk failed once"
    took_s = (ended_ns - failed_ns[0]) / 1e9
    print(f"{eio}: {len(revisions)} acknowledged, ended {took_s:.3f} s after the failure")
    assert took_s <= END_S_MAX
    if eio[0] == "j":
        # Behind the journal everything acknowledged is durable already.
        assert acknowledged_ns < failed_ns[0], "acknowledged after the failure"
        assert len(revisions) > 100
    assert revisions  # the others fail at a moment that the clock decides
    with RunningMember("etcdtw", data_dir=folder) as member:
        client = WireClient(member.endpoint)
        request = pb.RangeRequest(key=b"key", range_end=b"kez")
        done = client.call(RANGE, request.SerializeToString())
        client.close()
    found = {kv.key: kv for kv in pb.RangeResponse.FromString(done.messages[0]).kvs}
    for i, revision in enumerate(revisions):
        kv = found[b"key%d" % i]
        assert (kv.value, kv.mod_revision) == (b"%d" % i, revision)
