"""--bootstrap-defrag-threshold-megabytes on a running member: what frees enough is given back."""

from __future__ import annotations

import json

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

MIB = 1 << 20
FLAG = "--bootstrap-defrag-threshold-megabytes=2"


def lines(member: RunningMember, message: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in member.stderr().splitlines() if line.startswith("{")]
    return [line for line in found if line["msg"] == message]


def test_a_start_gives_back_what_was_freed_and_the_next_has_nothing_to_do() -> None:
    with RunningMember("etcdtw") as member:
        with EtcdClient(member.endpoint) as client:
            for number in range(8):
                client.put(b"k%d" % number, bytes(MIB))
            client.invoke("delete_range", key=b"k", range_end=b"l")
            revision = client.put(b"kept", b"value").header.revision
            client.invoke("compact", revision=revision, physical=True)
        member.stop()
        member.flags.append(FLAG)
        member.start()
        (done,) = lines(member, "finished defragmenting directory")
        difference = done["current-db-size-bytes-diff"]
        assert isinstance(difference, int)
        assert difference <= -2 * MIB
        with EtcdClient(member.endpoint) as client:
            assert client.range(b"kept").kvs[0].value == b"value"
        member.restart()
        (skipped,) = lines(member, "Skipping defragmentation")
        assert skipped["bootstrap-defrag-threshold-bytes"] == 2 * MIB
