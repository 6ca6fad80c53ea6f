"""Random octets and random frames: no exception, bounded memory, one last word."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.http2 import events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.frames import encode_frame, encode_settings
from etcdtw.http2.limits import Limits
from tests.http2.frame_rig import BLOCK, HEAD, TRAILERS, data, headers

TIGHT = Limits(
    max_concurrent_streams=4,
    header_list_size_max=400,
    header_block_size_max=300,
    control_octets_max=2_000,
    reset_memory_count_max=4,
    resets_burst=6,
    settings_burst=6,
    idle_frames_burst=30,
    queued_octets_refuse=2_000,
)
FRAMES = st.builds(
    encode_frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x24, 0x25, 0x2D]),
    st.sampled_from([0, 1, 1, 2, 3, 3, 5, 7, 9, 2**31 - 1, 2**31]),
    st.binary(max_size=20)
    | st.sampled_from([BLOCK, HEAD, TRAILERS, b"\0\0\0\1", b"\0\0\0\0", b"\0" * 8, b"\0" * 5]),
)
LIKELY = st.sampled_from(
    [
        headers(1) + data(1, b"x"),
        headers(3) + data(3, b"x"),
        headers(5),
        headers(7, BLOCK + b"\x40\x01a\x01b"),
        data(5, b"more", 0),
        frames.encode_window_update(0, 100),
        encode_settings(((4, 5),)),
        encode_settings(((4, 70_000),)),
        frames.encode_ping(b"12345678"),
    ]
)


def check_bounds(connection: Connection, limits: Limits) -> None:
    assert connection.open_streams <= limits.max_concurrent_streams
    assert len(connection._forgotten) <= limits.reset_memory_count_max
    assert len(connection._rest) <= limits.frame_size_max + frames.HEADER_SIZE
    assert len(connection._block) <= max(limits.header_block_size_max, limits.frame_size_max)
    assert connection._decoder.table_size <= limits.header_table_size
    waits = sum(stream.queued for stream in connection._streams.values() if stream is not None)
    assert connection._queued_octets == waits
    assert all(connection._streams[stream_id] is s for stream_id, s in connection._starved.items())


def answer(server: Connection, event: events.Event) -> None:
    """Do what a careless layer above might."""
    if event[0] == events.REQUEST:
        server.reply(event[1], HEAD, b"y" * (event[1] * 100), TRAILERS)
    elif event[0] == events.HEADERS and event[3]:
        server.send_headers(event[1], HEAD)
        server.send_data(event[1], b"z" * 50)
    elif event[0] == events.TRAILERS:
        server.reset(event[1], 8)


@settings(deadline=None, max_examples=300)
@given(st.lists(FRAMES | LIKELY, max_size=30), st.integers(1, 400))
def test_random_frames_never_raise_and_leave_the_books_in_order(
    pieces: list[bytes], cut: int
) -> None:
    server = Connection(limits=TIGHT)
    server.begin()
    octets = frames.PREFACE + encode_settings(()) + b"".join(pieces)
    closed = 0
    for i in range(0, len(octets), cut):
        for event in server.receive(octets[i : i + cut], i):
            closed += event[0] == events.CLOSED
            answer(server, event)
        check_bounds(server, TIGHT)
    assert closed <= 1
    assert closed == 0 or server.is_closed


@settings(deadline=None, max_examples=200)
@given(st.lists(FRAMES, max_size=12), st.booleans())
def test_random_frames_never_raise_in_a_client(pieces: list[bytes], ends: bool) -> None:
    client = Connection(client=True)
    client.begin()
    client.receive(encode_settings(()), 0)
    for _ in range(3):
        client.send_headers(client.open_stream(), BLOCK, ends)
    for piece in pieces:
        client.receive(piece, 0)
        check_bounds(client, Limits())


def test_random_octets_never_raise_and_end_soon() -> None:
    source = random.Random(9113)
    for _ in range(300):
        server = Connection()
        server.receive(frames.PREFACE + encode_settings(()), 0)
        for _ in range(40):
            server.receive(source.randbytes(source.randrange(1, 200)), 0)
            check_bounds(server, Limits())
        assert server.is_closed or len(server._rest) > 0


def test_mutated_conversations_never_raise() -> None:
    source = random.Random(7541)
    whole = b"".join(headers(i) + data(i, b"body") for i in range(1, 41, 2))
    for _ in range(500):
        mutated = bytearray(whole)
        for _ in range(source.randrange(1, 6)):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        server = Connection()
        server.receive(frames.PREFACE + encode_settings(()), 0)
        for event in server.receive(bytes(mutated), 0):
            answer(server, event)
        check_bounds(server, Limits())
        server.take_output()


def told(event: events.Event) -> tuple[object, ...]:
    """What an event says, to be compared."""
    return tuple(getattr(part, "fields", part) for part in event)


@settings(max_examples=300)
@given(
    st.lists(LIKELY, max_size=20) | st.lists(LIKELY | FRAMES), st.integers(1, 6), st.integers(0, 20)
)
def test_a_few_frames_at_a_time_mean_what_all_of_them_mean(
    pieces: list[bytes], frames_max: int, cut: int
) -> None:
    whole, slow = Connection(limits=TIGHT), Connection(limits=TIGHT)
    for connection in (whole, slow):
        connection.begin()
        connection.receive(frames.PREFACE + encode_settings(()), 0)
    first, rest = b"".join(pieces[:cut]), b"".join(pieces[cut:])
    found = slow.receive(first, 0, frames_max)
    if slow.has_more:  # what comes meanwhile is looked at after what waits
        expected = whole.receive(first + rest, 0)
        found += slow.receive(rest, 0, frames_max)
    else:
        expected = whole.receive(first, 0)
    while slow.has_more:
        found += slow.receive(b"", 0, frames_max)
    assert list(map(told, found)) == list(map(told, expected))
    assert slow.is_closed == whole.is_closed
    assert slow.stats.frames_in == whole.stats.frames_in
