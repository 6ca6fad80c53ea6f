"""Messages and entries as octets, against protobuf's own implementation and etcd's bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, Snapshot
from etcdtw.raft.message import MSG_APP, MSG_HEARTBEAT, MSG_HUP, Message
from etcdtw.rafthttp import codec
from etcdtw.rafthttp.codec import (
    MalformedMessageError,
    decode_entry,
    decode_message,
    encode_entry,
    encode_message,
)
from etcdtw.wire import raftpb
from tests.support.peer_messages import entries, messages

SLOW_MACHINE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def as_protobuf(m: Message) -> raftpb.Message:
    """Build the same message with the generated class; zeros are left out, as in etcd 3.7."""
    found = raftpb.Message(type=m.type, to=m.to, term=m.term, logTerm=m.log_term, index=m.index)
    setattr(found, "from", m.from_id)  # protobuf
    for e in m.entries:
        found.entries.add(Type=e.type, Term=e.term, Index=e.index, Data=e.data)
    found.commit = m.commit
    found.reject = m.reject
    found.rejectHint = m.reject_hint
    if m.context:
        found.context = m.context
    if m.snapshot is not None:
        conf = m.snapshot.conf_state
        found.snapshot.data = m.snapshot.data
        metadata = found.snapshot.metadata
        metadata.index = m.snapshot.index
        metadata.term = m.snapshot.term
        metadata.conf_state.voters.extend(conf.voters)
        metadata.conf_state.learners.extend(conf.learners)
        metadata.conf_state.voters_outgoing.extend(conf.voters_outgoing)
        metadata.conf_state.learners_next.extend(conf.learners_next)
        metadata.conf_state.auto_leave = conf.auto_leave
    return found


def fields_of(octets: bytes) -> str:
    """Return what protobuf reads, without the difference between zero and absent."""
    found = raftpb.Message.FromString(octets)
    m = decode_message(octets)
    return f"{m!r} {m.reject} {m.reject_hint} {m.context!r} {m.entries} {found.snapshot.data!r}"


def test_the_link_heartbeat_is_etcds_thirty_octets() -> None:
    expected = "08081000180020002800300040004a0a12080a0228001000180050005800"
    assert encode_message(Message(MSG_HEARTBEAT)).hex() == expected


def test_an_entry_has_every_scalar_and_no_empty_data() -> None:
    assert encode_entry(Entry(2, 3)).hex() == "080010021803"
    assert encode_entry(Entry(2, 300, 1, b"ab")).hex() == "0801100218ac0222026162"


@SLOW_MACHINE
@given(messages())
def test_protobuf_reads_what_is_encoded(m: Message) -> None:
    octets = encode_message(m)
    theirs = as_protobuf(m).SerializeToString()
    assert fields_of(octets) == fields_of(theirs)
    if m.snapshot is not None:
        ours = raftpb.Message.FromString(octets).snapshot.metadata
        assert ours.SerializeToString() == as_protobuf(m).snapshot.metadata.SerializeToString()


@SLOW_MACHINE
@given(messages())
def test_decoding_gives_back_what_was_encoded(m: Message) -> None:
    octets = encode_message(m)
    assert encode_message(decode_message(octets)) == octets


@SLOW_MACHINE
@given(messages())
def test_a_message_without_its_zeros_reads_the_same(m: Message) -> None:
    terse = raftpb.Message()
    for descriptor, value in as_protobuf(m).ListFields():
        if descriptor.name == "entries":
            terse.entries.extend(value)
        elif descriptor.name == "snapshot":
            terse.snapshot.CopyFrom(value)
        elif value:
            setattr(terse, descriptor.name, value)  # protobuf
    assert encode_message(decode_message(terse.SerializeToString())) == encode_message(m)


@SLOW_MACHINE
@given(entries)
def test_an_entry_comes_back(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry
    found = raftpb.Entry.FromString(encode_entry(entry))
    assert (found.Type, found.Term, found.Index) == (entry.type, entry.term, entry.index)


@SLOW_MACHINE
@given(entries, st.integers(0, 60), st.binary(max_size=3))
def test_a_damaged_entry_reads_as_protobuf_reads_it(
    entry: Entry, position: int, damage: bytes
) -> None:
    octets = encode_entry(entry)
    octets = octets[:position] + damage + octets[position + len(damage) :]
    try:
        found = raftpb.Entry.FromString(octets)
    except DecodeError:
        with pytest.raises(MalformedMessageError):
            decode_entry(octets)
        return
    assert decode_entry(octets) == Entry(found.Term, found.Index, found.Type, found.Data)


def test_packed_ids_are_read_like_single_ones() -> None:
    conf = bytes.fromhex("0a040102ac02") + b"\x28\x00"
    metadata = b"\x0a" + bytes((len(conf),)) + conf + b"\x10\x05\x18\x02"
    body = b"\x12" + bytes((len(metadata),)) + metadata
    octets = b"\x08\x07\x4a" + bytes((len(body),)) + body
    snapshot = decode_message(octets).snapshot
    assert snapshot is not None
    assert snapshot.conf_state == ConfState((1, 2, 300))


@pytest.mark.parametrize(
    "unknown",
    [b"\xf8\x3f\x07", b"\xfa\x3f\x03abc", b"\xfd\x3f\0\0\0\0", b"\xf9\x3f\0\0\0\0\0\0\0\0"],
    ids=["varint", "octets", "fixed32", "fixed64"],
)
def test_unknown_fields_are_passed_over(unknown: bytes) -> None:
    m = Message(MSG_APP, to=1, from_id=2, term=3, entries=[Entry(3, 4)])
    octets = encode_message(m)
    assert encode_message(decode_message(unknown + octets + unknown)) == octets
    assert decode_entry(encode_entry(Entry(3, 4)) + unknown) == Entry(3, 4)


def test_a_type_from_the_future_is_one_that_nobody_accepts() -> None:
    assert decode_message(b"\x08\x63\x10\x01").type == MSG_HUP


def test_a_snapshot_is_read_from_no_other_message_than_msgsnap() -> None:
    octets = encode_message(Message(MSG_APP, snapshot=Snapshot(5, 2)))
    assert decode_message(octets).snapshot is None
    bare = decode_message(b"\x08\x07").snapshot
    assert bare is not None
    assert (bare.index, bare.term) == (0, 0)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x08",
        b"\x08\x80",
        b"\x3a\x05\x08",
        b"\x4a\x02\x12\x05",
        b"\x07",
        b"\x08" + b"\xff" * 11,
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x00\x01",
    ],
)
def test_octets_that_are_no_message_are_refused_in_words(octets: bytes) -> None:
    with pytest.raises(MalformedMessageError, match=f"{len(octets)} octets are no raftpb.Message"):
        decode_message(octets)
    if octets[:1] not in (b"\x3a", b"\x4a"):
        with pytest.raises(MalformedMessageError, match=r"are no raftpb\.Entry"):
            decode_entry(octets)


@SLOW_MACHINE
@given(st.binary(max_size=60))
def test_any_octets_are_a_message_or_refused(octets: bytes) -> None:
    try:
        m = decode_message(octets)
    except MalformedMessageError:
        return
    assert "Message(" in repr(m)


def test_remembered_ids_are_bounded() -> None:
    for member_id in range(1 << 60, (1 << 60) + codec.MEMBER_OCTETS_MAX + 10):
        octets = encode_message(Message(MSG_HEARTBEAT, to=member_id))
        assert decode_message(octets).to == member_id
    assert len(codec._member_octets) <= codec.MEMBER_OCTETS_MAX


def test_normal_is_the_type_of_an_entry_that_names_none() -> None:
    assert decode_entry(b"").type == ENTRY_NORMAL
