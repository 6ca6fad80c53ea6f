"""The two streams: framing, state, bounds; octets in any pieces."""

from __future__ import annotations

import itertools
from struct import pack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_APP, MSG_APP_RESP, MSG_HEARTBEAT, Message
from etcdtw.rafthttp.codec import encode_entry, encode_message
from etcdtw.rafthttp.stream import (
    APPEND_HEARTBEAT,
    ENTRIES_MAX,
    MESSAGE_HEARTBEAT,
    MESSAGE_SIZE_MAX,
    AppendReader,
    AppendWriter,
    MessageReader,
    MessageWriter,
    Octets,
    PeerStreamError,
)
from tests.support.peer_messages import REMOTE_TYPES, messages, same

HERE = 0xA1
THERE = 0xB2

SLOW_MACHINE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def append(index: int, term: int, log_term: int, count: int, commit: int = 0) -> Message:
    """A MsgApp with ``count`` entries behind ``index``."""
    entries = [Entry(term, index + i, 0, b"data %d" % i) for i in range(1, count + 1)]
    return Message(
        MSG_APP,
        to=HERE,
        from_id=THERE,
        term=term,
        log_term=log_term,
        index=index,
        entries=entries,
        commit=commit,
    )


@st.composite
def appends(draw: st.DrawFn) -> list[Message]:
    """What a leader sends: mostly one after the other, sometimes back or in a new term."""
    found: list[Message] = []
    index, term, log_term = 0, 1, 0
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 4)) == 0:
            index = draw(st.integers(0, 2**40))
            log_term = draw(st.integers(0, term))
        if draw(st.integers(0, 4)) == 0:
            term += draw(st.integers(1, 3))
        m = append(index, term, log_term, draw(st.integers(0, 4)), draw(st.integers(0, 2**63)))
        found.append(m)
        if m.entries:
            index += len(m.entries)
            log_term = term
    return found


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at these positions."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


@SLOW_MACHINE
@given(st.lists(messages(REMOTE_TYPES), max_size=5), CUTS)
def test_messages_survive_any_chunking(sent: list[Message], cuts: list[int]) -> None:
    writer, reader = MessageWriter(), MessageReader()
    wire = b"".join(MESSAGE_HEARTBEAT + writer.encode(m) for m in sent)
    got = [m for piece in pieces(wire, cuts) for m in reader.feed(piece)]
    real = [m for m in sent if not (m.type == MSG_HEARTBEAT and m.to == m.from_id == 0)]
    assert same(got) == same(real)


@SLOW_MACHINE
@given(appends(), CUTS)
def test_appends_survive_any_chunking(sent: list[Message], cuts: list[int]) -> None:
    writer, reader = AppendWriter(), AppendReader(HERE, THERE)
    wire = b"".join(APPEND_HEARTBEAT + writer.encode(m) for m in sent)
    got = [m for piece in pieces(wire, cuts) for m in reader.feed(piece)]
    assert same(got) == same(sent)


def test_every_octet_may_come_alone() -> None:
    writer, reader = AppendWriter(), AppendReader(HERE, THERE)
    sent = [append(0, 1, 0, 2), append(2, 1, 1, 1), append(3, 1, 1, 0, commit=3)]
    wire = b"".join(writer.encode(m) for m in sent)
    got = [m for i in range(len(wire)) for m in reader.feed(wire[i : i + 1])]
    assert same(got) == same(sent)


def test_a_message_frame_is_a_length_and_the_message() -> None:
    m = Message(MSG_APP_RESP, to=1, from_id=2, term=3, index=4)
    octets = encode_message(m)
    assert MessageWriter().encode(m) == pack(">Q", len(octets)) + octets


def test_the_link_heartbeats_are_etcds() -> None:
    assert MESSAGE_HEARTBEAT[:8] == pack(">Q", 30)
    assert len(MESSAGE_HEARTBEAT) == 38
    assert APPEND_HEARTBEAT == b"\x00"
    assert MessageReader().feed(MESSAGE_HEARTBEAT * 2) == []
    assert AppendReader(HERE, THERE).feed(APPEND_HEARTBEAT * 2) == []


def test_rafts_own_heartbeat_is_no_link_heartbeat() -> None:
    m = Message(MSG_HEARTBEAT, to=HERE, from_id=THERE)
    assert same(MessageReader().feed(MessageWriter().encode(m))) == same([m])


@pytest.mark.parametrize(
    ("m", "kind"),
    [
        (append(5, 2, 2, 1), 1),
        (append(5, 2, 2, 0), 1),
        (append(5, 3, 2, 1), 2),  # a new term
        (append(5, 3, 3, 1), 2),  # another state than the last message left
        (append(4, 2, 2, 1), 2),  # further back
        (append(6, 2, 2, 1), 2),  # ahead
    ],
)
def test_entries_go_alone_only_where_the_last_message_ended(m: Message, kind: int) -> None:
    writer = AppendWriter()
    first = writer.encode(append(3, 2, 1, 2))
    assert first[0] == 2
    assert writer.encode(m)[0] == kind


