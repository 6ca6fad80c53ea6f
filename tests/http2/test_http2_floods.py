"""What a hostile peer can make us do is bounded: each limit at its edge and one past it."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest

from etcdtw.http2 import errors, events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.events import Event
from etcdtw.http2.frames import encode_ping, encode_reset, encode_settings, encode_window_update
from etcdtw.http2.hpack import encode_block
from etcdtw.http2.limits import Limits
from tests.http2.frame_rig import (
    BLOCK,
    END,
    FIELDS,
    HEAD,
    TRAILERS,
    WHOLE,
    data,
    frame,
    headers,
    new_server,
    written,
)

OPAQUE = b"12345678"
CALM = errors.ENHANCE_YOUR_CALM
FREE = Limits(keepalive_enforced=False)


def is_calmed(found: list[Event], text: bytes | None = None) -> bool:
    if not found or found[-1][:2] != (events.CLOSED, CALM):
        return False
    return text is None or found[-1][2] == text


def count_until_calmed(
    server: Connection, make: Callable[[int], bytes], most: int, now_ms: int = 0
) -> int:
    """Feed one piece after the other; return how many passed before the connection closed."""
    for i in range(most):
        if is_calmed(server.receive(make(i), now_ms)):
            return i
        server.take_output()
    return most


def reset_pair(i: int) -> bytes:
    return headers(2 * i + 1) + encode_reset(2 * i + 1, errors.CANCEL)


def test_rapid_reset_ends_at_the_burst() -> None:
    server = new_server(Limits(resets_burst=10))
    assert count_until_calmed(server, reset_pair, 20) == 10
    assert server.stats.resets_in == 11


def test_resets_at_the_rate_of_the_bucket_go_on() -> None:
    server = new_server(Limits(resets_burst=1, resets_per_s=10))
    for i in range(50):
        assert not is_calmed(server.receive(reset_pair(i), i * 100))
    assert is_calmed(server.receive(reset_pair(50), 49 * 100 + 99))


def test_made_you_reset_counts_like_a_reset_of_the_peer() -> None:
    server = new_server(Limits(resets_burst=10))

    def provoke(i: int) -> bytes:
        return headers(2 * i + 1) + encode_window_update(2 * i + 1, 0)

    assert count_until_calmed(server, provoke, 20) == 10
    malformed = encode_block(FIELDS[:2])
    server = new_server(Limits(resets_burst=10))
    assert count_until_calmed(server, lambda i: headers(2 * i + 1, malformed), 20) == 10


def test_settings_flood() -> None:
    server = new_server(Limits(settings_burst=10))
    # The client's first SETTINGS took one.
    assert count_until_calmed(server, lambda i: encode_settings(()), 20) == 9


@pytest.mark.parametrize(
    "piece",
    [
        encode_window_update(0, 1),
        frame(frames.PRIORITY, 1, b"\0" * 5),
        frame(0xEE, 0, b""),
        data(1, b"", 0),
        frame(frames.GOAWAY, 0, b"\0" * 8),
        encode_ping(OPAQUE, ack=True),
    ],
    ids=["WINDOW_UPDATE", "PRIORITY", "unknown", "empty DATA", "GOAWAY", "unasked PING ACK"],
)
def test_frames_that_carry_nothing_are_counted(piece: bytes) -> None:
    server = new_server(Limits(idle_frames_burst=10, idle_frames_per_work=0))
    server.receive(headers(1), 0)
    assert count_until_calmed(server, lambda i: piece, 20) == 10


def test_work_earns_window_updates() -> None:
    server = new_server(Limits(idle_frames_burst=4, idle_frames_per_s=0, idle_frames_per_work=2))
    for i in range(50):
        stream_id = 2 * i + 1
        update = encode_window_update(0, 1) * 4
        found = server.receive(headers(stream_id) + data(stream_id, b"x") + update, 0)
        assert not is_calmed(found)
        server.reply(stream_id, HEAD, b"y", TRAILERS)


def test_a_window_opened_octet_by_octet_earns_nothing() -> None:
    server = new_server(Limits(idle_frames_burst=10))
    server.receive(encode_settings(((4, 0),)) + headers(1) + data(1, b"x"), 0)
    server.reply(1, HEAD, b"y" * 1_000, TRAILERS)
    server.take_output()
    assert count_until_calmed(server, lambda i: encode_window_update(1, 1), 30) == 10


@pytest.mark.parametrize(("size", "passed"), [(1_024, 30), (1_023, 10)])
def test_pieces_of_some_size_earn_the_updates_that_let_them_go(size: int, passed: int) -> None:
    server = new_server(Limits(idle_frames_burst=10, idle_frames_per_work=1))
    server.receive(encode_settings(((4, 0),)) + headers(1) + data(1, b"x"), 0)
    server.reply(1, HEAD, b"y" * 60_000, TRAILERS)
    assert count_until_calmed(server, lambda i: encode_window_update(1, size), 30) == passed


def test_a_ping_flood_without_keepalive_policy_ends_at_the_burst() -> None:
    server = new_server(Limits(keepalive_enforced=False, pings_burst=10))
    assert count_until_calmed(server, lambda i: encode_ping(OPAQUE), 20) == 10


def test_pings_without_a_stream_get_two_strikes_after_the_first() -> None:
    server = new_server()
    assert count_until_calmed(server, lambda i: encode_ping(OPAQUE), 20, 1_000) == 3
    kind, _, _, payload = written(server)[-1]
    assert kind == frames.GOAWAY
    assert payload[8:] == b"too_many_pings"


def ping_every(server: Connection, gap_ms: int, count: int = 10) -> int:
    for i in range(count):
        if is_calmed(server.receive(encode_ping(OPAQUE), i * gap_ms), b"too_many_pings"):
            return i
    return count


def test_keepalive_pings_at_the_least_gap_pass_and_one_millisecond_less_does_not() -> None:
    for gap_ms, passed in ((5_000, 10), (4_999, 3)):
        server = new_server()
        server.receive(headers(1), 0)
        assert ping_every(server, gap_ms) == passed


def test_keepalive_without_stream_needs_two_hours_or_permission() -> None:
    assert ping_every(new_server(), 7_200_000) == 10
    assert ping_every(new_server(), 7_199_999) == 3
    permitted = Limits(keepalive_permit_without_stream=True)
    assert ping_every(new_server(permitted), 5_000) == 10
    assert ping_every(new_server(permitted), 4_999) == 3


def test_strikes_allowed_are_configurable() -> None:
    assert ping_every(new_server(Limits(keepalive_strikes_max=0)), 1) == 1


def test_pings_that_follow_our_data_are_free() -> None:
    server = new_server(Limits(pings_burst=1, pings_per_s=0))
    server.receive(headers(1), 0)
    server.send_headers(1, HEAD)
    for _ in range(100):
        server.send_data(1, b"watch event")
        assert not is_calmed(server.receive(encode_ping(OPAQUE), 0))


def test_a_client_does_not_judge_its_servers_pings() -> None:
    client = Connection(client=True, limits=Limits(pings_burst=100))
    client.begin()
    client.receive(encode_settings(()), 0)
    assert count_until_calmed(client, lambda i: encode_ping(OPAQUE), 200) == 100


def test_streams_over_the_limit_are_refused_and_the_rest_goes_on() -> None:
    server = new_server(Limits(max_concurrent_streams=2))
    assert len(server.receive(headers(1) + data(1, b"x") + headers(3) + data(3, b"x"), 0)) == 2
    server.take_output()
    assert server.receive(headers(5) + data(5, b"x"), 0) == []
    assert written(server) == [(frames.RST_STREAM, 0, 5, pack(">I", errors.REFUSED_STREAM))]
    assert server.stats.refused == 1
    server.reply(1, HEAD, b"", TRAILERS)
    assert len(server.receive(headers(7) + data(7, b"x"), 0)) == 1
    assert server.open_streams == 2


def test_a_flood_of_streams_over_the_limit_ends_at_the_burst() -> None:
    server = new_server(Limits(max_concurrent_streams=0, idle_frames_burst=10))
    assert count_until_calmed(server, lambda i: headers(2 * i + 1) + data(2 * i + 1), 20) == 10


def test_resets_that_cross_our_answer_cost_no_reset_token() -> None:
    server = new_server(Limits(resets_burst=1, resets_per_s=0))
    for stream_id in range(1, 201, 2):
        server.receive(headers(stream_id) + data(stream_id, b"x"), 0)
        server.reply(stream_id, HEAD, b"y", TRAILERS)
        assert not is_calmed(server.receive(encode_reset(stream_id, errors.CANCEL), 0))
    server = new_server(Limits(idle_frames_burst=10, idle_frames_per_work=0))
    server.receive(headers(1) + encode_reset(1, errors.CANCEL), 0)
    assert count_until_calmed(server, lambda i: encode_reset(1, errors.CANCEL), 20) == 10


def advertised(limits: Limits) -> bytes:
    server = Connection(limits=limits)
    server.begin()
    return server.take_output()


def test_limits_are_advertised() -> None:
    assert pack(">HI", 3, 10_000) in advertised(Limits())
    assert pack(">HI", 3, 4_294_967_295) in advertised(Limits(max_concurrent_streams=2**32 - 1))
    assert pack(">HI", 5, 20_000) in advertised(Limits(frame_size_max=20_000))
    assert pack(">HI", 1, 0) in advertised(Limits(header_table_size=0))
    assert pack(">HI", 4, 1_048_576) in advertised(Limits())
    default = Limits(connection_window=65_535)
    assert not advertised(default).endswith(encode_window_update(0, 0))


def test_a_frame_at_the_size_limit_passes() -> None:
    server = new_server(Limits(frame_size_max=20_000))
    (found,) = server.receive(headers(1) + data(1, b"x" * 20_000), 0)
    assert len(found[3]) == 20_000
    found = server.receive(headers(3) + data(3, b"x" * 20_001), 0)[-1]
    assert found[:2] == (events.CLOSED, errors.FRAME_SIZE_ERROR)


def test_the_size_is_judged_before_the_payload_is_buffered() -> None:
    server = new_server()
    found = server.receive(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", 0)
    assert found == [(events.CLOSED, errors.FRAME_SIZE_ERROR, b"frame too large")]


def continuations(count: int, piece: bytes = b"") -> bytes:
    octets = headers(1, BLOCK, 0)
    for _ in range(count - 1):
        octets += frame(frames.CONTINUATION, 1, piece)
    return octets + frame(frames.CONTINUATION, 1, b"", WHOLE)


def test_continuation_frames_at_the_limit_pass_and_one_more_does_not() -> None:
    limits = Limits(continuation_count_max=4)
    assert new_server(limits).receive(continuations(4), 0)[0][0] == events.HEADERS
    assert is_calmed(new_server(limits).receive(continuations(5), 0))


def test_a_block_at_the_size_limit_passes_and_one_octet_more_does_not() -> None:
    limits = Limits(header_block_size_max=100)
    filler = b"\x00\x01a" + bytes((100 - len(BLOCK) - 4,)) + b"v" * (100 - len(BLOCK) - 4)
    for tail in (b"", data(1, b"x")):
        assert new_server(limits).receive(headers(1, BLOCK + filler) + tail, 0)[0][1] == 1
        over = headers(1, BLOCK + filler + b"\x82") + tail
        assert is_calmed(new_server(limits).receive(over, 0))
    pieces = headers(1, BLOCK, 0) + frame(frames.CONTINUATION, 1, filler + b"\x82")
    assert is_calmed(new_server(limits).receive(pieces, 0))


@pytest.mark.parametrize("tail", [b"", data(1, b"x")])
def test_a_header_list_over_its_limit_resets_its_stream_only(tail: bytes) -> None:
    limits = Limits(header_list_size_max=1_000)
    # A bomb: one literal into the table, then many references to it.
    bomb = BLOCK + b"\x40\x01a\x64" + b"v" * 100 + b"\xbe" * 50
    server = new_server(limits)
    assert server.receive(headers(1, bomb) + tail, 0) == []
    assert (frames.RST_STREAM, 0, 1, pack(">I", CALM)) in written(server)
    (found,) = server.receive(headers(3, BLOCK + b"\xbe") + data(3, b"x"), 0)
    assert found[2].fields[-1] == (b"a", b"v" * 100)
    server.receive(headers(5), 0)
    assert server.receive(headers(5, b"\xbe" * 50, WHOLE | END), 0) == [(events.RESET, 5, CALM)]


def test_a_list_of_more_fields_than_any_may_have_ends_the_connection() -> None:
    assert is_calmed(new_server(Limits()).receive(headers(1, BLOCK + b"\x82" * 5_000), 0))


def has_more(server: Connection) -> bool:
    return server.has_more


def test_frames_beyond_those_asked_for_wait_for_the_next_call() -> None:
    server = new_server(Limits())
    packet = b"".join(headers(stream_id) + data(stream_id, b"x") for stream_id in (1, 3, 5))
    found = server.receive(packet + headers(7)[:12], 0, 2)
    assert [event[1] for event in found] == [1, 3]
    assert has_more(server)
    assert [event[1] for event in server.receive(headers(7)[12:], 0, 2)] == [5, 7]
    assert not has_more(server)
    assert server.receive(b"", 0, 2) == []


def test_long_header_blocks_count_as_several_frames() -> None:
    server = new_server(Limits())
    long = BLOCK + b"\x00\x01a\x7f\xc1\x3d" + b"v" * 8_000
    found = server.receive(headers(1, long) + headers(3, long), 0, 8)
    assert [event[1] for event in found] == [1]
    assert has_more(server)
    assert [event[1] for event in server.receive(b"", 0, 8)] == [3]


def test_control_answers_that_nobody_takes_away_close_at_their_bound() -> None:
    limits = Limits(control_octets_max=9 + 17 * 3, keepalive_enforced=False)
    server = new_server(limits)
    server.receive(encode_settings(()), 0)
    for _ in range(3):
        assert not is_calmed(server.receive(encode_ping(OPAQUE), 0))
    assert is_calmed(server.receive(encode_ping(OPAQUE), 0))
    server = new_server(limits)
    for _ in range(10):
        server.receive(encode_ping(OPAQUE), 0)
        server.take_output()
    assert not server.is_closed


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrent_streams": 2**32},
        {"frame_size_max": 16_383},
        {"frame_size_max": 2**24},
        {"stream_window": 65_534},
        {"connection_window": 2**31},
    ],
)
def test_limits_out_of_the_protocols_range_are_a_programmers_error(wrong: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        Limits(**wrong)  # type: ignore[arg-type]
