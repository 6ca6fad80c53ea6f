"""What a log line says of a request: etcd's texts, with sizes in the place of values.

Go has two texts of a message.  Puts, and compares of values, have the older one: octets that are no
ASCII in octal, and a space behind each field.  All else has the newer one: text as it is, other
octets in hex, and two spaces between fields (one or two, by the build: etcd 3.7.3's has two).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Compare, Op, Put, Txn

KEY_SIZE_MAX: Final = 1024
"""Octets of a key that are shown."""
OPERATIONS_MAX: Final = 128
"""Of one list that are shown: etcd's default for all of a txn."""
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_TARGETS: Final = ("", "CREATE", "MOD", "VALUE", "LEASE")
_RESULTS: Final = ("", "GREATER", "LESS", "NOT_EQUAL")
_OPERANDS: Final = ("version", "create_revision", "mod_revision", "value", "lease")
_VALUE: Final = 3


def put_text(put: Put) -> str:
    """Return what is told of a put."""
    fields = (
        ("key", _older(put.key) if put.key else ""),
        ("value_size", _number(len(put.value))),
        ("lease", _number(put.lease)),
        ("prev_kv", _truth(put.prev_kv)),
        ("ignore_value", _truth(put.ignore_value)),
        ("ignore_lease", _truth(put.ignore_lease)),
    )
    return "".join([f"{name}:{value} " for name, value in fields if value])


def txn_text(txn: Txn) -> str:
    """Return what is told of a txn."""
    compares = " ".join([_compare_text(one) for one in txn.compare[:OPERATIONS_MAX]])
    return f"compare:<{compares}> success:<{_ops(txn.success)}> failure:<{_ops(txn.failure)}>"


def message_text(message: Any) -> str:
    """Return the text of a range or a delete, which hold no values."""
    return "  ".join([f"{field.name}:{_text(field, one)}" for field, one in message.ListFields()])


def op_size(op: Op) -> int:
    """Return the octets of an operation of a txn, as its client has sent them."""
    if op.put is not None:
        put = op.put
        message = pb.PutRequest(
            key=put.key,
            value=put.value,
            lease=put.lease,
            prev_kv=put.prev_kv,
            ignore_value=put.ignore_value,
            ignore_lease=put.ignore_lease,
        )
        return pb.RequestOp(request_put=message).ByteSize()
    if op.range is not None:
        return pb.RequestOp(request_range=op.range).ByteSize()
    if op.delete_range is not None:
        return pb.RequestOp(request_delete_range=op.delete_range).ByteSize()
    return sum(map(op_size, op.txn.success + op.txn.failure)) if op.txn is not None else 0


def duration_text(seconds: float) -> str:
    """Return a time as Go writes it: ``564.085µs``, ``312ms``, ``1.5s``; minutes are not made."""
    nanoseconds = round(seconds * 1e9)
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if nanoseconds >= size:
            whole, rest = divmod(nanoseconds, size)
            digits = str(rest).zfill(len(str(size)) - 1).rstrip("0")
            return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"
    return f"{nanoseconds}ns" if nanoseconds > 0 else "0s"


def _ops(ops: Sequence[Op]) -> str:
    return " ".join([_op_text(one) for one in ops[:OPERATIONS_MAX]])


def _op_text(op: Op) -> str:
    if op.put is not None:
        return f"request_put:<{put_text(op.put)}>"
    if op.txn is not None:
        return f"request_txn:<{txn_text(op.txn)}>"
    if op.range is not None:
        return f"request_range:{{{message_text(op.range)}}}"
    if op.delete_range is not None:
        return f"request_delete_range:{{{message_text(op.delete_range)}}}"
    return ""


def _compare_text(compare: Compare) -> str:
    is_value = compare.target == _VALUE
    quote = _older if is_value else _newer
    target = _name(_TARGETS, compare.target)
    result = _name(_RESULTS, compare.result)
    operand = str(compare.number)
    if is_value:
        operand = _number(len(compare.value))
    name = _OPERANDS[compare.target] if 0 <= compare.target < len(_OPERANDS) else "version"
    fields = [
        ("result", result),
        ("target", target),
        ("key", quote(compare.key) if compare.key else ""),
        ("value_size" if is_value else name, operand),
        ("range_end", quote(compare.range_end) if compare.range_end else ""),
    ]
    texts = [f"{name}:{value}" for name, value in fields if value]
    return "".join([f"{one} " for one in texts]) if is_value else "  ".join(texts)


def _name(names: Sequence[str], number: int) -> str:
    """Return the name of an enum's value; empty: the one that is not told."""
    return names[number] if 0 <= number < len(names) else str(number)


def _number(value: int) -> str:
    return str(value) if value else ""


def _truth(value: bool) -> str:
    return "true" if value else ""


def _text(field: Any, value: Any) -> str:
    if isinstance(value, bytes):
        return _newer(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    return str(value)


def _older(octets: bytes) -> str:
    shown = [
        _SHORT.get(chr(one)) or (chr(one) if 0x20 <= one < 0x7F else f"\\{one:03o}")
        for one in octets[:KEY_SIZE_MAX]
    ]
    return f'"{"".join(shown)}"'


def _newer(octets: bytes) -> str:
    text = octets[:KEY_SIZE_MAX].decode("utf-8", "surrogateescape")
    return f'"{"".join([_newer_letter(letter) for letter in text])}"'


def _newer_letter(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # an octet that is no text
    if letter in _SHORT:
        return _SHORT[letter]
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if 0x80 <= code <= 0x9F else letter
