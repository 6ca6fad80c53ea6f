"""Flow control in both directions: what waits, what goes, what is credited."""

from __future__ import annotations

from struct import pack

import pytest

from etcdtw.http2 import errors, events, frames
from etcdtw.http2.flow import TokenBucket
from etcdtw.http2.frames import encode_settings, encode_window_update
from etcdtw.http2.limits import Limits
from tests.http2.frame_rig import (
    BLOCK,
    END,
    HEAD,
    TRAILERS,
    WHOLE,
    data,
    headers,
    new_server,
    written,
)

DEFAULT = 65_535


def test_a_reply_waits_for_the_window_and_leaves_in_order() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 10),)) + headers(1) + data(1, b"x"), 0)
    server.take_output()
    server.reply(1, HEAD, b"a" * 25, TRAILERS)
    assert written(server) == [
        (frames.HEADERS, WHOLE, 1, HEAD),
        (frames.DATA, 0, 1, b"a" * 10),
    ]
    assert server.queued(1) == 15
    assert server.receive(encode_window_update(1, 14), 0) == []
    assert server.queued(1) == 1
    assert server.receive(encode_window_update(1, 1), 0) == [(events.DRAINED, 1)]
    assert written(server) == [
        (frames.DATA, 0, 1, b"a" * 14),
        (frames.DATA, 0, 1, b"a"),
        (frames.HEADERS, WHOLE | END, 1, TRAILERS),
    ]
    assert server.open_streams == 0
    assert server.queued(1) == 0


def test_a_reply_in_two_parts_is_one_body_whether_or_not_a_window_admits_it() -> None:
    for window in (3, 100):
        server = new_server()
        server.receive(encode_settings(((4, window),)) + headers(1) + data(1, b"x"), 0)
        server.take_output()
        server.reply(1, HEAD, b"cdefg", TRAILERS, b"ab")
        server.receive(encode_window_update(1, 50), 0)
        frames_out = written(server)
        assert frames_out[0] == (frames.HEADERS, WHOLE, 1, HEAD)
        assert b"".join(frame[3] for frame in frames_out[1:-1]) == b"abcdefg"
        assert frames_out[-1] == (frames.HEADERS, WHOLE | END, 1, TRAILERS)


def test_large_bodies_count_for_more_than_one_of_the_frames_that_are_looked_at() -> None:
    server = new_server()
    requests = [headers(2 * i + 1) + data(2 * i + 1, b"x" * 4096) for i in range(8)]
    found = server.receive(b"".join(requests), 0, 8)
    assert len(found) == 2
    assert server.has_more


def test_data_is_split_by_the_peers_frame_size() -> None:
    server = new_server()
    server.receive(headers(1), 0)
    server.send_headers(1, HEAD)
    server.send_data(1, b"x" * 40_000)
    assert [len(frame[3]) for frame in written(server)[1:]] == [16_384, 16_384, 7_232]
    server.receive(encode_settings(((5, 20_000),)), 0)
    server.take_output()
    server.send_data(1, b"x" * 20_001)
    assert [len(frame[3]) for frame in written(server)] == [20_000, 1]


def test_the_last_data_frame_carries_the_end_of_the_stream() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 3),)) + headers(1, flags=WHOLE | END), 0)
    server.take_output()
    server.send_headers(1, HEAD)
    server.send_data(1, b"abcd", end_stream=True)
    assert written(server)[-1] == (frames.DATA, 0, 1, b"abc")
    server.receive(encode_window_update(1, 1), 0)
    assert written(server) == [(frames.DATA, END, 1, b"d")]
    assert server.open_streams == 0


def test_an_empty_end_needs_no_window() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 0),)) + headers(1, flags=WHOLE | END), 0)
    server.take_output()
    server.send_headers(1, HEAD)
    server.send_data(1, b"", end_stream=True)
    assert written(server)[-1] == (frames.DATA, END, 1, b"")
    assert server.open_streams == 0


