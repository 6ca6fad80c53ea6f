"""What a log line says of a request: etcd's texts, with sizes in the place of values.

Go has two texts of a message.  Puts, and compares of values, have the older one: octets that are no
ASCII in octal, and a space behind each field.  All else has the newer one: text as it is, other
octets in hex, and two spaces between fields (one or two, by the build: etcd 3.7.3's has two).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Compare, Op, Put, Txn

KEY_SIZE_MAX: Final = 1024
"""Octets of a key that are shown."""
OPERATIONS_MAX: Final = 128
"""Of one list that are shown: etcd's default for all of a txn."""
TXN_OPERATIONS_MAX: Final = 3 * OPERATIONS_MAX
"""Of a whole txn that are shown, nested ones and compares among them."""
TXN_TEXT_SIZE_MAX: Final = 32 * 1024
"""Letters of a txn's text after which no operation is begun: a millisecond."""
SIZED_MAX: Final = 1_000
"""Operations whose sizes are added up: some milliseconds."""
_SHORT: Final = {ord(one): rf"\{name}" for one, name in zip('\n\r\t"\\', 'nrt"\\', strict=True)}
_CONTROLS: Final = (*range(0x20), 0x7F)
_OLDER: Final = {one: f"\\{one:03o}" for one in (*_CONTROLS, *range(0x80, 0x100))} | _SHORT
_NEWER: Final = (
    {one: f"\\x{one:02x}" for one in _CONTROLS}
    | {one: f"\\u{one:04x}" for one in range(0x80, 0xA0)}
    | {0xDC00 + one: f"\\x{one:02x}" for one in range(0x80, 0x100)}  # octets that are no text
    | _SHORT
)
_T = TypeVar("_T")
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
    """Return what is told of a txn; of one with very many or very large operations, the first."""
    return _TxnText().of(txn)


def message_text(message: Any) -> str:
    """Return the text of a range or a delete, which hold no values."""
    return "  ".join([f"{field.name}:{_text(field, one)}" for field, one in message.ListFields()])


def operations_size(ops: Sequence[Op], whole: int) -> int:
    """Return the octets of operations of a txn, as its client has sent them.

    With more than `SIZED_MAX`, nested ones among them, ``whole``: the octets of the request.
    """
    waiting = [*ops]
    size = 0
    for _ in range(SIZED_MAX):
        if not waiting:
            return size
        op = waiting.pop()
        if op.txn is not None:
            waiting += op.txn.success
            waiting += op.txn.failure
        else:
            size += _size(op)
    return whole if waiting else size


def _size(op: Op) -> int:
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
    return pb.RequestOp(request_delete_range=op.delete_range).ByteSize()


def duration_text(seconds: float) -> str:
    """Return a time as Go writes it: ``564.085µs``, ``312ms``, ``1.5s``; minutes are not made."""
    nanoseconds = round(seconds * 1e9)
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if nanoseconds >= size:
            whole, rest = divmod(nanoseconds, size)
            digits = str(rest).zfill(len(str(size)) - 1).rstrip("0")
            return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"
    return f"{nanoseconds}ns" if nanoseconds > 0 else "0s"


class _TxnText:
    """The text of one txn, and how much more of it there may be."""

    def __init__(self) -> None:
        self._operations_left = TXN_OPERATIONS_MAX
        self._letters_left = TXN_TEXT_SIZE_MAX

    def of(self, txn: Txn) -> str:
        compares = self._list(txn.compare, _compare_text)
        success = self._list(txn.success, self._op)
        failure = self._list(txn.failure, self._op)
        return f"compare:<{compares}> success:<{success}> failure:<{failure}>"

    def _list(self, parts: Sequence[_T], text_of: Callable[[_T], str]) -> str:
        texts: list[str] = []
        for one in parts[:OPERATIONS_MAX]:
            if self._operations_left <= 0 or self._letters_left <= 0:
                break
            self._operations_left -= 1
            texts.append(text_of(one))
            self._letters_left -= len(texts[-1])
        return " ".join(texts)

    def _op(self, op: Op) -> str:
        if op.put is not None:
            return f"request_put:<{put_text(op.put)}>"
        if op.txn is not None:
            return f"request_txn:<{self.of(op.txn)}>"
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
    return f'"{octets[:KEY_SIZE_MAX].decode("latin-1").translate(_OLDER)}"'


def _newer(octets: bytes) -> str:
    text = octets[:KEY_SIZE_MAX].decode("utf-8", "surrogateescape")
    return f'"{text if text.isascii() and text.isalnum() else text.translate(_NEWER)}"'
