"""What the MVCC store costs by itself, in microseconds: run it, read the table.

The backend is a dict that does next to nothing, so the figures are those of the store.  The last
ones are of a store over LMDB: ranges of 1,000 keys anywhere among 100,000.
"""

from __future__ import annotations

import random
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from etcdtw.mvcc.store import Store
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Put, txn_of
from tests.support.model_backend import ModelBackend

KEYS_COUNT = 1_000
DURABLE_COUNT = 100_000
RANGES_COUNT = 500
VALUE = b"v" * 256


class FlatBackend(ModelBackend):
    """Forgets history and keeps the frames of its 1,000 keys ready-made."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: list[bytes] = []

    def put(self, main: int, sub: int, key: bytes, record: bytes, is_new: bool) -> None:
        self.live[key] = record

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        return self.ready[:limit] if limit else self.ready

    def pieces(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> tuple[list[bytes], int]:
        frames = self.frames(start, end, limit, octets_max)
        return frames, len(frames)

    def count(self, start: bytes, end: bytes | None) -> int:
        return len(self.live)

    def large_octets(self) -> int:
        return 0


def measure(name: str, work: Callable[[], object], count: int) -> None:
    """Print the best of five rounds."""
    best = min(timeit.repeat(work, number=count, repeat=5)) / count
    print(f"{name:44} {best * 1e6:8.2f} us")


def touch(backend: FlatBackend, key: bytes, record: bytes) -> None:
    """Do to the backend what a put does."""
    backend.get(key)
    backend.put(1, 1, key, record, False)


def build_store() -> tuple[Store, FlatBackend]:
    """Return a store of 1,000 keys at a revision as a cluster of some age has it."""
    backend = FlatBackend()
    store = Store(backend, lambda lease_id: True)
    store.restore(1_000_000)
    for i in range(KEYS_COUNT):
        store.apply_put(Put(b"/registry/pods/default/%06d" % i, VALUE))
    backend.ready = ModelBackend.frames(backend, b"\0", None)
    return store, backend


def fill(store: Store, state: LmdbState) -> None:
    """Put 100,000 keys in random order and wait until all are durable."""
    store.restore(1)
    for index, i in enumerate(random.sample(range(DURABLE_COUNT), DURABLE_COUNT), 1):
        store.apply_put(Put(b"/registry/pods/default/%06d" % i, VALUE))
        state.set_applied(index, 1)
    state.flush(lambda: None)


def measure_durable(folder: Path) -> None:
    """Measure ranges over LMDB: a first pass, repeated ones, and what a commit makes of them."""
    state = open_state(folder / "state", print)
    store = Store(state, lambda lease_id: True)
    fill(store, state)
    starts = [random.randrange(DURABLE_COUNT - KEYS_COUNT) for _ in range(RANGES_COUNT)]
    name = b"/registry/pods/default/%06d"
    requests = [
        pb.RangeRequest(key=name % start, range_end=name % (start + KEYS_COUNT)) for start in starts
    ]
    single = requests[0]
    tiled = [
        pb.RangeRequest(key=name % start, range_end=name % (start + KEYS_COUNT))
        for start in range(0, DURABLE_COUNT, KEYS_COUNT)
    ]

    def pass_over(asked: list[pb.RangeRequest]) -> None:
        for request in asked:
            store.open_range(request)

    def commit() -> None:
        store.apply_put(Put(name % 7, VALUE))
        state.set_applied(state.applied_index + 1, 1)
        state.flush(lambda: None)

    def measure_after_commit(name: str, asked: list[pb.RangeRequest]) -> None:
        best = min(timeit.repeat(lambda: pass_over(asked), commit, number=1, repeat=5))
        print(f"{name:44} {best / len(asked) * 1e6:8.2f} us")

    measure_after_commit("1,000 of 100,000: each key once", tiled)
    measure_after_commit("  the first 500 random ranges", requests)
    random_us = timeit.repeat(lambda: pass_over(requests), number=1, repeat=5)
    print(f"{'  random ranges again':44} {min(random_us) / RANGES_COUNT * 1e6:8.2f} us")
    measure("  the same range again", lambda: store.open_range(single), 500)
    page = pb.RangeRequest(key=name % 0, range_end=b"/registry/pods0", limit=KEYS_COUNT)
    measure("  the first page of all", lambda: store.open_range(page), 500)
    measure("commit of one put", commit, 5)
    print(f"{'  of it after ranges over all keys':44} ", end="")
    print(f"{timeit.timeit(commit, lambda: pass_over(requests * 2), number=1) * 1e6:8.2f} us")
    state.close()


def main() -> None:
    """Measure the hot paths."""
    store, backend = build_store()
    key = b"/registry/pods/default/000500"
    put = Put(key, VALUE)
    record = backend.live[key]
    measure("put over a live key", lambda: store.apply_put(put), 100_000)
    measure(
        "  of it the backend",
        lambda: touch(backend, key, record),
        100_000,
    )
    store.has_watchers = True
    measure(
        "put over a live key, watched", lambda: (store.apply_put(put), store.take_events()), 100_000
    )
    store.has_watchers = False
    measure("range of one key, key only", lambda: store.get_body(key), 100_000)
    single = pb.RangeRequest(key=key)
    measure("range of one key, whole request", lambda: store.range(single), 100_000)
    plain = pb.RangeRequest(key=b"/registry/pods/", range_end=b"/registry/pods0")
    measure("range of 1,000 keys", lambda: store.open_range(plain), 2_000)
    keys_only = pb.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
    measure("range of 1,000 keys, keys only", lambda: store.open_range(keys_only), 500)
    txn = pb.TxnRequest(
        compare=[pb.Compare(key=key, target=pb.Compare.MOD, result=pb.Compare.GREATER)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=VALUE))],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    )
    parsed = txn_of(txn)
    measure("txn of a compare and a put", lambda: store.apply_txn(parsed), 50_000)
    with tempfile.TemporaryDirectory() as folder:
        measure_durable(Path(folder))


if __name__ == "__main__":
    main()
