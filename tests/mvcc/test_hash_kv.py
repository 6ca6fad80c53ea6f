"""HashKV by its rule, and against what etcd 3.5.1 answered."""

from __future__ import annotations

import google_crc32c
import pytest

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.hash_kv import KvHash, encode_revision, hash_kv, kept_revisions
from etcdtw.mvcc.store import Store
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_record
from etcdtw.wire.requests import put_of, txn_of
from tests.support.model_backend import ModelBackend


def put(main: int, sub: int, key: bytes, value: bytes = b"v") -> Change:
    return Change(main, sub, False, encode_record(key, main, main, 1, value, 0))


def tombstone(main: int, sub: int, key: bytes) -> Change:
    return Change(main, sub, True, encode_record(key, 0, 0, 0, b"", 0))


def crc_of(*changes: Change) -> int:
    octets = b"key"
    for change in changes:
        octets += encode_revision(change.main, change.sub, change.is_tombstone) + change.record
    return int(google_crc32c.value(octets))


A2, B3, A4, B5 = put(2, 0, b"a"), put(3, 0, b"b"), put(4, 0, b"a"), tombstone(5, 0, b"b")
HISTORY = [A2, B3, A4, B5]


def test_a_revision_is_17_octets_and_a_tombstones_18() -> None:
    assert encode_revision(1, 2) == bytes(7) + b"\x01_" + bytes(7) + b"\x02"
    assert encode_revision(1, 2, is_tombstone=True)[17:] == b"t"


def test_an_empty_store_hashes_the_name_of_the_bucket() -> None:
    assert hash_kv([], 1, -1) == int(google_crc32c.value(b"key"))


def test_without_a_compaction_everything_counts_up_to_the_revision() -> None:
    assert hash_kv(HISTORY, 5, -1) == crc_of(*HISTORY)
    assert hash_kv(HISTORY, 3, -1) == crc_of(A2, B3)


def test_below_the_compaction_only_what_is_kept_counts() -> None:
    assert hash_kv(HISTORY, 5, 4) == crc_of(A4, B5)
    assert hash_kv(HISTORY, 4, 4) == crc_of(B3, A4)
    assert hash_kv(HISTORY, 5, 3) == crc_of(A4, B5)


def test_a_tombstone_at_the_compaction_does_not_count() -> None:
    assert hash_kv(HISTORY, 5, 5) == crc_of(A4)


def test_with_nothing_to_keep_nothing_is_left_out_but_that_tombstone() -> None:
    history = [A2, tombstone(3, 0, b"a")]
    assert hash_kv(history, 3, 3) == crc_of(A2)


def test_what_is_kept_is_the_newest_of_each_live_key() -> None:
    assert kept_revisions(HISTORY, 5) == {(4, 0)}
    assert kept_revisions(HISTORY, 3) == {(2, 0), (3, 0)}


def test_a_history_fed_in_pieces_hashes_the_same() -> None:
    history = [put(2 + i, 0, b"%d" % i, b"v" * 30_000) for i in range(10)]
    keep = kept_revisions(history, 11)
    kv_hash = KvHash(11, 5, keep)
    for change in history:
        kv_hash.feed([change])
    assert kv_hash.value() == kv_hash.value() == hash_kv(history, 11, 5) == crc_of(*history)


def apply_the_recorded_requests(store: Store) -> None:
    """Apply what was sent to etcd 3.5.1."""
    for i in range(5):
        store.apply_put(put_of(pb.PutRequest(key=b"key%d" % i, value=b"value" * i)))
    store.apply_put(put_of(pb.PutRequest(key=b"key1", value=b"\xff\x00")))
    store.apply_put(put_of(pb.PutRequest(key=b"leased", value=b"v", lease=0x7FFF_0000_1111_2222)))
    store.apply_put(put_of(pb.PutRequest(key=b"negative", value=b"v", lease=-5)))
    store.apply_delete_range(pb.DeleteRangeRequest(key=b"key2", range_end=b"key4"))
    nested = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"nested"))])
    last = pb.TxnRequest(
        success=[
            pb.RequestOp(request_put=pb.PutRequest(key=b"key2", value=b"back")),
            pb.RequestOp(request_txn=nested),
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"key0")),
        ]
    )
    store.apply_txn(txn_of(last))


GOLDEN = {
    # (compacted to, asked revision): what etcd 3.5.1 answered
    (-1, 0): 3857447256,
    (-1, 2): 2754442260,
    (-1, 7): 3555632066,
    (-1, 9): 1519416377,
    (-1, 10): 1652455143,
    (7, 0): 1411022011,
    (7, 8): 2954517141,
    (7, 10): 717870112,
    (10, 0): 848556827,
    (10, 11): 848556827,
}


@pytest.mark.parametrize(("compacted", "revision"), sorted(GOLDEN))
def test_etcd_answered_the_same(compacted: int, revision: int) -> None:
    backend = ModelBackend()
    store = Store(backend, lambda lease_id: True)
    apply_the_recorded_requests(store)
    changes = backend.changes_from(0, 0, 100, 1000)
    at = revision or store.revision
    assert hash_kv(changes, at, compacted) == GOLDEN[compacted, revision]
