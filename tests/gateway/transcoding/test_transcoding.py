"""JSON to octets and back, with google.protobuf.json_format as the oracle."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from google.protobuf import json_format

from etcdtw.gateway.transcoding.exact import ReadingError, read_value
from etcdtw.gateway.transcoding.scanning import NotJsonError, skip_space
from etcdtw.gateway.transcoding.tables import table_of
from etcdtw.gateway.transcoding.usual import USUAL_SIZE_MAX, read_usual
from etcdtw.gateway.transcoding.writing import MalformedError, Writer, write
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3electionpb as epb

SEEDS = range(200)
CLASSES = (
    pb.RangeRequest,
    pb.RangeResponse,
    pb.PutRequest,
    pb.TxnRequest,
    pb.TxnResponse,
    pb.WatchRequest,
    pb.WatchResponse,
    pb.LeaseTimeToLiveResponse,
    pb.MemberListResponse,
    pb.AlarmResponse,
    pb.StatusResponse,
    pb.HashKVResponse,
    pb.AuthRoleGetResponse,
    pb.AuthUserAddRequest,
    pb.DowngradeRequest,
    epb.LeaderResponse,
)


def made(message_class: Any, source: random.Random, depth: int = 4) -> Any:
    """Return a message with random values."""
    message = message_class()
    for field in message.DESCRIPTOR.fields:
        if source.random() < 0.4:
            continue
        is_list = field.is_repeated
        if field.message_type is not None:
            if depth:
                count = source.randrange(3) if is_list else 1
                part = getattr(message, field.name)
                for _ in range(count):
                    made_part = made(type(part.add()) if is_list else type(part), source, depth - 1)
                    if is_list:
                        part[-1].CopyFrom(made_part)
                    else:
                        part.CopyFrom(made_part)
            continue
        if is_list:
            getattr(message, field.name).extend(scalar(field, source) for _ in range(2))
        else:
            setattr(message, field.name, scalar(field, source))  # protobuf
    return message


def scalar(field: Any, source: random.Random) -> Any:
    kind = field.type
    if kind == field.TYPE_BOOL:
        return source.random() < 0.5
    if kind == field.TYPE_BYTES:
        return source.randbytes(source.choice([0, 1, 2, 3, 200]))
    if kind == field.TYPE_STRING:
        return source.choice(["", "a", 'q"\\\n\x01', "ümläut\u2028", "\U0001f600"])
    if kind == field.TYPE_ENUM:
        return source.choice([value.number for value in field.enum_type.values])
    low, high = {
        field.TYPE_INT32: (-(2**31), 2**31 - 1),
        field.TYPE_UINT32: (0, 2**32 - 1),
        field.TYPE_INT64: (-(2**63), 2**63 - 1),
        field.TYPE_UINT64: (0, 2**64 - 1),
    }[kind]
    return source.choice([0, 1, low, high, source.randint(low, high)])


def exact(message_class: Any, text: bytes) -> bytes:
    """Return what the exact reader makes of it; whatever is wrong is raised as `ReadingError`."""
    reading = read_value(table_of(message_class), text, skip_space(text, 0))
    try:
        while True:
            next(reading)
    except StopIteration as stopped:
        octets: bytes = stopped.value[0]
        return octets
    except NotJsonError as error:
        raise ReadingError(str(error)) from None


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_come_back_as_they_went(seed: int) -> None:
    source = random.Random(seed)
    message_class = CLASSES[seed % len(CLASSES)]
    message = made(message_class, source)
    octets = message.SerializeToString()
    text = write(table_of(message_class), octets)
    assert json_format.Parse(text, message_class()) == message
    assert json.loads(text) == json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert exact(message_class, text) == octets
    theirs = json_format.MessageToJson(message).encode()
    assert exact(message_class, theirs) == octets
    compact = json.dumps(json.loads(theirs), ensure_ascii=False).encode()
    usual = read_usual(table_of(message_class), compact)
    if len(compact) <= USUAL_SIZE_MAX and b"\\u" not in compact:
        assert usual == octets
    else:
        assert usual is None


@pytest.mark.parametrize("seed", range(50))
def test_octets_may_come_in_any_parts(seed: int) -> None:
    source = random.Random(seed)
    message_class = CLASSES[seed % len(CLASSES)]
    octets = made(message_class, source).SerializeToString()
    writer = Writer(table_of(message_class))
    text = b""
    at = 0
    while at < len(octets):
        size = source.choice([1, 2, 7, 1000])
        writer.feed(octets[at : at + size])
        at += size
        for _ in range(source.randrange(3)):
            text += writer.piece(source.choice([1, 10, 1000]))
    before = -1
    while writer.has_more and len(text) != before:
        before = len(text)
        text += writer.piece(3)
    while writer.has_more:
        text += writer.piece(100)
    text += writer.end()
    assert text == write(table_of(message_class), octets)


def test_what_is_no_message_is_not_written() -> None:
    table = table_of(pb.RangeResponse)
    for octets in (b"\x0a\x05\x08", b"\x08", b"\x0b\x00", b"\xff" * 11, b"\x0a\x01\x08\x01"):
        with pytest.raises(MalformedError):
            write(table, octets)


def test_unknown_fields_are_left_out() -> None:
    octets = pb.StatusResponse(raftTerm=7).SerializeToString()
    assert write(table_of(pb.PutResponse), octets) == b"{}"
