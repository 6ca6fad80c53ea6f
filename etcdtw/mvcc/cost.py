"""What a request may add to the store's size, for the quota.

The numbers are etcd's: they decide which requests a member refuses before proposing them, and
(for a txn) which ones the NOSPACE alarm refuses at apply.
"""

from __future__ import annotations

from typing import Final

from etcdtw.wire.requests import Op, Put, Txn

PUT_OVERHEAD: Final = 256  # octets; etcd's estimate of what a key costs beside its content
LEASE_GRANT_COST: Final = 64  # octets


def put_cost(request: Put) -> int:
    """Return the cost of a put, whether or not it replaces a value."""
    return PUT_OVERHEAD + len(request.key) + len(request.value)


def txn_cost(request: Txn) -> int:
    """Return the cost of the dearer branch; 0 when neither can put."""
    return max(_ops_cost(request.success), _ops_cost(request.failure))


def _ops_cost(ops: list[Op]) -> int:
    cost = 0
    for op in ops:
        if op.put is not None:
            cost += put_cost(op.put)
        elif op.txn is not None:
            cost += txn_cost(op.txn)
    return cost
