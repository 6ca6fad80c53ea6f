"""Whatever shape keys, values and leases have: apply, the writer and a reopened state agree.

The writer process ends the member when a commit fails, so nothing that a request can hold may
make one fail.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.mvcc.store import Store
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.state_rebuild import verify
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.model_backend import ModelBackend

MAP_SIZE = 1 << 24  # small: commits have to grow it
KEY_SIZES = (1, 2, 471, 472, 473, 479, 480, 481, 482, 511, 512, 1000, 65_535, 70_000)
VALUE_SIZES = (0, 1, 900, 1023, 1024, 1025, 4096, 100_000, 1_572_000)
LEASES = (0, 1, -1, 7, (1 << 63) - 1, -(1 << 63), 1 << 32, -(1 << 32))
FILLS = (b"\x00", b"\x01", b"a", b"\x7f", b"\x80", b"\xff")

keys = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.builds(
        lambda fill, size, tail: (fill * size)[: max(size - len(tail), 0)] + tail or fill,
        st.sampled_from(FILLS),
        st.sampled_from(KEY_SIZES),
        st.sampled_from((b"", b"\x00", b"\xff", b"b", b"\x00\x00")),
    ),
)
puts = st.builds(
    lambda key, size, fill, lease: pb.PutRequest(key=key, value=fill * size, lease=lease),
    keys,
    st.sampled_from(VALUE_SIZES),
    st.sampled_from(FILLS),
    st.sampled_from(LEASES),
)
deletes = st.builds(
    lambda key, end: pb.DeleteRangeRequest(key=key, range_end=end),
    keys,
    st.one_of(st.just(b""), st.just(b"\x00"), keys),
)
requests = st.one_of(
    puts,
    puts,
    deletes,
    st.sampled_from(LEASES).filter(bool),  # the end of a lease
    st.none(),  # a commit
)


class Both:
    """The same requests to the state on disk and to the model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = self.open()
        self.model = ModelBackend()
        self.backends: tuple[LmdbState | ModelBackend, ...] = (self.state, self.model)
        self.stores = [Store(backend, lambda lease_id: True) for backend in self.backends]
        self.index = 0

    def open(self) -> LmdbState:
        return open_state(self.path, pytest.fail, map_size=MAP_SIZE)

    def apply(self, request: pb.PutRequest | pb.DeleteRangeRequest | int | None) -> None:
        self.index += 1
        if request is None:
            self.state.flush(lambda: None)
            return
        bodies = []
        for store, backend in zip(self.stores, self.backends, strict=True):
            if isinstance(request, int):
                applied = store.delete_attached(backend.attached(request))
                assert applied is not None
            elif isinstance(request, pb.PutRequest):
                applied = store.apply_put(put_of(request))
            else:
                applied = store.apply_delete_range(request)
            bodies.append((applied.revision, applied.body))
            backend.set_applied(self.index, 1)
        assert bodies[0] == bodies[1]

    def compare(self) -> None:
        state, model = self.state, self.model
        assert [bytes(f) for f in state.frames(b"", None)] == model.frames(b"", None)
        assert state.keys(b"", None) == model.keys(b"", None)
        assert state.count(b"", None) == model.count(b"", None)
        assert state.changes_from(1, 0, 1 << 40, 1 << 20) == model.changes_from(
            1, 0, 1 << 40, 1 << 20
        )
        for lease in LEASES:
            assert state.attached(lease) == model.attached(lease)
        hashes: list[object] = []
        for backend in (state, model):
            backend.hash_kv(self.stores[1].revision, -1, hashes.append)
        assert hashes[0] == hashes[1]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(requests, min_size=1, max_size=25))
def test_no_request_makes_a_commit_fail(
    sequence: list[pb.PutRequest | pb.DeleteRangeRequest | int | None],
) -> None:
    with tempfile.TemporaryDirectory(prefix="etcdtw-shapes-") as directory:
        both = Both(Path(directory) / "state")
        for request in sequence:
            both.apply(request)
        both.compare()
        both.state.flush(lambda: None)
        both.compare()
        both.state.close()
        both.state = both.open()
        both.compare()
        both.state.close()
        tables = Tables(open_environment(both.path, MAP_SIZE << 6, DATABASES_MAX))
        assert verify(tables) == []
        tables.env.close()