def test_the_first_message_is_whole_even_at_the_start_of_the_log() -> None:
    assert AppendWriter().encode(append(0, 1, 0, 1))[0] == 2
    assert AppendWriter().encode(append(0, 1, 0, 0))[0] == 2


def test_entries_alone_are_count_entries_and_commit() -> None:
    writer = AppendWriter()
    writer.encode(append(3, 2, 1, 2))
    entry = Entry(2, 6, 0, b"data 1")
    octets = encode_entry(entry)
    expected = b"\x01" + pack(">QQ", 1, len(octets)) + octets + pack(">Q", 5)
    assert writer.encode(append(5, 2, 2, 1, commit=5)) == expected


def test_a_new_connection_starts_without_state() -> None:
    writer, reader = AppendWriter(), AppendReader(HERE, THERE)
    reader.feed(writer.encode(append(3, 2, 1, 2)))
    alone = writer.encode(append(5, 2, 2, 1))
    with pytest.raises(PeerStreamError, match="their term is unknown"):
        AppendReader(HERE, THERE).feed(alone)


def test_entries_out_of_step_are_refused() -> None:
    writer, reader = AppendWriter(), AppendReader(HERE, THERE)
    reader.feed(writer.encode(append(3, 2, 1, 2)))
    writer.encode(append(5, 2, 2, 1))  # lost
    with pytest.raises(PeerStreamError, match="entry 7 came where 6 was next"):
        reader.feed(writer.encode(append(6, 2, 2, 1)))


WHOLE = AppendWriter().encode(append(3, 2, 1, 2))


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"\x03", "3 is no kind"),
        (b"\xff", "255 is no kind"),
        (WHOLE + b"\x01" + pack(">Q", ENTRIES_MAX + 1), "entries in one message"),
        (WHOLE + b"\x01" + pack(">QQ", 1, MESSAGE_SIZE_MAX + 1), "octets: 5"),
        (WHOLE + b"\x01" + pack(">QQ", 1, 1) + b"\x08", "no raftpb.Entry"),
        (b"\x02" + pack(">Q", 2**64 - 1), "octets: 5"),
        (b"\x02" + pack(">Q", 1) + b"\x08", "no raftpb.Message"),
    ],
)
def test_bad_append_octets_are_refused_in_words(octets: bytes, text: str) -> None:
    with pytest.raises(PeerStreamError, match=text):
        AppendReader(HERE, THERE).feed(octets)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (pack(">Q", MESSAGE_SIZE_MAX + 1), "octets: 5"),
        (pack(">Q", 2) + b"\x08\x80", "no raftpb.Message"),
    ],
)
def test_bad_message_octets_are_refused_in_words(octets: bytes, text: str) -> None:
    with pytest.raises(PeerStreamError, match=text):
        MessageReader().feed(octets)


def test_a_message_of_the_largest_size_is_read_and_one_octet_more_is_not() -> None:
    m = append(0, 1, 0, 3)
    size = len(encode_message(m))
    wire = MessageWriter().encode(m)
    assert len(MessageReader(size).feed(wire)) == 1
    with pytest.raises(PeerStreamError):
        MessageReader(size - 1).feed(wire)
    assert len(AppendReader(HERE, THERE, size).feed(b"\x02" + wire)) == 1
    with pytest.raises(PeerStreamError):
        AppendReader(HERE, THERE, size - 1).feed(b"\x02" + wire)


def test_the_size_bound_holds_for_all_entries_of_a_message_together() -> None:
    writer = AppendWriter()
    whole = writer.encode(append(3, 2, 1, 2))
    alone = writer.encode(append(5, 2, 2, 20))
    size = sum(len(encode_entry(e)) for e in append(5, 2, 2, 20).entries)
    assert len(AppendReader(HERE, THERE, size).feed(whole + alone)) == 2
    reader = AppendReader(HERE, THERE, size - 1)
    reader.feed(whole)
    with pytest.raises(PeerStreamError):
        reader.feed(alone)


@SLOW_MACHINE
@given(st.binary(max_size=200), CUTS)
def test_any_octets_are_a_stream_or_refused(data: bytes, cuts: list[int]) -> None:
    for reader in (MessageReader(4096), AppendReader(HERE, THERE, 4096)):
        try:
            for piece in pieces(data, cuts):
                reader.feed(piece)
        except PeerStreamError:
            continue


def test_octets_are_joined_when_enough_are_there() -> None:
    octets = Octets()
    for piece in (b"ab", b"", b"cd", b"e"):
        octets.feed(piece)
    assert octets.take(6) is None
    assert octets.take(3) == b"abc"
    octets.feed(b"fg")
    assert octets.size == 4
    assert octets.take_all(3) == b"def"
    assert octets.take_all(3) == b"g"
    assert octets.take_all(3) == b""
