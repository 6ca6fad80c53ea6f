"""What is known of the fields of each message: made once of its descriptor.

Source: the JSON mapping of proto3; names come out as the protos spell them (``range_end``), and
are read so or in camel case.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from etcdtw.wire.encode import encode_varint

BOOL: Final = 0
ENUM: Final = 1
INT32: Final = 2
INT64: Final = 3
UINT32: Final = 4
UINT64: Final = 5
BYTES: Final = 6
STRING: Final = 7
MESSAGE: Final = 8
KIND_NAMES: Final = ("bool", "enum", "int32", "int64", "uint32", "uint64", "bytes", "string")
"""As error texts spell them."""

_KINDS: Final = {
    FieldDescriptor.TYPE_BOOL: BOOL,
    FieldDescriptor.TYPE_ENUM: ENUM,
    FieldDescriptor.TYPE_INT32: INT32,
    FieldDescriptor.TYPE_INT64: INT64,
    FieldDescriptor.TYPE_UINT32: UINT32,
    FieldDescriptor.TYPE_UINT64: UINT64,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_STRING: STRING,
    FieldDescriptor.TYPE_MESSAGE: MESSAGE,
}
_DELIMITED: Final = 2


class Field:
    """One field of a message."""

    __slots__ = (
        "_message",
        "_table",
        "enum_names",
        "enum_numbers",
        "first_key",
        "is_list",
        "is_packed",
        "is_shown_empty",
        "json_name",
        "kind",
        "name",
        "next_key",
        "number",
        "oneof",
        "tag",
        "wire_type",
    )

    def __init__(self, field: FieldDescriptor) -> None:
        self.number: int = field.number
        self.name: str = field.name
        self.json_name: str = field.json_name
        self.kind: int = _KINDS[field.type]
        self.is_list = _is_repeated(field)
        self.first_key = b'"%b":%b' % (field.name.encode(), b"[" if self.is_list else b"")
        """How JSON begins it as the first field of an object."""
        self.next_key = b"," + self.first_key
        self.is_packed = self.is_list and self.kind < BYTES
        self.is_shown_empty: bool = field.has_presence
        self.oneof: str | None = None
        """The full name of the one that it is of."""
        oneof = field.containing_oneof
        if oneof is not None:
            self.oneof = str(oneof.full_name)
        self.wire_type = _DELIMITED if self.kind >= BYTES or self.is_packed else 0
        self.tag = encode_varint(self.number << 3 | self.wire_type)
        self.enum_numbers: dict[str, int] = {}
        self.enum_names: dict[int, bytes] = {}
        if self.kind == ENUM:
            enum: Any = field.enum_type
            self.enum_numbers = {value.name: value.number for value in enum.values}
            self.enum_names = {value.number: b'"%b"' % value.name.encode() for value in enum.values}
        self._message: Any = field.message_type
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        """The fields of the message in it; messages may hold their like."""
        if self._table is None:
            self._table = _table_of(self._message)
        return self._table


class Table:
    """The fields of one message."""

    __slots__ = ("by_name", "by_tag", "full_name")

    def __init__(self, message: Descriptor) -> None:
        self.full_name: str = message.full_name
        fields = [Field(field) for field in message.fields]
        self.by_tag = {field.number << 3 | field.wire_type: field for field in fields}
        self.by_name = {field.json_name: field for field in fields}
        for described, field in zip(message.fields, fields, strict=True):
            self.by_name.setdefault(described.name, field)


def _is_repeated(field: Any) -> bool:
    # protobuf 7 has no labels, 5 has nothing else.
    told = getattr(field, "is_repeated", None)
    return field.label == FieldDescriptor.LABEL_REPEATED if told is None else bool(told)


@cache
def _table_of(message: Descriptor) -> Table:
    return Table(message)


def table_of(message_class: Any) -> Table:
    """Return the fields of the messages of a class."""
    return _table_of(message_class.DESCRIPTOR)
