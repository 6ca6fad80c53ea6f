"""Random KV requests over few keys, leases and revisions, so that they meet."""

from __future__ import annotations

from random import Random
from typing import Any

from etcdtw.wire import etcdserverpb as pb

KEYS = [b"a", b"a\0", b"ab", b"b", b"c", b"\xff"]
ENDS = [b"", b"", b"", b"\0", b"b", b"c", b"a", b"\xff\xff"]


class RandomRequests:
    """Random requests over few keys, so that they meet."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def range(self, revision: int) -> Any:
        random = self.random
        top = revision + 2
        return pb.RangeRequest(
            key=random.choice(KEYS),
            range_end=random.choice(ENDS),
            limit=random.choice([0, 0, 1, 2, -1]),
            revision=random.choice([0, 0, random.randint(-1, top)]),
            sort_order=random.choice([0, 0, 1, 2]),
            sort_target=random.choice([0, 0, 1, 2, 3, 4]),
            keys_only=random.random() < 0.2,
            count_only=random.random() < 0.1,
            min_mod_revision=random.choice([0, 0, 0, random.randint(1, top)]),
            max_mod_revision=random.choice([0, 0, 0, random.randint(1, top)]),
            min_create_revision=random.choice([0, 0, 0, random.randint(1, top)]),
            max_create_revision=random.choice([0, 0, 0, random.randint(1, top)]),
        )

    def put(self) -> Any:
        random = self.random
        ignores_value = random.random() < 0.15
        ignores_lease = random.random() < 0.15
        return pb.PutRequest(
            key=random.choice(KEYS),
            value=b"" if ignores_value else random.choice([b"", b"x", b"y" * 200]),
            lease=0 if ignores_lease else random.choice([0, 0, 0, 3, 7, 9]),
            prev_kv=random.random() < 0.5,
            ignore_value=ignores_value,
            ignore_lease=ignores_lease,
        )

    def delete(self) -> Any:
        random = self.random
        return pb.DeleteRangeRequest(
            key=random.choice(KEYS), range_end=random.choice(ENDS), prev_kv=random.random() < 0.5
        )

    def compare(self, revision: int) -> Any:
        random = self.random
        compare = pb.Compare(
            key=random.choice(KEYS),
            range_end=random.choice(ENDS),
            result=random.choice([0, 1, 2, 3, 3, 9]),
            target=random.choice([0, 1, 2, 3, 4, 9]),
        )
        name = random.choice(["version", "create_revision", "mod_revision", "lease", "value", ""])
        if name == "value":
            compare.value = random.choice([b"", b"x"])
        elif name:
            setattr(compare, name, random.randint(0, revision))  # protobuf
        return compare

    def txn(self, revision: int, depth: int = 0) -> Any:
        txn = pb.TxnRequest(
            compare=[self.compare(revision) for _ in range(self.random.choice([0, 1, 1, 2]))]
        )
        for ops in (txn.success, txn.failure):
            for _ in range(self.random.randint(0, 3)):
                self.op(ops.add(), revision, depth)
        return txn

    def op(self, op: Any, revision: int, depth: int) -> None:
        kind = self.random.random()
        if kind < 0.4:
            op.request_put.CopyFrom(self.put())
        elif kind < 0.6:
            op.request_delete_range.CopyFrom(self.delete())
        elif kind < 0.8 or depth == 2:
            op.request_range.CopyFrom(self.range(revision))
        else:
            op.request_txn.CopyFrom(self.txn(revision, depth + 1))
