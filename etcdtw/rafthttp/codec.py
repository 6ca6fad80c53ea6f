"""Octets of etcd's ``raftpb.Message`` and ``raftpb.Entry`` as they travel between members.

Encoding is that of etcd up to 3.6: every scalar is present even when it is zero, and so is an
empty snapshot.  Newer members leave zeros out; both forms are read.  Knows no framing.

``vote`` and ``responses`` belong to messages between a member and its disk and never travel;
a snapshot is only read from a ``MsgSnap``.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from etcdtw.raft.entry import ENTRY_CONF_CHANGE_V2, ConfState, Entry, Snapshot
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.wire import raftpb
from etcdtw.wire.encode import encode_varint, read_varint

MEMBER_OCTETS_MAX: Final = 4096
"""Ids whose encoding is remembered; they are as many as the cluster ever had members."""

_EMPTY_SNAPSHOT: Final = bytes.fromhex("4a0a12080a02280010001800")
_member_octets: dict[int, bytes] = {}


class MalformedMessageError(ValueError):
    """The octets are no message, or no entry."""


def encode_entry(entry: Entry) -> bytes:
    """Return ``entry`` as a ``raftpb.Entry``; empty data is left out, as etcd does."""
    head = b"\x08%b\x10%b\x18%b" % (
        encode_varint(entry.type),
        encode_varint(entry.term),
        encode_varint(entry.index),
    )
    data = entry.data
    return b'%b"%b%b' % (head, encode_varint(len(data)), data) if data else head


def encode_message(m: Message) -> bytes:
    """Return ``m`` as a ``raftpb.Message``."""
    head = b"\x08%b\x10%b\x18%b\x20%b\x28%b\x30%b" % (
        encode_varint(m.type),
        _encode_member(m.to),
        _encode_member(m.from_id),
        encode_varint(m.term),
        encode_varint(m.log_term),
        encode_varint(m.index),
    )
    parts = [head]
    for entry in m.entries:
        octets = encode_entry(entry)
        parts += (b"\x3a", encode_varint(len(octets)), octets)
    parts.append(
        b"\x40%b%b\x50%b\x58%b"
        % (
            encode_varint(m.commit),
            _EMPTY_SNAPSHOT if m.snapshot is None else _encode_snapshot(m.snapshot),
            b"\x01" if m.reject else b"\x00",
            encode_varint(m.reject_hint),
        )
    )
    if m.context:
        parts += (b"\x62", encode_varint(len(m.context)), m.context)
    return b"".join(parts)


def decode_entry(octets: bytes) -> Entry:
    """Parse one ``raftpb.Entry``.  Raises `MalformedMessageError`."""
    entry = _decode_usual_entry(octets)
    if entry is not None:
        return entry
    try:
        found = raftpb.Entry.FromString(octets)
    except DecodeError as error:
        raise MalformedMessageError(f"{len(octets)} octets are no raftpb.Entry") from error
    return Entry(found.Term, found.Index, found.Type, found.Data)


def decode_message(octets: bytes) -> Message:
    """Parse one ``raftpb.Message``.  Raises `MalformedMessageError`.

    A type from the future reads as ``MsgHup``, which nobody accepts from a peer.
    """
    try:
        found = raftpb.Message.FromString(octets)
    except DecodeError as error:
        raise MalformedMessageError(f"{len(octets)} octets are no raftpb.Message") from error
    return Message(
        found.type,
        to=found.to,
        from_id=getattr(found, "from"),
        term=found.term,
        log_term=found.logTerm,
        index=found.index,
        entries=[Entry(e.Term, e.Index, e.Type, e.Data) for e in found.entries],
        commit=found.commit,
        snapshot=_decode_snapshot(found.snapshot) if found.type == MSG_SNAP else None,
        reject=found.reject,
        reject_hint=found.rejectHint,
        context=found.context,
    )


def _decode_usual_entry(octets: bytes) -> Entry | None:
    """Read an entry as etcd up to 3.6 writes it; None: it is written otherwise, or badly."""
    size = len(octets)
    if size < 6 or octets[0] != 0x08 or octets[1] > ENTRY_CONF_CHANGE_V2 or octets[2] != 0x10:
        return None
    try:
        term, position = read_varint(octets, 3)
        if octets[position] != 0x18:
            return None
        index, position = read_varint(octets, position + 1)
        if position == size:
            return Entry(term, index, octets[1])
        if octets[position] != 0x22:
            return None
        length, position = read_varint(octets, position + 1)
    except (ValueError, IndexError):
        return None
    return Entry(term, index, octets[1], octets[position:]) if position + length == size else None


def _encode_member(member_id: int) -> bytes:
    """Return the varint of an id; they are ten octets long and always the same few."""
    octets = _member_octets.get(member_id)
    if octets is None:
        if len(_member_octets) >= MEMBER_OCTETS_MAX:
            _member_octets.clear()
        octets = _member_octets[member_id] = encode_varint(member_id)
    return octets


def _encode_snapshot(snapshot: Snapshot) -> bytes:
    conf = _encode_conf_state(snapshot.conf_state)
    metadata = b"\x0a%b%b\x10%b\x18%b" % (
        encode_varint(len(conf)),
        conf,
        encode_varint(snapshot.index),
        encode_varint(snapshot.term),
    )
    body = b"\x12%b%b" % (encode_varint(len(metadata)), metadata)
    if snapshot.data:
        body = b"\x0a%b%b%b" % (encode_varint(len(snapshot.data)), snapshot.data, body)
    return b"\x4a%b%b" % (encode_varint(len(body)), body)


def _encode_conf_state(conf: ConfState) -> bytes:
    groups = (
        (b"\x08", conf.voters),
        (b"\x10", conf.learners),
        (b"\x18", conf.voters_outgoing),
        (b"\x20", conf.learners_next),
    )
    ids = [tag + encode_varint(member_id) for tag, members in groups for member_id in members]
    return b"".join(ids) + (b"\x28\x01" if conf.auto_leave else b"\x28\x00")


def _decode_snapshot(found: raftpb.Snapshot) -> Snapshot:
    conf = found.metadata.conf_state
    return Snapshot(
        found.metadata.index,
        found.metadata.term,
        ConfState(
            tuple(conf.voters),
            tuple(conf.learners),
            tuple(conf.voters_outgoing),
            tuple(conf.learners_next),
            conf.auto_leave,
        ),
        found.data,
    )
