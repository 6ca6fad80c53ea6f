"""Pages of a key's versions: a sound one shows all, and no flipped bit of a head hides any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from etcdtw.storage.rows.codec import DEAD, LIVE, TABLE_HISTORY, encode_version
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.version_page import page_around, shows_all

HEAD_SIZE = 16
NAMES = (b"a", b"few", b"many", b"n" * 480)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[lmdb.Environment]:
    env = lmdb.open(str(tmp_path), map_size=1 << 26, max_dbs=2, sync=False)
    yield env
    env.close()


def open_table(env: lmdb.Environment) -> Any:
    return env.open_db(TABLE_HISTORY, dupsort=True, dupfixed=True)


def version(name: bytes, main: int) -> bytes:
    return SEALS[TABLE_HISTORY].closed(name, encode_version(main, 0, (LIVE, DEAD)[main % 2]))


def unseen(env: lmdb.Environment, table: Any) -> list[tuple[bytes, bytes]]:
    with env.begin(buffers=True) as txn:
        return [
            (bytes(name), bytes(value))
            for name, value in txn.cursor(table)
            if not shows_all(*page_around(value), bytes(name))
        ]


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_page_shows_all_of_its_versions(env: lmdb.Environment, seed: int) -> None:
    """Whatever was put and compacted: as single rows, on inner pages, on pages of their own."""
    random = Random(seed)
    table = open_table(env)
    live: list[tuple[bytes, bytes]] = []
    main = 0
    for _ in range(120):
        with env.begin(write=True) as txn:
            rows = []
            for _ in range(random.choice((1, 5, 40))):
                main += 1
                name = random.choices(NAMES, (1, 4, 30, 2))[0]
                rows.append((name, version(name, main)))
            if random.random() < 0.5:
                txn.cursor(table).putmulti(sorted(rows))
                live += rows
            else:
                for _ in range(min(len(live), random.choice((1, 20, 60)))):
                    one = live.pop(random.choice((0, random.randrange(len(live)))))
                    txn.delete(one[0], one[1], db=table)
        assert unseen(env, table) == []


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8, 60, 150, 1000])
def test_no_flipped_bit_of_a_head_hides_versions(env: lmdb.Environment, count: int) -> None:
    table = open_table(env)
    rows = [(b"key", version(b"key", main)) for main in range(count)]
    with env.begin(write=True) as txn:
        txn.cursor(table).putmulti([*rows, (b"other", version(b"other", 1))])
    with env.begin(buffers=True) as txn:
        cursor = txn.cursor(table)
        cursor.set_key(b"key")
        page, at = page_around(cursor.value())
    assert shows_all(page, at, b"key")
    for bit in range(8 * 8, 8 * HEAD_SIZE):  # its number says nothing
        spoilt = bytearray(page)
        spoilt[at - HEAD_SIZE + bit // 8] ^= 1 << bit % 8
        says = int.from_bytes(spoilt[at - 4 : at - 2], "little")
        was = int.from_bytes(page[at - 4 : at - 2], "little")
        if says < was or spoilt[at - 8 : at - 6] != page[at - 8 : at - 6]:
            assert not shows_all(bytes(spoilt), at, b"key"), bit


def test_a_row_of_one_version_hides_none(env: lmdb.Environment) -> None:
    table = open_table(env)
    with env.begin(write=True) as txn:
        txn.put(b"key", version(b"key", 1), db=table)
    with env.begin(buffers=True) as txn:
        cursor = txn.cursor(table)
        cursor.set_key(b"key")
        page, at = page_around(cursor.value())
    assert shows_all(page, at, b"key")
    assert not shows_all(page, at, b"other")
    assert not shows_all(bytes(len(page)), at, b"key")
