"""Watches and txns over values as large as clients may put hold nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import WATCH
from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.integration  # conftest.py fails a test in which a member was held up

KEYS = [b"k%02d" % i for i in range(40)]
SIZE = 1024 * 1024


class Watching:
    """A watch of all keys, read at leisure."""

    def __init__(self, member: RunningMember, **options: Any) -> None:
        self._client = WireClient(member.endpoint)
        self._stream = self._client.open(WATCH)
        create = pb.WatchCreateRequest(key=b"k", range_end=b"l", **options)
        octets = pb.WatchRequest(create_request=create).SerializeToString()
        self._events: list[Any] = []
        self._client.send(self._stream, octets)
        self.events(0)

    def events(self, count: int) -> list[Any]:
        """Wait for something, and until there are so many events; return all that came."""
        while True:
            assert self._client.poll(30.0)
            for message in self._stream.take_messages():
                self._events += pb.WatchResponse.FromString(message).events
            if len(self._events) >= count:
                return self._events

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def member() -> Iterator[RunningMember]:
    with RunningMember("etcdtw") as running:
        with EtcdClient(running.endpoint) as client:
            for key in KEYS:
                client.put(key, bytes(SIZE))
        yield running


def test_large_values_of_history_come_without_a_long_piece(member: RunningMember) -> None:
    watching = Watching(member, start_revision=1)
    assert [event.kv.key for event in watching.events(len(KEYS))] == KEYS
    watching.close()


def test_a_delete_of_large_values_is_told_without_a_long_piece(member: RunningMember) -> None:
    watching = Watching(member, prev_kv=True)
    with EtcdClient(member.endpoint) as client:
        deletion = pb.DeleteRangeRequest(key=b"k", range_end=b"l")
        revision = client.call("delete_range", deletion).header.revision
    later = Watching(member, prev_kv=True, start_revision=revision)
    for one in (watching, later):
        events = one.events(len(KEYS))
        assert [event.kv.key for event in events] == KEYS
        assert {len(event.prev_kv.value) for event in events} == {SIZE}
        one.close()


@pytest.mark.parametrize("kind", ["puts that keep them", "deletes"])
def test_a_txn_that_tells_of_large_values_is_done_without_a_long_piece(
    member: RunningMember, kind: str
) -> None:
    if kind == "deletes":
        deletes = [pb.DeleteRangeRequest(key=key, prev_kv=True) for key in KEYS]
        ops = [pb.RequestOp(request_delete_range=one) for one in deletes]
    else:
        puts = [pb.PutRequest(key=key, ignore_value=True, prev_kv=True) for key in KEYS]
        ops = [pb.RequestOp(request_put=one) for one in puts]
    with EtcdClient(member.endpoint) as client:
        before = client.call("range", pb.RangeRequest(key=b"k", range_end=b"l"))
        answer = client.call("txn", pb.TxnRequest(success=ops))
        assert answer.succeeded
        if kind == "deletes":
            told = [one.response_delete_range.prev_kvs[0] for one in answer.responses]
        else:
            told = [one.response_put.prev_kv for one in answer.responses]
            after = client.call("range", pb.RangeRequest(key=b"k", range_end=b"l"))
            assert [(kv.version, kv.value) for kv in after.kvs] == [(2, bytes(SIZE))] * len(KEYS)
        assert told == list(before.kvs)
