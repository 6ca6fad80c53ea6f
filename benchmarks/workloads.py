"""The workloads of the side-by-side run: which requests, over how many connections and streams.

Keys are drawn from 100,000, values have 256 octets; the same seed for every side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final

from benchmarks.load import Work
from etcdtw.wire import etcdserverpb as pb
from tests.support import wire_frames as wire

KEYS: Final = 100_000
VALUE_OCTETS: Final = 256
MESSAGES: Final = 100_000  # rendered beforehand, then gone through in turn
SEED: Final = 20_220
PAGE: Final = 1000
SPREAD_PREFIX: Final = b"key/"  # the 100,000
THOUSAND_PREFIX: Final = b"thousand/"

KV: Final = "/etcdserverpb.KV/"


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the table."""

    name: str
    build: Callable[[], Work]
    connections: int = 100
    streams: int = 10
    uses_tls: bool = False


def key(i: int) -> bytes:
    """Return the ith of the keys; all have one length."""
    return SPREAD_PREFIX + b"%08d" % i


def _framed(message: Any) -> bytes:
    return wire.grpc_message(message.SerializeToString())


def _random_keys() -> list[bytes]:
    random = Random(SEED)
    return [key(random.randrange(KEYS)) for _ in range(MESSAGES)]


def _values() -> list[bytes]:
    random = Random(SEED + 1)
    return [random.randbytes(VALUE_OCTETS) for _ in range(1000)]


@cache
def put_messages() -> list[bytes]:
    """Return the rendered puts of random keys."""
    values = _values()
    return [
        _framed(pb.PutRequest(key=name, value=values[i % 1000]))
        for i, name in enumerate(_random_keys())
    ]


def put() -> Work:
    """Puts of random keys."""
    return Work(f"{KV}Put", put_messages())


def put_with_timeouts() -> Work:
    """The same puts, each with a grpc-timeout of its own."""
    return Work(f"{KV}Put", put_messages(), has_timeouts=True)


@cache
def _txn_messages() -> list[bytes]:
    values = _values()
    messages = []
    for i, name in enumerate(_random_keys()):
        exists = pb.Compare(
            key=name, target=pb.Compare.MOD, result=pb.Compare.NOT_EQUAL, mod_revision=0
        )
        write = pb.RequestOp(request_put=pb.PutRequest(key=name, value=values[i % 1000]))
        messages.append(_framed(pb.TxnRequest(compare=[exists], success=[write])))
    return messages


def txn() -> Work:
    """A compare (the key exists) and a put of the same key."""
    return Work(f"{KV}Txn", _txn_messages())


@cache
def _range_messages(serializable: bool) -> list[bytes]:
    return [
        _framed(pb.RangeRequest(key=name, serializable=serializable)) for name in _random_keys()
    ]


def linearizable_range() -> Work:
    """Ranges of one random key, agreed on by a quorum."""
    return Work(f"{KV}Range", _range_messages(False))


def serializable_range() -> Work:
    """Ranges of one random key, read locally."""
    return Work(f"{KV}Range", _range_messages(True))


def range_of_thousand() -> Work:
    """All of a prefix that holds exactly 1,000 keys."""
    end = THOUSAND_PREFIX[:-1] + b"0"
    return Work(f"{KV}Range", [_framed(pb.RangeRequest(key=THOUSAND_PREFIX, range_end=end))])


def first_page() -> Work:
    """The first 1,000 of 100,000 keys, with the exact count."""
    end = SPREAD_PREFIX[:-1] + b"0"
    request = pb.RangeRequest(key=SPREAD_PREFIX, range_end=end, limit=PAGE)
    return Work(f"{KV}Range", [_framed(request)])


def count_only() -> Work:
    """The count of the 100,000 keys, without any of them."""
    end = SPREAD_PREFIX[:-1] + b"0"
    request = pb.RangeRequest(key=SPREAD_PREFIX, range_end=end, count_only=True)
    return Work(f"{KV}Range", [_framed(request)])


def preload() -> Work:
    """Txns of 40 puts that store the 100,000 keys and the 1,000 of `range_of_thousand`."""
    names = [key(i) for i in range(KEYS)] + [THOUSAND_PREFIX + b"%04d" % i for i in range(PAGE)]
    return load_in_txns(names)


def load_in_txns(names: list[bytes], puts: int = 40) -> Work:
    """Return txns of ``puts`` puts each that store ``names`` with 256-octet values."""
    values = _values()
    messages = []
    for start in range(0, len(names), puts):
        writes = [
            pb.RequestOp(request_put=pb.PutRequest(key=name, value=values[(start + i) % 1000]))
            for i, name in enumerate(names[start : start + puts])
        ]
        messages.append(_framed(pb.TxnRequest(success=writes)))
    return Work(f"{KV}Txn", messages)


UNARY: Final = (
    Workload("range linearizable 100x10", linearizable_range),
    Workload("range serializable 100x10", serializable_range),
    Workload("range linearizable 1x1", linearizable_range, 1, 1),
    Workload("range of 1,000 keys 10x1", range_of_thousand, 10, 1),
    Workload("first page of 1,000 10x1", first_page, 10, 1),
    Workload("count of 100,000 10x1", count_only, 10, 1),
    Workload("put 100x10", put),
    Workload("put new timeouts 100x10", put_with_timeouts),
    Workload("put 1x1", put, 1, 1),
    Workload("txn 100x10", txn),
    Workload("put TLS 100x10", put, uses_tls=True),
)
