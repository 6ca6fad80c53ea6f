"""Our connection against h2, an independent implementation, in both roles."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.http2 import events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.events import Event, HeaderList
from etcdtw.http2.hpack import encode_block
from tests.http2.frame_rig import written

REQUEST_FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/etcdserverpb.KV/Put"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
]
HEAD_FIELDS = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILER_FIELDS = [(b"grpc-status", b"0")]
HEAD = encode_block(HEAD_FIELDS)
TRAILERS = encode_block(TRAILER_FIELDS)

BODY = st.binary(max_size=20) | st.integers(0, 40_000).map(lambda size: b"b" * size)
TIMEOUT = st.sampled_from([b"", b"", b"5S", b"4999987u", b"4999979u"])
EXCHANGES = st.lists(
    st.tuples(TIMEOUT, st.lists(BODY, max_size=3), st.lists(BODY, max_size=3)),
    min_size=1,
    max_size=8,
)
Exchanges = list[tuple[bytes, list[bytes], list[bytes]]]
CUTS = st.lists(st.integers(1, 5_000), max_size=30)


def new_oracle(client: bool, window: int = 65_535) -> h2.connection.H2Connection:
    oracle = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=client, header_encoding=False)
    )
    oracle.local_settings = h2.settings.Settings(
        client=client, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
    )
    oracle.initiate_connection()
    return oracle


def pieces_of(octets: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``octets`` at the given sizes, the rest in one piece."""
    pieces = []
    for size in cuts:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [*pieces, octets]


class Messages:
    """Puts the events of one side together: head, body and trailers by stream."""

    def __init__(self) -> None:
        self.heads: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.ended: list[int] = []

    def take(self, event: Event) -> None:
        """Take an event of ours."""
        stream_id = event[1]
        if event[0] in (events.HEADERS, events.REQUEST):
            self.heads[stream_id] = list(event[2].fields)
            self.bodies[stream_id] = event[3] if event[0] == events.REQUEST else b""
            if event[0] == events.REQUEST or event[3]:
                self.ended.append(stream_id)
        elif event[0] == events.DATA:
            self.bodies[stream_id] += event[2]
            if event[3]:
                self.ended.append(stream_id)
        elif event[0] == events.TRAILERS:
            self.trailers[stream_id] = list(event[2].fields)
            self.ended.append(stream_id)
        else:
            assert event[0] == events.DRAINED, event

    def take_oracle(self, event: h2.events.Event) -> None:
        """Take an event of h2."""
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                self.heads[event.stream_id] = [(name, value) for name, value in event.headers]
                self.bodies[event.stream_id] = b""
            case h2.events.DataReceived():
                self.bodies[event.stream_id] += event.data
            case h2.events.TrailersReceived():
                self.trailers[event.stream_id] = [(name, value) for name, value in event.headers]
            case h2.events.StreamEnded():
                self.ended.append(event.stream_id)
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                raise AssertionError(event)
            case _:
                pass


class Oracle:
    """h2 with a queue in front of its windows, which it leaves to its user."""

    def __init__(self, client: bool, window: int = 65_535) -> None:
        self.h2 = new_oracle(client, window)
        self.messages = Messages()
        self._waiting: dict[int, tuple[bytes, bool]] = {}

    def receive(self, octets: bytes) -> None:
        """Feed octets of ours and give credit for what came."""
        for event in self.h2.receive_data(octets):
            self.messages.take_oracle(event)
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def send(self, stream_id: int, body: bytes, trailers: bool) -> None:
        """Send a body and then END_STREAM, in trailers or on the last DATA frame."""
        self._waiting[stream_id] = (body, trailers)

    def push(self) -> None:
        """Send what the windows admit."""
        for stream_id, (body, trailers) in list(self._waiting.items()):
            room = self.h2.local_flow_control_window(stream_id)
            while body and room > 0:
                size = min(room, self.h2.max_outbound_frame_size, len(body))
                self.h2.send_data(stream_id, body[:size])
                body = body[size:]
                room = self.h2.local_flow_control_window(stream_id)
            self._waiting[stream_id] = (body, trailers)
            if body:
                continue
            if trailers:
                self.h2.send_headers(stream_id, TRAILER_FIELDS, end_stream=True)
            else:
                self.h2.end_stream(stream_id)
            del self._waiting[stream_id]


