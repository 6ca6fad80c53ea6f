"""What may differ between two correct members, all in one place; everything else is a difference.

- Ids and raft fields (cluster_id, member_id, raft_term) name the member, not the answer.
- Remaining TTLs are read at two moments: within one second.
- The order of ties under a sort by another target than the key, and of lease and attached-key
  lists, is not promised: compared as sets.
- etcd 3.7 loses the leases of keys that are told without values (docs/departures.md).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential import operations as ops

TTL_TOLERANCE_S: Final = 1

SORT_KEYS: Final[dict[int, Any]] = {
    pb.RangeRequest.KEY: lambda kv: kv.key,
    pb.RangeRequest.VERSION: lambda kv: kv.version,
    pb.RangeRequest.CREATE: lambda kv: kv.create_revision,
    pb.RangeRequest.MOD: lambda kv: kv.mod_revision,
    pb.RangeRequest.VALUE: lambda kv: kv.value,
}


@dataclass(slots=True)
class Answer:
    """What one member said: a status, and the response when the status is OK."""

    code: int
    text: str
    response: Any
    shape: str = ""
    """The encoding of what came back, and of a stream how it ended."""

    def describe(self) -> str:
        if self.code != 0:
            return f"status {self.code}: {self.text!r}"
        text = str(self.response)
        shown = text if len(text) <= 6000 else f"{text[:6000]}... ({len(text)} characters)"
        return f"{self.shape}\n{shown}"


def strip_identity(response: Any) -> None:
    """Clear what names the answering member in the header of ``response``."""
    if not response.HasField("header"):
        return
    header = response.header
    header.ClearField("cluster_id")
    header.ClearField("member_id")
    header.ClearField("raft_term")


def answers_agree(path: str, request: Any, left: Answer, right: Answer) -> bool:
    """Say whether two members gave the same answer to ``request``.

    Both answers are changed: their identity is cleared.
    """
    if path == ops.HASH_KV and _hash_was_not_kept(request, left, right):
        return True
    if (left.code, left.text, left.shape) != (right.code, right.text, right.shape):
        return False
    if left.response is None or right.response is None:
        return left.response is right.response
    strip_identity(left.response)
    strip_identity(right.response)
    if left.response == right.response:
        return True
    compare = _COMPARISONS.get(path)
    return compare is not None and bool(compare(request, left.response, right.response))


def _hash_was_not_kept(request: Any, left: Answer, right: Answer) -> bool:
    """Say whether one member alone kept the hash of a compaction.

    etcd keeps none of a compaction that came while the one before was under way; asked for it, it
    refuses later on, or hashes what there is.
    """
    kept = [one for one in (left, right) if _is_kept_hash(request, one)]
    others = [one for one in (left, right) if not _is_kept_hash(request, one)]
    return len(kept) == 1 and (
        others[0].text.endswith("has been compacted")
        or (others[0].code == 0 and others[0].response.compact_revision == request.revision)
    )


def _is_kept_hash(request: Any, answer: Answer) -> bool:
    return answer.code == 0 and answer.response.compact_revision < request.revision


# -- responses ---------------------------------------------------------------------------------


def ranges_agree(request: Any, left: Any, right: Any) -> bool:
    """Compare two RangeResponses; ties under a sort by another target are a set."""
    if (left.count, left.more, len(left.kvs)) != (right.count, right.more, len(right.kvs)):
        return False
    if left.header != right.header:
        return False
    if request.keys_only:
        # etcd 3.7 loses the leases of keys without values (docs/departures.md).
        for kv in (*left.kvs, *right.kvs):
            kv.ClearField("lease")
    if list(left.kvs) == list(right.kvs):
        return True
    if request.sort_target == pb.RangeRequest.KEY:
        return False
    # keys_only takes the values away after the sort by value: no order is left to check.
    order = SORT_KEYS[request.sort_target]
    if [order(kv) for kv in left.kvs] != [order(kv) for kv in right.kvs]:
        return False
    left_set = {_octets(kv) for kv in left.kvs}
    right_set = {_octets(kv) for kv in right.kvs}
    if left_set == right_set:
        return True
    if not left.more:
        return False
    # The limit cut through a group of ties: any of them may stand at the end.  Also without an
    # order: one key more than the limit is fetched, sorted by the target, and then cut.
    last = order(left.kvs[-1])
    cut = {_octets(kv) for kv in (*left.kvs, *right.kvs) if order(kv) == last}
    return left_set - cut == right_set - cut


def _octets(message: Any) -> bytes:
    octets: bytes = message.SerializeToString(deterministic=True)
    return octets


def txns_agree(request: Any, left: Any, right: Any) -> bool:
    """Compare two TxnResponses, range by range where octets differ."""
    if left.header != right.header or left.succeeded != right.succeeded:
        return False
    branch = request.success if left.succeeded else request.failure
    if not len(branch) == len(left.responses) == len(right.responses):
        return False
    return all(map(_op_responses_agree, branch, left.responses, right.responses))


def _op_responses_agree(request: Any, left: Any, right: Any) -> bool:
    if left == right:
        return True
    kind = left.WhichOneof("response")
    if kind != right.WhichOneof("response"):
        return False
    if kind == "response_range":
        return ranges_agree(request.request_range, left.response_range, right.response_range)
    if kind == "response_txn":
        return txns_agree(request.request_txn, left.response_txn, right.response_txn)
    return False


def time_to_lives_agree(request: Any, left: Any, right: Any) -> bool:
    """Compare two LeaseTimeToLiveResponses: TTL within a second, keys as a set."""
    return bool(
        left.header == right.header
        and left.ID == right.ID
        and left.grantedTTL == right.grantedTTL
        and abs(left.TTL - right.TTL) <= TTL_TOLERANCE_S
        and Counter(left.keys) == Counter(right.keys)
    )


def lease_lists_agree(request: Any, left: Any, right: Any) -> bool:
    """Compare two LeaseLeasesResponses as sets."""
    return left.header == right.header and Counter(lease.ID for lease in left.leases) == Counter(
        lease.ID for lease in right.leases
    )


def hashes_agree(request: Any, left: Any, right: Any) -> bool:
    """Compare two HashKVResponses; only 3.6 and later fill hash_revision."""
    return (left.header, left.hash, left.compact_revision) == (
        right.header,
        right.hash,
        right.compact_revision,
    )


_COMPARISONS: Final[dict[str, Any]] = {
    ops.RANGE: ranges_agree,
    ops.RANGE_STREAM: ranges_agree,
    ops.TXN: txns_agree,
    ops.TIME_TO_LIVE: time_to_lives_agree,
    ops.LEASES: lease_lists_agree,
    ops.HASH_KV: hashes_agree,
}


# -- watches -----------------------------------------------------------------------------------


def created_agree(left: Any, right: Any) -> bool:
    """Compare the answers to a WatchCreateRequest (with their revision: nothing else runs)."""
    strip_identity(left)
    strip_identity(right)
    return bool(left == right)


def canceled_agree(left: Any, right: Any) -> bool:
    """Compare two responses that end a watcher; the header's revision is not part of them."""
    return bool(
        (left.watch_id, left.canceled, left.compact_revision, left.cancel_reason)
        == (right.watch_id, right.canceled, right.compact_revision, right.cancel_reason)
    )
