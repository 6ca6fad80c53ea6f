"""Puts and txns as plain records, parsed without protobuf where the octets have the usual shape.

A txn is looked at five times between its client and its response, and each look at a protobuf
message makes objects anew; these are made once.  Octets of an unusual shape (fields twice, out of
order or unknown) are left to protobuf, so that what a request means is decided there alone.

Source: etcd v3 api, PutRequest, TxnRequest, RequestOp and Compare.
"""

from __future__ import annotations

from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb

_OPERAND_TAGS: Final = (0x20, 0x28, 0x30, 0x3A, 0x40)
"""Compare's fields with the operand, by target: version, create, mod, value, lease."""
_VALUE_TAG: Final = 0x3A
_RANGE_END_TAG: Final = 64 << 3 | 2
_RANGE_TAGS: Final = (0x0A, 0x12, *range(0x18, 0x70, 8))
"""All fields of a RangeRequest: two of octets, then eleven numbers."""
_DELETE_RANGE_TAGS: Final = (0x0A, 0x12, 0x18)
_DEPTH_MAX: Final = 200
"""Txns within txns that are parsed here: more than the 128 operations of etcd's default admit.
Protobuf itself, to which the rest is left, ends at 49."""
_NUMBER_MAX: Final = 0x7FFFFFFF
_LEASE_ID_TAG: Final = 0x08  # of a LeaseKeepAliveRequest
_UNUSUAL: Final = -1