def fields_with(timeout: bytes) -> list[tuple[bytes, bytes]]:
    return REQUEST_FIELDS + ([(b"grpc-timeout", timeout)] if timeout else [])


def exchange(ours: Connection, oracle: Oracle, cuts: list[int]) -> list[Event]:
    """Carry octets both ways until nothing moves; return our events."""
    found: list[Event] = []
    for _ in range(1_000):
        oracle.push()
        out = oracle.h2.data_to_send()
        back = ours.take_output()
        if not out and not back:
            return found
        for piece in pieces_of(out, cuts):
            found += ours.receive(piece, 0)
        for piece in pieces_of(back, cuts):
            oracle.receive(piece)
    raise AssertionError("the conversation does not end")


@settings(deadline=None, max_examples=60)
@given(EXCHANGES, CUTS, st.sampled_from([2_000, 65_535, 1_000_000]))
def test_h2_clients_get_from_our_server_what_it_sent(
    exchanges: Exchanges, cuts: list[int], window: int
) -> None:
    oracle = Oracle(client=True, window=window)
    server = Connection()
    server.begin()
    for i, (timeout, request, _) in enumerate(exchanges):
        oracle.h2.send_headers(2 * i + 1, fields_with(timeout))
        oracle.send(2 * i + 1, b"".join(request), trailers=i % 3 == 2)
    seen = Messages()
    for event in exchange(server, oracle, cuts):
        seen.take(event)
    for i, (timeout, request, response) in enumerate(exchanges):
        stream_id = 2 * i + 1
        assert seen.heads[stream_id] == fields_with(timeout)
        assert seen.bodies[stream_id] == b"".join(request)
        if len(response) == 1:
            server.reply(stream_id, HEAD, response[0], TRAILERS)
        else:
            server.send_headers(stream_id, HEAD_FIELDS)
            for piece in response:
                server.send_data(stream_id, piece)
            server.send_trailers(stream_id, TRAILER_FIELDS)
    exchange(server, oracle, cuts)
    for i, (_, _, response) in enumerate(exchanges):
        stream_id = 2 * i + 1
        assert oracle.messages.heads[stream_id] == HEAD_FIELDS
        assert oracle.messages.bodies[stream_id] == b"".join(response)
        assert oracle.messages.trailers[stream_id] == TRAILER_FIELDS
    assert sorted(oracle.messages.ended) == sorted(seen.ended)
    assert server.open_streams == 0


@settings(deadline=None, max_examples=60)
@given(EXCHANGES, CUTS, st.sampled_from([2_000, 65_535, 1_000_000]))
def test_our_client_gets_from_h2_servers_what_they_sent(
    exchanges: Exchanges, cuts: list[int], window: int
) -> None:
    oracle = Oracle(client=False, window=window)
    client = Connection(client=True)
    client.begin()
    exchange(client, oracle, [])  # h2 holds us to its window from the start
    for timeout, request, _ in exchanges:
        stream_id = client.open_stream()
        client.send_headers(stream_id, fields_with(timeout), end_stream=not request)
        for i, piece in enumerate(request):
            client.send_data(stream_id, piece, end_stream=i == len(request) - 1)
    exchange(client, oracle, cuts)
    for i, (timeout, request, response) in enumerate(exchanges):
        stream_id = 2 * i + 1
        assert oracle.messages.heads[stream_id] == fields_with(timeout)
        assert oracle.messages.bodies[stream_id] == b"".join(request)
        oracle.h2.send_headers(stream_id, HEAD_FIELDS)
        oracle.send(stream_id, b"".join(response), trailers=i % 2 == 0)
    seen = Messages()
    for event in exchange(client, oracle, cuts):
        seen.take(event)
    for i, (_, _, response) in enumerate(exchanges):
        assert seen.heads[2 * i + 1] == HEAD_FIELDS
        assert seen.bodies[2 * i + 1] == b"".join(response)
        assert (2 * i + 1 in seen.trailers) == (i % 2 == 0)
    assert client.open_streams == 0


