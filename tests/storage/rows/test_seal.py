"""The checksums of the rows of `state/`."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.storage.rows.codec import TABLE_CURRENT, TABLE_KEY
from etcdtw.storage.rows.seal import SEAL_SIZE, SEALS, StateDamageError

SEAL = SEALS[TABLE_CURRENT]


def some_rows(count: int) -> list[tuple[bytes, bytes]]:
    random = Random(count)
    return [
        (b"name%d" % i, random.randbytes(random.choice((0, 1, 3, 40, 1000)))) for i in range(count)
    ]


def test_a_sealed_row_opens_to_its_value() -> None:
    for name, value in some_rows(50):
        stored = SEAL.closed(name, value)
        assert len(stored) == len(value) + SEAL_SIZE
        assert SEAL.opened(name, stored) == value


def test_every_flipped_bit_of_name_and_value_is_found() -> None:
    name, value = b"name", b"some value"
    stored = SEAL.closed(name, value)
    whole = int.from_bytes(name + stored, "big")
    size = len(name) + len(stored)
    for bit in range(8 * size):
        octets = (whole ^ (1 << bit)).to_bytes(size, "big")
        with pytest.raises(StateDamageError):
            SEAL.opened(octets[: len(name)], octets[len(name) :])


def test_a_row_of_another_table_or_of_another_name_is_found() -> None:
    stored = SEALS[TABLE_KEY].closed(b"name", b"value")
    with pytest.raises(StateDamageError, match="`current`"):
        SEAL.opened(b"name", stored)
    with pytest.raises(StateDamageError, match="b'eman'"):
        SEAL.opened(b"eman", SEAL.closed(b"name", b"value"))


@pytest.mark.parametrize("size", range(SEAL_SIZE))
def test_what_is_shorter_than_a_seal_is_no_row(size: int) -> None:
    assert not SEAL.is_whole(b"", bytes(size))
    with pytest.raises(StateDamageError):
        SEAL.opened(b"", bytes(size))


def test_rows_are_checked_in_one_go_and_the_damaged_one_is_named() -> None:
    rows = some_rows(100)
    stored = SEAL.rows(rows)
    assert stored == [(name, SEAL.closed(name, value)) for name, value in rows]
    assert SEAL.opened_rows(stored) == rows
    assert SEAL.opened_rows([]) == []
    name, value = stored[70]
    stored[70] = (name, value[:-1] + bytes((value[-1] ^ 4,)))
    with pytest.raises(StateDamageError) as caught:
        SEAL.opened_rows(stored)
    assert caught.value.name == name
