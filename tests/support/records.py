"""Request records made comparable, whether they are compiled or not."""

from __future__ import annotations

from typing import Any

from etcdtw.wire.requests import Compare, Op, Put, Txn


def content(record: object) -> Any:
    """Return a record as nested tuples of its fields, in the order of their names."""
    if isinstance(record, Put | Compare | Op | Txn):
        names = [name for name in dir(type(record)) if not name.startswith("_")]
        return tuple(content(getattr(record, name)) for name in names)
    if isinstance(record, list):
        return [content(one) for one in record]
    return record