def test_the_connection_window_is_shared_in_turns() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 2**31 - 1),)), 0)
    for stream_id in (1, 3, 5):
        server.receive(headers(stream_id, flags=WHOLE | END), 0)
        server.send_headers(stream_id, HEAD)
        server.send_data(stream_id, b"x" * 200_000)
    assert [server.queued(i) for i in (1, 3, 5)] == [200_000 - DEFAULT, 200_000, 200_000]
    server.take_output()
    server.receive(encode_window_update(0, 3 * 65_536), 0)
    assert [server.queued(i) for i in (1, 3, 5)] == [68_929, 134_464, 134_464]
    assert server.receive(encode_window_update(0, 1_000_000), 0) == [
        (events.DRAINED, 1),
        (events.DRAINED, 3),
        (events.DRAINED, 5),
    ]
    assert sum(len(frame[3]) for frame in written(server)) == 600_000 - DEFAULT


def test_more_data_on_a_starved_stream_waits_behind_what_is_there() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 2**31 - 1),)) + headers(1, flags=WHOLE | END), 0)
    server.send_headers(1, HEAD)
    server.send_data(1, b"a" * (DEFAULT + 1))
    server.send_data(1, b"b")
    server.send_trailers(1, TRAILERS)
    server.take_output()
    # Its own window opening does not let it pass the connection's.
    server.receive(encode_window_update(1, 5), 0)
    assert server.receive(encode_window_update(0, 2), 0)[0] == (events.DRAINED, 1)
    assert [frame[3] for frame in written(server)] == [b"a", b"b", TRAILERS]


def test_rfc9113_6_9_2_a_smaller_initial_window_can_make_a_window_negative() -> None:
    server = new_server()
    server.receive(headers(1, flags=WHOLE | END), 0)
    server.send_headers(1, HEAD)
    server.send_data(1, b"x" * 60_000)
    server.receive(encode_settings(((4, 10),)), 0)
    server.send_data(1, b"y" * 10)
    assert server.queued(1) == 10
    server.receive(encode_window_update(0, 100_000), 0)
    # 65,535 - 60,000 - 65,525 = -59,990
    assert server.receive(encode_window_update(1, 59_990), 0) == []
    assert server.queued(1) == 10
    assert server.receive(encode_window_update(1, 10), 0) == [(events.DRAINED, 1)]


def test_rfc9113_6_9_2_a_larger_initial_window_lets_waiting_data_go() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 1),)), 0)
    server.receive(headers(1) + data(1, b"x") + headers(3, flags=WHOLE | END), 0)
    server.receive(headers(5, flags=WHOLE | END), 0)
    server.reply(1, HEAD, b"abc", TRAILERS)
    server.send_headers(3, HEAD)
    assert server.receive(encode_settings(((4, 3),)), 0) == [(events.DRAINED, 1)]
    server.reply(5, HEAD, b"abc", TRAILERS)
    assert server.open_streams == 1


def test_a_reset_drops_what_waits() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 2**31 - 1),)) + headers(1, flags=WHOLE | END), 0)
    server.reply(1, HEAD, b"x" * 100_000, TRAILERS)
    assert server.queued(1) == 100_000 - DEFAULT
    assert server.receive(frames.encode_reset(1, errors.CANCEL), 0) == [
        (events.RESET, 1, errors.CANCEL)
    ]
    server.take_output()
    assert server.receive(encode_window_update(0, 100_000), 0) == []
    assert not server.has_output


def test_new_streams_are_refused_while_too_much_waits() -> None:
    limits = Limits(queued_octets_refuse=1_000)
    server = new_server(limits)
    server.receive(encode_settings(((4, 0),)) + headers(1) + data(1, b"x"), 0)
    server.reply(1, HEAD, b"x" * 999, TRAILERS)
    (accepted,) = server.receive(headers(3) + data(3, b"x"), 0)
    assert accepted[:2] == (events.REQUEST, 3)
    server.reply(3, HEAD, b"x", TRAILERS)
    server.take_output()
    assert server.receive(headers(5) + data(5, b"x"), 0) == []
    assert written(server) == [(frames.RST_STREAM, 0, 5, pack(">I", errors.REFUSED_STREAM))]
    server.receive(encode_window_update(3, 1), 0)
    (accepted,) = server.receive(headers(7) + data(7, b"x"), 0)
    assert accepted[:2] == (events.REQUEST, 7)


