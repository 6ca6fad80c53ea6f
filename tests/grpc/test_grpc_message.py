"""Length-prefixed messages: any chunking, every refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, StatusError
from etcdtw.grpc.message import PREFIX, MessageReader, encode_prefix, frame_message, is_one_message


@given(st.lists(st.binary(max_size=40)), st.integers(1, 17))
def test_messages_survive_any_chunking(messages: list[bytes], step: int) -> None:
    wire = b"".join(map(frame_message, messages))
    reader = MessageReader(100)
    found = []
    for start in range(0, len(wire), step):
        found += reader.feed(wire[start : start + step])
    assert found == messages
    assert reader.is_between_messages


def test_a_reader_knows_that_a_message_is_unfinished() -> None:
    reader = MessageReader(100)
    assert reader.feed(b"\0\0") == []
    seen = [reader.is_between_messages]  # grpc-go takes the beginning of a prefix for nothing
    for octets, messages in ((b"\0\0\2", []), (b"a", []), (b"b", [b"ab"])):
        assert reader.feed(octets) == messages
        seen.append(reader.is_between_messages)
    assert seen == [True, False, False, True]


def test_the_largest_message_passes_and_one_octet_more_is_refused_by_its_prefix() -> None:
    assert MessageReader(10).feed(frame_message(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(StatusError) as caught:
        MessageReader(10).feed(frame_message(b"x" * 11)[:5])
    assert caught.value.code == RESOURCE_EXHAUSTED
    assert caught.value.message == "grpc: received message larger than max (11 vs. 10)"


@pytest.mark.parametrize(
    ("flag", "encoding", "code", "text"),
    [
        (1, b"", INTERNAL, "grpc: compressed flag set with identity or empty encoding"),
        (1, b"identity", INTERNAL, "grpc: compressed flag set with identity or empty encoding"),
        (2, b"gzip", INTERNAL, "grpc: received unexpected payload format 2"),
        (2, b"", INTERNAL, "grpc: received unexpected payload format 2"),
    ],
)
def test_a_flag_other_than_plain_is_refused_as_grpc_go_does(
    flag: int, encoding: bytes, code: int, text: str
) -> None:
    with pytest.raises(StatusError) as caught:
        MessageReader(10, encoding).feed(bytes([flag, 0, 0, 0, 1]))
    assert (caught.value.code, caught.value.message) == (code, text)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 2**24, 2**32 - 1])
def test_a_prefix_holds_the_size_of_its_message(size: int) -> None:
    assert encode_prefix(size) == PREFIX.pack(0, size)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_536])
def test_one_message_is_told_from_less_from_more_and_from_a_compressed_one(size: int) -> None:
    body = frame_message(bytes(size))
    assert is_one_message(body)
    assert not is_one_message(body + b"\0")
    assert not is_one_message(b"\1" + body[1:])
    if size:
        assert not is_one_message(body[:-1])
