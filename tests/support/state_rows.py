"""States with something of everything, and all that their tables hold."""

from __future__ import annotations

from pathlib import Path
from random import Random

from etcdtw.storage.disk.directory import DATA_FILE, open_environment
from etcdtw.storage.rows.codec import FORMAT_BEFORE, ROW_FORMAT, TABLE_HISTORY, TABLE_PRIVATE
from etcdtw.storage.rows.seal import opened_rows
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.open import open_state
from etcdtw.wire.mvccpb import KeyValue
from tests.support.page_map import PAGE, pages_in_use

MAP_SIZE = 1 << 27
INDEX, TERM = 77, 3
CONF_STATE = b'{"voters":[1],"auto_leave":false}'
Rows = dict[bytes, list[tuple[bytes, bytes]]]


def fail(reason: str) -> None:
    raise AssertionError(reason)


def make_state(path: Path, seed: int, steps: int = 400) -> int:
    """Write a state of random puts and deletes; return its revision."""
    random = Random(seed)
    state = open_state(path, fail, map_size=MAP_SIZE)
    prefix = b"long" * 120
    names = [b"k%03d" % i for i in range(60)]
    names += [prefix + b"%d" % i for i in range(5)] + [prefix, b"z" * 480, b"z" * 481]
    live: dict[bytes, KeyValue] = {}
    for main in range(2, 2 + steps):
        for sub in range(random.choice((1, 1, 3))):
            key = random.choice(names)
            old = live.pop(key, None)
            if old is not None and old.lease:
                state.detach(old.lease, key)
            if old is not None and random.random() < 0.3:
                state.delete(main, sub, key)
                continue
            record = KeyValue(
                key=key,
                create_revision=main if old is None else old.create_revision,
                mod_revision=main,
                version=1 if old is None else old.version + 1,
                value=random.randbytes(random.choice((0, 5, 50, 1000, 5000))),
                lease=random.choice((0, 0, 5, 1 << 62)),
            )
            state.put(main, sub, key, record.SerializeToString(), old is None)
            live[key] = record
            if record.lease:
                state.attach(record.lease, key)
    for lease_id in (5, 1 << 62):
        state.bucket_put(b"lease", lease_id.to_bytes(8, "big"), b"\x08\x05\x10\x3c")
    state.bucket_put(b"cluster", b"clusterVersion", b"3.5.0")
    state.bucket_put(b"members", b"1", b"{}")
    state.bucket_put(b"meta", b"confState", CONF_STATE)
    state.set_applied(INDEX, TERM)
    state.flush(lambda: None)
    revision = state.revision
    state.close()
    return revision


def open_tables(path: Path, map_size: int = MAP_SIZE) -> Tables:
    return Tables(open_environment(path, map_size, DATABASES_MAX))


def rows_of(tables: Tables) -> Rows:
    """Return all rows by table, without their seals and without the format."""
    with tables.env.begin() as txn:
        stored = {name: list(txn.cursor(handle)) for name, handle in tables.handles.items()}
    return {name: opened_rows(name, rows) for name, rows in stored.items()}


def unseal(path: Path) -> None:
    """Make the state one of format 1, as earlier builds wrote it."""
    tables = open_tables(path)
    with tables.env.begin(write=True) as txn:
        for name, handle in tables.handles.items():
            plain = opened_rows(name, list(txn.cursor(handle)))
            if name == TABLE_PRIVATE:
                plain.append((ROW_FORMAT, FORMAT_BEFORE))
            txn.drop(handle, delete=False)
            txn.cursor(handle).putmulti(plain)
    tables.env.close()


def flip(path: Path, table: bytes, name: bytes, octet: int = -1) -> None:
    """Flip a bit in an octet of the stored value of a row."""
    tables = open_tables(path)
    with tables.env.begin(write=True) as txn:
        stored = txn.get(name, db=tables.handles[table])
        assert stored is not None, "no such row"
        txn.delete(name, stored, db=tables.handles[table])
        spoilt = bytearray(stored)
        spoilt[octet] ^= 16
        txn.put(name, bytes(spoilt), db=tables.handles[table])
    tables.env.close()


def hide_versions(path: Path, name: bytes, count: int) -> None:
    """Have the head of the inner page of a key's versions say fewer."""
    file = path / DATA_FILE
    octets = bytearray(file.read_bytes())
    tables = open_tables(path)
    with tables.env.begin() as txn:
        versions = txn.cursor(tables.handles[TABLE_HISTORY])
        assert versions.set_key(name)
        first, had = versions.value(), versions.count()
    tables.env.close()
    pages = [page for page in pages_in_use(file) if first in octets[page * PAGE :][:PAGE]]
    lower_at = next(
        at - 4
        for page in pages
        if (at := octets.index(first, page * PAGE)) - page * PAGE > 16
        and int.from_bytes(octets[at - 4 : at - 2], "little") == 16 + 2 * had
    )
    octets[lower_at : lower_at + 2] = (16 + 2 * (had - count)).to_bytes(2, "little")
    with file.open("r+b") as stream:
        stream.write(octets)
