"""What calls about keys can be told, by name; `keys` says what it means."""

from __future__ import annotations

from typing import TypedDict

from etcdtw.client.keys import Key, SortTarget


class PutOptions(TypedDict, total=False):
    """See `keys.put_request`."""

    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool


class DeleteOptions(TypedDict, total=False):
    """See `keys.delete_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    prev_kv: bool


class RangeOptions(TypedDict, total=False):
    """See `keys.range_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    limit: int
    revision: int
    sort: SortTarget | None
    descending: bool
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class WatchOptions(TypedDict, total=False):
    """See `watch.watch_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    start_revision: int
    prev_kv: bool
    no_puts: bool
    no_deletes: bool
    progress_notify: bool
    fragment: bool
