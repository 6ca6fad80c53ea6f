"""Raft messages for tests of the peer protocol: strategies, and a form that can be compared."""

from __future__ import annotations

from hypothesis import strategies as st

from etcdtw.raft.entry import ConfState, Entry, Snapshot
from etcdtw.raft.message import LOCAL_TYPES, MESSAGE_NAMES, MSG_SNAP, Message
from etcdtw.rafthttp.codec import encode_message

U64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
IDS = st.lists(U64, max_size=4).map(tuple)

entries = st.builds(Entry, U64, U64, st.integers(0, 2), st.binary(max_size=40))
conf_states = st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans())
snapshots = st.builds(Snapshot, U64, U64, conf_states, st.binary(max_size=40))


@st.composite
def messages(draw: st.DrawFn, types: tuple[int, ...] = tuple(range(len(MESSAGE_NAMES)))) -> Message:
    """Any message that the octets can carry; only a MsgSnap has a snapshot."""
    kind = draw(st.sampled_from(types))
    return Message(
        kind,
        to=draw(U64),
        from_id=draw(U64),
        term=draw(U64),
        log_term=draw(U64),
        index=draw(U64),
        entries=draw(st.lists(entries, max_size=4)),
        commit=draw(U64),
        snapshot=draw(snapshots) if kind == MSG_SNAP else None,
        reject=draw(st.booleans()),
        reject_hint=draw(U64),
        context=draw(st.binary(max_size=20)),
    )


REMOTE_TYPES = tuple(i for i in range(len(MESSAGE_NAMES)) if i not in LOCAL_TYPES)


def same(messages: list[Message]) -> list[bytes]:
    """Return what compares equal when the messages do."""
    return [encode_message(m) for m in messages]