def test_the_connection_is_credited_in_bulk_once_half_is_used() -> None:
    server = new_server(Limits(connection_window=100_000, stream_window=100_000))
    body = data(1, b"x" * 10_000, 0)
    server.receive(headers(1) + body * 4, 0)
    assert written(server) == []
    server.receive(body, 0)
    assert (frames.WINDOW_UPDATE, 0, 0, pack(">I", 50_000)) in written(server)
    for stream_id in range(3, 13, 2):
        server.receive(headers(stream_id) + data(stream_id, b"x" * 10_000), 0)
    assert (frames.WINDOW_UPDATE, 0, 0, pack(">I", 50_000)) in written(server)


def test_a_stream_is_credited_in_bulk_once_half_is_used() -> None:
    server = new_server(Limits(stream_window=100_000))
    server.receive(headers(1) + data(1, b"x" * 10_000, 0) * 4, 0)
    assert written(server) == []
    server.receive(data(1, b"x" * 10_000, 0), 0)
    assert written(server) == [(frames.WINDOW_UPDATE, 0, 1, pack(">I", 50_000))]


def test_a_stream_may_use_its_window_to_the_last_octet_and_not_one_more() -> None:
    limits = Limits(stream_window=DEFAULT)
    body = headers(1) + data(1, b"x" * 16_384, 0)
    for extra, code in ((0, None), (1, errors.FLOW_CONTROL_ERROR)):
        server = new_server(limits)
        server.receive(body, 0)
        # Credit is given at half the window; take it away to reach the edge.
        stream = server._streams[1]
        assert stream is not None
        stream.recv_window = 100
        found = server.receive(data(1, b"x" * (100 + extra), 0), 0)
        if code is None:
            assert found[0][0] == events.DATA
        else:
            assert found == [(events.RESET, 1, code)]


@pytest.mark.parametrize("is_short", [True, False])
def test_the_connection_window_overrun_is_a_connection_error(is_short: bool) -> None:
    server = new_server()
    server._recv_window = 100
    flags = END if is_short else 0
    found = server.receive(headers(1) + data(1, b"x" * 101, flags), 0)
    assert found[-1][:2] == (events.CLOSED, errors.FLOW_CONTROL_ERROR)


def test_padding_counts_for_the_windows() -> None:
    server = new_server()
    before = server._recv_window
    padded = b"\x03body\0\0\0"
    found = server.receive(headers(1) + data(1, padded, END | frames.FLAG_PADDED), 0)
    assert found[0][0] == events.REQUEST
    assert found[0][3] == b"body"
    assert server._recv_window == before - len(padded)


def test_padded_and_prioritised_headers_in_pieces_are_one_request() -> None:
    server = new_server()
    flags = frames.FLAG_PADDED | frames.FLAG_PRIORITY
    first = b"\x02" + b"\0\0\0\0\x10" + BLOCK[:3] + b"\0\0"
    octets = headers(1, first, flags)
    octets += frames.encode_frame(frames.CONTINUATION, 0, 1, BLOCK[3:5])
    octets += frames.encode_frame(frames.CONTINUATION, WHOLE, 1, BLOCK[5:])
    (found,) = server.receive(octets + data(1, b"all", 0) + data(1, b""), 0)
    assert found[:2] == (events.REQUEST, 1)
    assert found[3] == b"all"


def test_long_blocks_leave_in_continuation_frames() -> None:
    server = new_server()
    server.receive(headers(1) + data(1, b"x"), 0)
    block = HEAD + b"\x00\x01a\x7f\xa1\x9c\x01" + b"v" * 20_000
    server.reply(1, block, b"y", TRAILERS)
    found = written(server)
    assert [(frame[0], frame[1]) for frame in found] == [
        (frames.HEADERS, 0),
        (frames.CONTINUATION, WHOLE),
        (frames.DATA, 0),
        (frames.HEADERS, WHOLE | END),
    ]
    assert found[0][3] + found[1][3] == block