class Put:
    """A PutRequest."""

    __slots__ = ("ignore_lease", "ignore_value", "key", "lease", "prev_kv", "value")

    def __init__(
        self,
        key: bytes,
        value: bytes = b"",
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> None:
        self.key = key
        self.value = value
        self.lease = lease
        self.prev_kv = prev_kv
        self.ignore_value = ignore_value
        self.ignore_lease = ignore_lease


class Compare:
    """A Compare.  ``number`` is the operand of every target but the value's.

    An operand of another target's field counts as zero, as protobuf's oneof has it.
    """

    __slots__ = ("key", "number", "range_end", "result", "target", "value")

    def __init__(
        self, key: bytes, range_end: bytes, target: int, result: int, number: int, value: bytes
    ) -> None:
        self.key = key
        self.range_end = range_end
        self.target = target
        self.result = result
        self.number = number
        self.value = value


class Op:
    """A RequestOp: one of the four is set, or none."""

    __slots__ = ("delete_range", "put", "range", "txn")

    def __init__(
        self,
        put: Put | None = None,
        range: pb.RangeRequest | None = None,
        delete_range: pb.DeleteRangeRequest | None = None,
        txn: Txn | None = None,
    ) -> None:
        self.put = put
        self.range = range
        self.delete_range = delete_range
        self.txn = txn


class Txn:
    """A TxnRequest."""

    __slots__ = ("compare", "failure", "success")

    def __init__(self, compare: list[Compare], success: list[Op], failure: list[Op]) -> None:
        self.compare = compare
        self.success = success
        self.failure = failure


# From protobuf's messages.


def put_of(message: pb.PutRequest) -> Put:
    """Return ``message`` as a record."""
    return Put(
        message.key,
        message.value,
        message.lease,
        message.prev_kv,
        message.ignore_value,
        message.ignore_lease,
    )


def txn_of(message: pb.TxnRequest) -> Txn:
    """Return ``message``, with everything in it, as records."""
    return Txn(
        [_compare_of(compare) for compare in message.compare],
        [_op_of(op) for op in message.success],
        [_op_of(op) for op in message.failure],
    )


def plain(message: Any) -> Any:
    """Return a put or a txn as a record, any other request as it is."""
    if isinstance(message, pb.PutRequest):
        return put_of(message)
    return txn_of(message) if isinstance(message, pb.TxnRequest) else message


def _compare_of(message: pb.Compare) -> Compare:
    target = int(message.target)
    number = 0
    if target == pb.Compare.VERSION:
        number = message.version
    elif target == pb.Compare.CREATE:
        number = message.create_revision
    elif target == pb.Compare.MOD:
        number = message.mod_revision
    elif target == pb.Compare.LEASE:
        number = message.lease
    value = message.value if target == pb.Compare.VALUE else b""
    return Compare(message.key, message.range_end, target, int(message.result), number, value)


def _op_of(message: pb.RequestOp) -> Op:
    name = message.WhichOneof("request")
    if name == "request_put":
        return Op(put_of(message.request_put))
    if name == "request_range":
        return Op(range=message.request_range)
    if name == "request_delete_range":
        return Op(delete_range=message.request_delete_range)
    return Op(txn=txn_of(message.request_txn)) if name == "request_txn" else Op()


# From octets.


def parse_put(octets: bytes) -> Put:
    """Return the PutRequest in ``octets``.  Raises protobuf's ``DecodeError``."""
    found = usual_put(octets)
    return put_of(pb.PutRequest.FromString(octets)) if found is None else found


def parse_txn(octets: bytes) -> Txn:
    """Return the TxnRequest in ``octets``.  Raises protobuf's ``DecodeError``."""
    found = usual_txn(octets)
    return txn_of(pb.TxnRequest.FromString(octets)) if found is None else found


def usual_put(octets: bytes) -> Put | None:
    """Return the PutRequest in ``octets`` if every implementation reads the same in them."""
    return _parse_put(octets, 0, len(octets))


def usual_txn(octets: bytes) -> Txn | None:
    """As `usual_put`, of a TxnRequest.  Raises protobuf's ``DecodeError``."""
    return _parse_txn(octets, 0, len(octets), _DEPTH_MAX)


def usual_lease_id(octets: bytes) -> int:
    """Return the id that a LeaseKeepAliveRequest names; a negative number: its shape is unusual."""
    size = len(octets)
    if size < 2 or octets[0] != _LEASE_ID_TAG:
        return _UNUSUAL
    number = _number(octets, 1, size)
    return number if number >= 0 and _behind(octets, 1) == size else _UNUSUAL


def _number(octets: bytes, at: int, end: int) -> int:
    """Return a varint below 2**63 at ``at``; `_UNUSUAL` for others."""
    number = 0
    shift = 0
    while at < end and shift < 63:
        octet = octets[at]
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number
        at += 1
        shift += 7
    return _UNUSUAL


def _behind(octets: bytes, at: int) -> int:
    """Return the position behind the varint at ``at``, which `_number` has read."""
    while octets[at] >= 0x80:
        at += 1
    return at + 1


def _parse_put(octets: bytes, at: int, end: int) -> Put | None:
    """Return the put in ``octets[at:end]``; None when its shape is unusual."""
    put = Put(b"")
    last_field = 0
    while at < end:
        tag = octets[at]
        field = tag >> 3
        if field <= last_field or tag >= 0x80:
            return None
        last_field = field
        number = _number(octets, at + 1, end)
        if number < 0:
            return None
        at = _behind(octets, at + 1)
        if tag == 0x0A or tag == 0x12:
            start = at
            at += number
            if at > end:
                return None
            if tag == 0x0A:
                put.key = octets[start:at]
            else:
                put.value = octets[start:at]
        elif tag == 0x18:
            put.lease = number
        elif tag == 0x20:
            put.prev_kv = number != 0
        elif tag == 0x28:
            put.ignore_value = number != 0
        elif tag == 0x30:
            put.ignore_lease = number != 0
        else:
            return None
    return put


def _parse_txn(octets: bytes, at: int, end: int, depth: int) -> Txn | None:
    """Return the txn in ``octets[at:end]``; None when its shape is unusual."""
    txn = Txn([], [], [])
    while at < end:
        tag = octets[at]
        number = _number(octets, at + 1, end)
        if number < 0 or depth == 0:
            return None
        start = _behind(octets, at + 1)
        at = start + number
        if at > end:
            return None
        if tag == 0x0A:
            compare = _parse_compare(octets, start, at)
            if compare is None:
                return None
            txn.compare.append(compare)
        elif tag == 0x12 or tag == 0x1A:
            op = _parse_op(octets, start, at, depth)
            if op is None:
                return None
            (txn.success if tag == 0x12 else txn.failure).append(op)
        else:
            return None
    return txn


def _parse_op(octets: bytes, at: int, end: int, depth: int) -> Op | None:
    if at == end:
        return Op()
    tag = octets[at]
    number = _number(octets, at + 1, end)
    if number < 0:
        return None
    start = _behind(octets, at + 1)
    if start + number != end:
        return None
    if tag == 0x12:
        put = _parse_put(octets, start, end)
        return None if put is None else Op(put)
    if tag == 0x0A:
        if not _are_all(octets, start, end, _RANGE_TAGS):
            return None
        return Op(range=pb.RangeRequest.FromString(octets[start:end]))
    if tag == 0x1A:
        if not _are_all(octets, start, end, _DELETE_RANGE_TAGS):
            return None
        request = pb.DeleteRangeRequest.FromString(octets[start:end])
        return Op(delete_range=request)
    if tag == 0x22:
        txn = _parse_txn(octets, start, end, depth - 1)
        return None if txn is None else Op(txn=txn)
    return None


class _Fields:
    """Goes over the fields in ``octets[at:end]`` as long as they ascend and have a usual shape."""

    def __init__(self, octets: bytes, at: int, end: int) -> None:
        self.octets = octets
        self.at = at
        """Behind the field that was read last."""
        self._end = end
        self._tag = 0
        self.number = 0
        """That of the field, or its length."""
        self.start = at
        """Where its octets begin."""

    def next_tag(self) -> int:
        """Read the next field and return its tag; 0: there is none; `_UNUSUAL`."""
        octets = self.octets
        at = self.at
        end = self._end
        if at >= end:
            return 0
        tag = _number(octets, at, end)
        if tag < 0 or tag >> 3 <= self._tag >> 3:
            return _UNUSUAL
        at = _behind(octets, at)
        number = _number(octets, at, end)
        if number < 0:
            return _UNUSUAL
        at = _behind(octets, at)
        self._tag = tag
        self.number = number
        self.start = at
        if tag & 7 == 2:
            at += number
            if at > end:
                return _UNUSUAL
        elif tag & 7 != 0:
            return _UNUSUAL
        self.at = at
        return tag


def _are_all(octets: bytes, at: int, end: int, tags: tuple[int, ...]) -> bool:
    """Tell whether the fields in ``octets[at:end]`` ascend and are all of ``tags``."""
    fields = _Fields(octets, at, end)
    tag = fields.next_tag()
    while tag > 0:
        if tag not in tags:
            return False
        tag = fields.next_tag()
    return tag == 0


def _parse_compare(octets: bytes, at: int, end: int) -> Compare | None:
    fields = _Fields(octets, at, end)
    compare = Compare(b"", b"", 0, 0, 0, b"")
    operand_field = 0
    tag = fields.next_tag()
    while tag > 0:
        if tag == 0x1A:
            compare.key = octets[fields.start : fields.at]
        elif tag == _RANGE_END_TAG:
            compare.range_end = octets[fields.start : fields.at]
        elif tag == _VALUE_TAG and operand_field == 0:
            operand_field = tag
            compare.value = octets[fields.start : fields.at]
        elif _is_number_taken(compare, tag, fields.number, operand_field):
            if tag > 0x10:
                operand_field = tag
        else:
            return None
        tag = fields.next_tag()
    if tag < 0:
        return None
    if operand_field != 0 and operand_field != _operand_tag(compare.target):
        compare.number = 0
        compare.value = b""
    return compare


def _is_number_taken(compare: Compare, tag: int, number: int, operand_field: int) -> bool:
    """Set the result, the target or an operand that is a number; False: the shape is unusual."""
    if tag == 0x08 or tag == 0x10:
        if number > _NUMBER_MAX:
            return False
        if tag == 0x08:
            compare.result = number
        else:
            compare.target = number
        return True
    compare.number = number
    return operand_field == 0 and (tag == 0x20 or tag == 0x28 or tag == 0x30 or tag == 0x40)


def _operand_tag(target: int) -> int:
    """Return the tag of the operand that ``target`` looks at; 0: it looks at none."""
    return _OPERAND_TAGS[target] if target < len(_OPERAND_TAGS) else 0
