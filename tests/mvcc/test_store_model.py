"""The store against a naive model, under random requests.

The model keeps a whole dict of messages for each revision and evaluates requests by the letter
of etcd's rules, so that every response can be compared octet for octet.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from etcdtw.mvcc.errors import MvccError
from etcdtw.mvcc.store import WORK_BOUNDS, Store
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.mvccpb import KeyValue
from etcdtw.wire.requests import put_of, txn_of
from tests.mvcc.random_requests import RandomRequests
from tests.support.late_answers import apply_txn
from tests.support.model_backend import ModelBackend

View = dict[bytes, KeyValue]
LEASES = (3, 7)


class RefusedError(Exception):
    """The model refuses; the argument names the store's error class."""


def in_range(key: bytes, start: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == start
    return key >= start and (range_end == b"\0" or key < range_end)


class Model:
    """All views there ever were."""

    def __init__(self) -> None:
        self.views: list[View] = [{}, {}]  # by main revision; 1 is the empty store
        self.compact_revision = -1

    @property
    def revision(self) -> int:
        return len(self.views) - 1

    def range(self, request: Any, view: View, current: int) -> Any:
        if request.revision > current:
            raise RefusedError("FutureRevisionError")
        if 0 < request.revision < self.compact_revision:
            raise RefusedError("CompactedError")
        if 0 < request.revision < current:
            view = self.views[request.revision]
        kvs = [view[k] for k in sorted(view) if in_range(k, request.key, request.range_end)]
        response = pb.RangeResponse(count=len(kvs))
        if request.count_only:
            return response
        limit = request.limit if request.limit > 0 else 10**9
        has_filters = False
        for name in ("mod_revision", "create_revision"):
            least = getattr(request, "min_" + name)
            most = getattr(request, "max_" + name)
            has_filters = has_filters or bool(least or most)
            kvs = [kv for kv in kvs if not least or getattr(kv, name) >= least]
            kvs = [kv for kv in kvs if not most or getattr(kv, name) <= most]
        name = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
        if request.sort_order == 0 and name != "key" and not has_filters:
            kvs = kvs[: limit + 1]
        if request.sort_order or name != "key":
            kvs = sorted(kvs, key=lambda kv: getattr(kv, name), reverse=request.sort_order == 2)
        response.more = len(kvs) > limit
        for kv in kvs[:limit]:
            copy = response.kvs.add()
            copy.CopyFrom(kv)
            if request.keys_only:
                copy.value = b""
        return response

    def compare(self, compare: Any) -> bool:
        view = self.views[-1]
        kvs = [view[k] for k in view if in_range(k, compare.key, compare.range_end)]
        if not kvs:
            if compare.target == 3:
                return False
            kvs = [KeyValue()]
        names = {0: "version", 1: "create_revision", 2: "mod_revision", 3: "value", 4: "lease"}
        name = names.get(compare.target)
        for kv in kvs:
            stored = getattr(kv, name) if name else 0
            given = getattr(compare, name) if name else 0
            outcomes = {0: stored == given, 1: stored > given, 2: stored < given}
            outcomes[3] = stored != given
            if not outcomes.get(compare.result, True):
                return False
        return True

    def plan(self, txn: Any) -> Any:
        """Return (succeeded, ops with nested plans in place of nested txns), all checked."""
        succeeded = all(self.compare(compare) for compare in txn.compare)
        plan: list[Any] = []
        for op in txn.success if succeeded else txn.failure:
            plan.append(self.plan(op.request_txn) if op.HasField("request_txn") else op)
        return succeeded, plan

    def check(self, plan: Any) -> None:
        self.check_ops(plan, set(self.views[-1]))

    def check_ops(self, plan: Any, live: set[bytes]) -> None:
        for op in plan[1]:
            if isinstance(op, tuple):
                self.check_ops(op, live)
            elif op.HasField("request_put"):
                self.check_lease(op.request_put)
                self.check_kept(op.request_put, live)
            elif op.HasField("request_delete_range"):
                request = op.request_delete_range
                live -= {k for k in live if in_range(k, request.key, request.range_end)}
            elif op.request_range.revision:
                if op.request_range.revision > self.revision:
                    raise RefusedError("FutureRevisionError")
                if op.request_range.revision < self.compact_revision:
                    raise RefusedError("CompactedError")

    def check_lease(self, put: Any) -> None:
        if put.lease and put.lease not in LEASES:
            raise RefusedError("LeaseNotFoundError")

    def check_kept(self, put: Any, live: set[bytes]) -> None:
        if (put.ignore_value or put.ignore_lease) and put.key not in live:
            raise RefusedError("KeyNotFoundError")


class Attempt:
    """One entry's changes on a copy of the newest view."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.view = dict(model.views[-1])
        self.events: list[tuple[bytes, bool, bytes]] = []

    @property
    def now(self) -> int:
        return self.model.revision + (1 if self.events else 0)

    def finish(self) -> None:
        if self.events:
            self.model.views.append(self.view)

    def put(self, put: Any) -> Any:
        main = self.model.revision + 1
        old = self.view.get(put.key)
        kv = KeyValue(key=put.key, create_revision=main, version=1)
        kv.value, kv.lease, kv.mod_revision = put.value, put.lease, main
        if old is not None:
            kv.create_revision, kv.version = old.create_revision, old.version + 1
            kv.value = old.value if put.ignore_value else put.value
            kv.lease = old.lease if put.ignore_lease else put.lease
        self.view[put.key] = kv
        self.events.append((put.key, False, kv.SerializeToString()))
        return pb.PutResponse(prev_kv=old if put.prev_kv else None)

    def delete(self, request: Any) -> Any:
        response = pb.DeleteRangeResponse()
        for key in sorted(self.view):
            if in_range(key, request.key, request.range_end):
                old = self.view.pop(key)
                response.deleted += 1
                if request.prev_kv:
                    response.prev_kvs.add().CopyFrom(old)
                tombstone = KeyValue(key=key, mod_revision=self.model.revision + 1)
                self.events.append((key, True, tombstone.SerializeToString()))
        return response

    def run(self, plan: Any) -> Any:
        response = pb.TxnResponse(succeeded=plan[0])
        for op in plan[1]:
            out = response.responses.add()
            if isinstance(op, tuple):
                out.response_txn.CopyFrom(self.run(op))
                out.response_txn.header.SetInParent()
            elif op.HasField("request_put"):
                out.response_put.CopyFrom(self.put(op.request_put))
                out.response_put.header.revision = self.now
            elif op.HasField("request_delete_range"):
                out.response_delete_range.CopyFrom(self.delete(op.request_delete_range))
                out.response_delete_range.header.revision = self.now
            else:
                found = self.model.range(op.request_range, self.view, self.now)
                out.response_range.CopyFrom(found)
                out.response_range.header.revision = self.now
        return response


class Rig:
    """A store and its model, side by side."""

    def __init__(self, seed: int, bounds: WorkBounds = WORK_BOUNDS) -> None:
        self.backend = ModelBackend()
        self.store = Store(self.backend, LEASES.__contains__, bounds)
        self.store.has_watchers = True
        self.model = Model()
        self.requests = RandomRequests(Random(seed))

    def step(self) -> None:
        kind = self.requests.random.random()
        if kind < 0.3:
            self.put(self.requests.put())
        elif kind < 0.4:
            self.delete(self.requests.delete())
        elif kind < 0.65:
            self.txn(self.requests.txn(self.model.revision))
        elif kind < 0.95:
            self.range(self.requests.range(self.model.revision))
        elif kind < 0.97:
            self.revoke(self.requests.random.choice(LEASES))
        else:
            self.compact(self.requests.random.randint(-1, self.model.revision + 1))
        assert self.store.revision == self.model.revision
        self.agree_on_leases()

    def agree_on_leases(self) -> None:
        for lease in LEASES:
            keys = [k for k, kv in sorted(self.model.views[-1].items()) if kv.lease == lease]
            assert self.backend.attached(lease) == keys

    def settle(self, applied: Any, expected: Any, attempt: Attempt | None) -> None:
        if isinstance(expected, RefusedError):
            assert type(applied.error).__name__ == str(expected)
            assert applied.body == b""
        else:
            assert applied.error is None
            assert applied.body == expected.SerializeToString()
        if attempt is not None:
            attempt.finish()
        assert applied.revision == self.model.revision
        assert self.store.take_events() == (attempt.events if attempt else [])

    def put(self, request: Any) -> None:
        attempt = Attempt(self.model)
        applied = self.store.apply_put(put_of(request))
        try:
            self.model.check_lease(request)
            self.model.check_kept(request, set(self.model.views[-1]))
        except RefusedError as refused:
            self.settle(applied, refused, None)
            return
        self.settle(applied, attempt.put(request), attempt)

    def delete(self, request: Any) -> None:
        attempt = Attempt(self.model)
        self.settle(self.store.apply_delete_range(request), attempt.delete(request), attempt)

    def txn(self, request: Any) -> None:
        attempt = Attempt(self.model)
        plan = self.model.plan(request)
        applied = apply_txn(self.store, txn_of(request))
        try:
            self.model.check(plan)
        except RefusedError as refused:
            self.settle(applied, refused, None)
            return
        self.settle(applied, attempt.run(plan), attempt)

    def revoke(self, lease: int) -> None:
        attempt = Attempt(self.model)
        for key in self.backend.attached(lease):
            attempt.delete(pb.DeleteRangeRequest(key=key))
        applied = self.store.delete_attached(self.backend.attached(lease)[::-1])
        assert applied is not None
        self.settle(applied, pb.LeaseRevokeResponse(), attempt)

    def compact(self, revision: int) -> None:
        applied = self.store.apply_compaction(pb.CompactionRequest(revision=revision))
        if revision <= self.model.compact_revision:
            assert type(applied.error).__name__ == "CompactedError"
        elif revision > self.model.revision:
            assert type(applied.error).__name__ == "FutureRevisionError"
        else:
            assert applied.error is None
            self.model.compact_revision = revision
        assert self.store.compact_revision == self.model.compact_revision

    def range(self, request: Any) -> None:
        try:
            expected = self.model.range(request, self.model.views[-1], self.model.revision)
        except RefusedError as refused:
            name = str(refused)
            with pytest.raises(MvccError, match="revision") as caught:
                self.store.range(request)
            assert caught.type.__name__ == name
            return
        body = expected.SerializeToString()
        assert self.store.range(request) == body
        assert self.store.open_range(request, b"head") == b"head" + body


@pytest.mark.parametrize("seed", range(40))
def test_every_outcome_is_the_models_under_random_requests(seed: int) -> None:
    rig = Rig(seed)
    for _ in range(50):
        rig.step()


@pytest.mark.parametrize("rows_max", [0, 1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_txns_that_take_steps_come_to_the_same(seed: int, rows_max: int) -> None:
    bounds = WorkBounds(
        txn_rows_max=rows_max, slice_keys_max=2, slice_past_keys_max=2, long_keys_min=2
    )
    rig = Rig(seed, bounds)
    for _ in range(40):
        if rig.requests.random.random() < 0.5:
            rig.put(rig.requests.put())
        else:
            rig.txn(rig.requests.txn(rig.model.revision))