def test_rfc7541_4_2_a_lowered_table_size_is_acknowledged_in_the_next_block() -> None:
    server = new_server()
    server.receive(encode_settings(((1, 0), (1, 4_096))) + headers(1) + data(1, b"x"), 0)
    server.take_output()
    server.reply(1, HEAD, b"y", TRAILERS)
    assert [frame[3] for frame in written(server)] == [b"\x20" + HEAD, b"y", TRAILERS]


def test_a_paused_connection_keeps_data_and_sends_it_on_resume() -> None:
    server = new_server()
    server.receive(headers(1) + data(1, b"x") + headers(3, flags=WHOLE | END), 0)
    server.pause()
    server.pause()
    server.reply(1, HEAD, b"a" * 10, TRAILERS)
    server.send_headers(3, HEAD)
    server.send_data(3, b"b")
    assert [frame[0] for frame in written(server)] == [frames.HEADERS, frames.HEADERS]
    assert (server.queued(1), server.queued(3)) == (10, 1)
    # Credit that comes meanwhile is not lost and opens nothing.
    assert server.receive(encode_window_update(0, 7) + encode_window_update(3, 7), 0) == []
    assert not server.has_output
    assert server.resume() == [(events.DRAINED, 1), (events.DRAINED, 3)]
    assert server.resume() == []
    assert [frame[3] for frame in written(server)] == [b"a" * 10, TRAILERS, b"b"]
    assert server._send_window == DEFAULT + 7 - 11


def test_what_is_let_out_at_once_has_a_bound_however_far_the_windows_are_open() -> None:
    server = new_server(Limits(output_octets_max=100_000))
    server.receive(encode_settings(((4, 2**31 - 1),)) + encode_window_update(0, 1 << 30), 0)
    server.receive(headers(1, flags=WHOLE | END) + headers(3) + data(3, b"x"), 0)
    server.take_output()
    server.send_headers(1, HEAD)
    server.send_data(1, b"a" * 250_000)
    server.reply(3, HEAD, b"b" * 10, TRAILERS)
    # More credit opens nothing before the output is taken and written.
    server.receive(encode_window_update(0, 1), 0)
    sizes = [0, 0, 0]
    found = []
    for turn in range(3):
        assert server.holds_data_back == (turn < 2)
        sizes[turn] = sum(len(frame[3]) for frame in written(server) if frame[0] == frames.DATA)
        found += server.resume()
    assert sizes == [100_000, 100_000, 50_010]
    assert found == [(events.DRAINED, 3), (events.DRAINED, 1)]
    assert server._send_window + server._held_window == DEFAULT + (1 << 30) + 1 - 250_010


def test_a_pause_keeps_what_the_bound_holds_back() -> None:
    server = new_server(Limits(output_octets_max=DEFAULT))
    server.receive(encode_settings(((4, 2**31 - 1),)) + encode_window_update(0, DEFAULT), 0)
    server.receive(headers(1, flags=WHOLE | END), 0)
    server.send_headers(1, HEAD)
    server.send_data(1, b"a" * 3 * DEFAULT)
    server.pause()
    server.take_output()
    assert server.queued(1) == 2 * DEFAULT
    assert server.resume() == []
    assert server.queued(1) == DEFAULT
    assert not server.holds_data_back


def test_the_window_maximum_holds_while_paused() -> None:
    server = new_server()
    server.pause()
    found = server.receive(encode_window_update(0, 2**31 - DEFAULT), 0)
    assert found[-1][:2] == (events.CLOSED, errors.FLOW_CONTROL_ERROR)


def test_headers_that_end_a_stream_wait_behind_its_data() -> None:
    server = new_server()
    server.receive(encode_settings(((4, 1),)) + headers(1, flags=WHOLE | END), 0)
    server.send_headers(1, HEAD)
    server.send_data(1, b"ab")
    server.send_headers(1, TRAILERS, end_stream=True)
    server.take_output()
    server.receive(encode_window_update(1, 1), 0)
    assert [frame[3] for frame in written(server)] == [b"b", TRAILERS]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(3, 2)
    assert [bucket.take(1_000) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(1_499)
    assert bucket.take(1_500)
    assert not bucket.take(1_500)
    assert not bucket.take(1_000)  # a clock that goes back gives nothing
    assert [bucket.take(9_000) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(9_000, earned=1)
    assert not bucket.take(9_000)
