"""SETTINGS by the letter: what is taken, ignored and refused, at each bound."""

from __future__ import annotations

import pytest

from etcdtw.http2 import frames
from etcdtw.http2.errors import FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, PeerError
from etcdtw.http2.limits import FRAME_SIZE_MAX, FRAME_SIZE_MIN, WINDOW_MAX
from etcdtw.http2.settings import TABLE_SIZE_DEFAULT, PeerSettings, read_settings

UNKNOWN = 0x99


def octets(*settings: tuple[int, int]) -> bytes:
    return b"".join([frames.SETTING.pack(*one) for one in settings])


def read(*settings: tuple[int, int], client: bool = False) -> PeerSettings:
    return read_settings(octets(*settings), PeerSettings(), client)


def test_an_empty_frame_changes_nothing() -> None:
    assert read() == PeerSettings()


def test_later_values_of_one_frame_win_and_unknown_ones_are_ignored() -> None:
    found = read(
        (frames.SETTINGS_MAX_CONCURRENT_STREAMS, 7),
        (UNKNOWN, 1),
        (frames.SETTINGS_MAX_CONCURRENT_STREAMS, 9),
    )
    assert found == PeerSettings(max_concurrent_streams=9)


def test_the_lowest_table_of_a_frame_is_kept_beside_the_last() -> None:
    found = read(
        (frames.SETTINGS_HEADER_TABLE_SIZE, 100), (frames.SETTINGS_HEADER_TABLE_SIZE, 8_192)
    )
    assert (found.header_table_size, found.lowest_table_size) == (8_192, 100)
    later = read_settings(octets((frames.SETTINGS_HEADER_TABLE_SIZE, 9_000)), found, client=False)
    assert (later.header_table_size, later.lowest_table_size) == (9_000, 8_192)
    assert read().lowest_table_size == TABLE_SIZE_DEFAULT


@pytest.mark.parametrize("size", [1, 5, 7])
def test_a_frame_that_ends_amid_a_setting_is_refused(size: int) -> None:
    with pytest.raises(PeerError) as refused:
        read_settings(bytes(size), PeerSettings(), client=False)
    assert refused.value.code == FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    ("identifier", "good", "bad", "code"),
    [
        (frames.SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_MAX, WINDOW_MAX + 1, FLOW_CONTROL_ERROR),
        (frames.SETTINGS_MAX_FRAME_SIZE, FRAME_SIZE_MIN, FRAME_SIZE_MIN - 1, PROTOCOL_ERROR),
        (frames.SETTINGS_MAX_FRAME_SIZE, FRAME_SIZE_MAX, FRAME_SIZE_MAX + 1, PROTOCOL_ERROR),
        (frames.SETTINGS_ENABLE_PUSH, 1, 2, PROTOCOL_ERROR),
    ],
)
def test_a_value_on_its_bound_is_taken_and_one_past_it_refused(
    identifier: int, good: int, bad: int, code: int
) -> None:
    read((identifier, good))
    with pytest.raises(PeerError) as refused:
        read((identifier, bad))
    assert refused.value.code == code


def test_a_server_offers_no_push_to_a_client() -> None:
    read((frames.SETTINGS_ENABLE_PUSH, 0), client=True)
    with pytest.raises(PeerError) as refused:
        read((frames.SETTINGS_ENABLE_PUSH, 1), client=True)
    assert refused.value.code == PROTOCOL_ERROR