def plain(found: list[Event]) -> list[Event]:
    """Make events comparable whatever the cuts: no fusion, no pieces of one body."""
    out: list[Event] = []
    for event in found:
        fields = [x.fields if isinstance(x, HeaderList) else x for x in event]
        if fields[0] == events.REQUEST:
            out.append((events.HEADERS, fields[1], fields[2], False))
            fields = [events.DATA, fields[1], fields[3], True]
        last = out[-1] if out else (0, 0)
        if fields[0] == last[0] == events.DATA and fields[1] == last[1]:
            out[-1] = (events.DATA, fields[1], last[2] + fields[2], fields[3])
        else:
            out.append(tuple(fields))
    return out


@settings(deadline=None, max_examples=60)
@given(EXCHANGES, CUTS, st.binary(max_size=12))
def test_any_chunking_gives_the_same_events(
    exchanges: Exchanges, cuts: list[int], junk: bytes
) -> None:
    oracle = new_oracle(client=True)
    for i, (timeout, request, _) in enumerate(exchanges):
        oracle.send_headers(2 * i + 1, fields_with(timeout))
        for piece in request:
            if len(piece) < 1_000:
                oracle.send_data(2 * i + 1, piece)
        oracle.end_stream(2 * i + 1)
    octets = oracle.data_to_send() + junk
    whole, cut = Connection(), Connection()
    expected = whole.receive(octets, 0)
    found: list[Event] = []
    for piece in pieces_of(octets, cuts):
        found += cut.receive(piece, 0)
    assert plain(found) == plain(expected)
    assert written(cut) == written(whole)
    assert cut.stats.streams == whole.stats.streams
    assert cut.stats.frames_in == whole.stats.frames_in


def test_a_small_request_is_one_event_and_one_reply() -> None:
    client = new_oracle(client=True)
    server = Connection()
    server.begin()
    client.receive_data(server.take_output())
    assert server.receive(client.data_to_send(), 0) == []
    client.send_headers(1, REQUEST_FIELDS)
    client.send_data(1, b"body", end_stream=True)
    (found,) = server.receive(client.data_to_send(), 0)
    assert found[:2] == (events.REQUEST, 1)
    assert list(found[2].fields) == REQUEST_FIELDS
    assert found[3] == b"body"
    assert repr(found[2]).startswith("HeaderList(((b':method'")
    server.reply(1, HEAD, b"answer", TRAILERS)
    assert server.has_output
    answers = client.receive_data(server.take_output())
    assert [type(answer).__name__ for answer in answers] == [
        "SettingsAcknowledged",
        "ResponseReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert server.open_streams == 0


def test_a_repeated_request_brings_the_same_header_list_again() -> None:
    client = new_oracle(client=True)
    server = Connection()
    lists = []
    for i in range(4):
        client.send_headers(2 * i + 1, REQUEST_FIELDS)
        client.send_data(2 * i + 1, b"body", end_stream=True)
        (found,) = server.receive(client.data_to_send(), 0)
        lists.append(found[2])
    # The first block fills the table, from the second on they are alike.
    assert lists[1] is lists[2] is lists[3]
    lists[1].memo = "resolved"
    assert lists[3].memo == "resolved"


def test_a_request_in_two_reads_is_answered_all_the_same() -> None:
    server = Connection()
    client = new_oracle(client=True)
    client.send_headers(1, REQUEST_FIELDS)
    assert server.receive(client.data_to_send(), 0)[0][0] == events.HEADERS
    client.send_data(1, b"body", end_stream=True)
    assert server.receive(client.data_to_send(), 0) == [(events.DATA, 1, b"body", True)]
    server.take_output()
    server.reply(1, HEAD, b"answer", TRAILERS)
    assert [frame[0] for frame in written(server)] == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert server.open_streams == 0
