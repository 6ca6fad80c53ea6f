"""Answers in JSON: statuses, errors, lines, and what a source does in between."""

from __future__ import annotations

import json
from typing import cast

import pytest
from twisted.internet.task import Clock

from etcdtw.client.channel import Stream
from etcdtw.gateway.json_answers import (
    MessageParts,
    error_answer,
    error_line,
    message_answer,
    stream_error_answer,
)
from etcdtw.gateway.json_lines import LineParts
from etcdtw.gateway.transcoding.tables import table_of
from etcdtw.gateway.transcoding.writing import PIECE_SIZE
from etcdtw.gateway.turns import Turns
from etcdtw.grpc.call import StatusError
from etcdtw.wire import etcdserverpb as pb
from tests.gateway.page_rig import Source

STATUSES = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


@pytest.mark.parametrize(("code", "status"), STATUSES.items())
def test_every_code_has_its_status(code: int, status: int) -> None:
    answer = error_answer(code, 'a "text"')
    assert answer.status == stream_error_answer(code, "").status == status
    assert json.loads(answer.body) == {"code": code, "message": 'a "text"'}
    assert bool(answer.fields) is (code == 16)


def test_an_error_of_a_stream_is_a_line() -> None:
    assert error_line(2, "ü\n") == '{"error":{"code":2,"message":"ü\\n"}}\n'.encode()


def test_a_message_is_an_object() -> None:
    octets = pb.CompactionResponse(header=pb.ResponseHeader(revision=5)).SerializeToString()
    answer = message_answer(table_of(pb.CompactionResponse), octets)
    assert (answer.status, answer.body) == (200, b'{"header":{"revision":"5"}}')


class PartsRig:
    def __init__(self, kind: type[LineParts] | type[MessageParts], first: bytes) -> None:
        self.clock = Clock()
        self.source = Source()
        stream = cast(Stream, self.source)
        self.parts = kind(table_of(pb.SnapshotResponse), first, stream, Turns(self.clock))

    def take(self) -> bytes | str | None:
        """Return the next part, the text of a failure, or ``...``: there is none yet."""
        found: list[bytes | str | None] = []
        asked = self.parts.receive()
        asked.addCallbacks(found.append, lambda failure: found.append(failure.type.__name__))
        self.clock.advance(0)
        return found[0] if found else "..."


def blob(size: int) -> bytes:
    octets: bytes = pb.SnapshotResponse(blob=bytes(size)).SerializeToString()
    return octets


def test_lines_come_as_messages_do() -> None:
    rig = PartsRig(LineParts, blob(1))
    assert rig.take() == b'{"result":{"blob":"AA=="}}\n'
    rig.source.give(blob(0), None)
    assert rig.take() == b'{"result":{}}\n'
    assert rig.take() is None
    assert rig.take() is None


def test_a_large_line_comes_in_pieces_before_the_next_one() -> None:
    rig = PartsRig(LineParts, blob(3 * PIECE_SIZE))
    rig.source.give(blob(1), None)
    text = b""
    while not text.endswith(b"\n"):
        part = rig.take()
        assert isinstance(part, bytes)
        text += part
    assert len(json.loads(text)["result"]["blob"]) == 4 * PIECE_SIZE
    assert rig.take() == b'{"result":{"blob":"AA=="}}\n'


def test_the_last_line_tells_of_the_failure() -> None:
    rig = PartsRig(LineParts, blob(1))
    rig.take()
    rig.source.give(StatusError(14, "etcdserver: no leader"))
    assert rig.take() == b'{"error":{"code":14,"message":"etcdserver: no leader"}}\n'
    assert rig.take() is None
    rig.parts.cancel()
    assert rig.source.cancels == 1


def test_a_large_message_is_asked_for_as_it_is_read() -> None:
    octets = blob(100)
    rig = PartsRig(MessageParts, octets[:2])
    assert rig.take() == b"{"
    rig.source.give(octets[2:50], octets[50:], None)
    assert rig.take() == b'"blob":"%b"' % (b"A" * 134 + b"==")
    assert rig.take() == b"}"
    assert rig.take() is None


def test_a_large_message_that_breaks_off_is_seen_not_to_be_whole() -> None:
    rig = PartsRig(MessageParts, blob(100)[:50])
    rig.source.give(StatusError(14, "gone"))
    assert rig.take() == b"{"
    assert rig.take() == "StatusError"
    cut = PartsRig(MessageParts, blob(100)[:50])
    cut.source.give(None)
    assert cut.take() == b"{"
    assert cut.take() == "MalformedError"
