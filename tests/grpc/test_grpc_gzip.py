"""Requests in gzip's form are inflated in bounded steps and answered in the same form."""

from __future__ import annotations

import gc
import gzip
import random
import zlib
from collections.abc import Callable
from typing import Final

import pytest

from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, Call, SendsInParts, StatusError
from etcdtw.grpc.gzip import (
    COMPRESSED_SIZE_MAX,
    HEAD,
    MEMBER_OCTETS,
    STEP_OCTETS,
    Inflater,
    PlainGzip,
)
from etcdtw.grpc.gzip_call import GzipCall, GzipStreamCall, framed
from etcdtw.grpc.inflating import DEFECT, WORK_OCTETS_MAX, InflateQueue, Inflating
from etcdtw.grpc.message import PREFIX, PREFIX_SIZE, frame_message
from etcdtw.grpc.stats import ServerStats
from tests.grpc.grpc_rig import ServerRig

GZIP: Final = (b"grpc-encoding", b"gzip")


def compressed(octets: bytes) -> bytes:
    """Return a gzip file that is the same whenever it is made: names of tests hold it."""
    return gzip.compress(octets, mtime=0)


EMPTY_MEMBER: Final = compressed(b"")


def packed(message: bytes) -> bytes:
    octets = compressed(message)
    return PREFIX.pack(1, len(octets)) + octets


def unpacked(body: bytes) -> list[bytes]:
    messages = []
    while body:
        flag, size = PREFIX.unpack_from(body)
        message = body[5 : 5 + size]
        messages.append(gzip.decompress(message) if flag else message)
        body = body[5 + size :]
    return messages


def inflated(octets: bytes, size_max: int = 1 << 21) -> bytes:
    inflater = Inflater(octets, size_max)
    while not inflater.is_done:
        assert 0 < inflater.step() <= MEMBER_OCTETS + STEP_OCTETS
    return inflater.message()


@pytest.mark.parametrize("size", [0, 1, STEP_OCTETS, STEP_OCTETS + 1, 1 << 20])
@pytest.mark.parametrize("is_random", [False, True])
def test_a_message_is_inflated_in_steps(size: int, is_random: bool) -> None:
    message = random.Random(1).randbytes(size) if is_random else bytes(size)
    assert inflated(compressed(message)) == message


def test_a_file_may_have_several_members() -> None:
    assert inflated(compressed(b"a") + EMPTY_MEMBER + compressed(b"b")) == b"ab"


def test_a_message_may_be_as_large_as_the_bound_and_no_larger() -> None:
    assert len(inflated(compressed(bytes(100_000)), 100_000)) == 100_000
    with pytest.raises(StatusError) as caught:
        inflated(compressed(bytes(100_001)), 100_000)
    assert caught.value.code == RESOURCE_EXHAUSTED
    text = "grpc: received message after decompression larger than max 100000"
    assert caught.value.message == text


def test_a_bomb_is_given_up_one_step_behind_the_bound() -> None:
    inflater = Inflater(compressed(bytes(1 << 24)), 1 << 17)
    while inflater.size + STEP_OCTETS <= 1 << 17:
        inflater.step()
    with pytest.raises(StatusError):
        inflater.step()
    assert inflater.size <= (1 << 17) + STEP_OCTETS


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", "decompress the message: EOF"),
        (b"garbage", "decompress the message: unexpected EOF"),
        (zlib.compress(b"not of gzip's form"), "decompress the message: gzip: invalid header"),
        (compressed(b"abc")[:-6], "read decompressed data: unexpected EOF"),
        (compressed(b"abc")[:12], "read decompressed data: unexpected EOF"),
        (compressed(b"abc")[:-8] + bytes(8), "read decompressed data: gzip: invalid checksum"),
        (compressed(b"abc") + b"xx", "read decompressed data: unexpected EOF"),
        (compressed(b"abc") + bytes(10), "read decompressed data: gzip: invalid header"),
        (
            compressed(b"")[:10] + b"\xff" * 20,
            "read decompressed data: flate: corrupt input before offset 0",
        ),
    ],
)
def test_broken_files_are_told_as_go_does(octets: bytes, text: str) -> None:
    with pytest.raises(StatusError) as caught:
        inflated(octets)
    assert (caught.value.code, caught.value.message) == (INTERNAL, f"grpc: failed to {text}")


@pytest.mark.parametrize("size", [1, 1000, COMPRESSED_SIZE_MAX, COMPRESSED_SIZE_MAX + 1, 200_000])
def test_what_is_compressed_is_a_gzip_file(size: int) -> None:
    message = b"v" * size
    prefixed = b"".join(framed(message))
    flag, length = PREFIX.unpack_from(prefixed)
    octets = prefixed[PREFIX_SIZE:]
    assert (flag, length) == (1, len(octets))
    assert gzip.decompress(octets) == message
    assert (len(octets) > size) == (size > COMPRESSED_SIZE_MAX or size == 1)


@pytest.mark.parametrize("sizes", [[], [1], [65535], [65536], [70_000, 0, 1, 65_535, 200_000]])
def test_a_file_of_stored_blocks_has_the_size_that_was_announced(sizes: list[int]) -> None:
    parts = [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]
    plain = PlainGzip()
    octets = HEAD + b"".join(map(plain.add, parts)) + plain.end()
    assert gzip.decompress(octets) == b"".join(parts)
    assert len(octets) == PlainGzip.size_of(sum(sizes))


# Calls.


@pytest.fixture
def rig() -> ServerRig:
    return ServerRig(message_size_max=10_000)


@pytest.mark.parametrize("wire", [packed(b"hello"), frame_message(b"hello")])
def test_a_unary_call_is_answered_in_the_form_of_its_encoding(rig: ServerRig, wire: bytes) -> None:
    stream_id = rig.begin("Unary", GZIP)
    rig.data(stream_id, wire, True)
    answer = rig.answers[stream_id]
    assert answer.head[b"grpc-encoding"] == b"gzip"
    assert (answer.body[0], unpacked(answer.body)) == (1, [b"hello"])
    assert answer.status == (0, "")
    assert rig.server.open_calls == rig.stats.unfinished_octets == 0
    counts = rig.counts("Unary")
    assert (counts.received_octets, counts.sent_octets) == (5, 5)


def test_an_empty_answer_has_nothing_to_compress(rig: ServerRig) -> None:
    stream_id = rig.begin("Unary", GZIP)
    rig.data(stream_id, frame_message(b""), True)
    assert rig.answers[stream_id].body == bytes(5)


def test_an_error_has_no_encoding(rig: ServerRig) -> None:
    stream_id = rig.begin("Raise", GZIP)
    rig.data(stream_id, packed(b"no"), True)
    assert rig.answers[stream_id].status == (5, "no")
    assert b"grpc-encoding" not in rig.answers[stream_id].head


def test_a_broken_message_ends_the_call(rig: ServerRig) -> None:
    for name in ("Unary", "Bidi"):
        stream_id = rig.begin(name, GZIP)
        rig.data(stream_id, PREFIX.pack(1, 2) + b"xx", True)
        assert rig.answers[stream_id].status[0] == INTERNAL
    assert rig.server.open_calls == rig.stats.unfinished_octets == 0


def test_a_request_of_no_message_fails_as_without_gzip(rig: ServerRig) -> None:
    for name, code in (("Unary", 2), ("Server", 13)):
        stream_id = rig.begin(name, GZIP)
        rig.data(stream_id, b"", True)
        assert rig.answers[stream_id].status[0] == code


def test_an_answer_in_parts_is_one_gzip_file() -> None:
    rig = ServerRig(client_window=1 << 20)
    stream_id = rig.begin("Wait", GZIP)
    rig.data(stream_id, packed(b"x"), True)
    parts = [b"a" * 70_000, b"b" * 5, b"c" * 66_000]
    call = rig.calls[-1]
    call.begin_reply(sum(map(len, parts)))  # type: ignore[attr-defined]
    for part in parts:
        call.continue_reply(part)  # type: ignore[attr-defined]
    call.end_reply()  # type: ignore[attr-defined]
    rig.pump()
    assert unpacked(rig.answers[stream_id].body) == [b"".join(parts)]
    assert rig.answers[stream_id].status == (0, "")


def test_a_stream_goes_both_ways_in_order(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi", GZIP)
    rig.data(stream_id, packed(b"1") + frame_message(b"2") + packed(b"3"), True)
    assert rig.seen == [b"1", b"2", b"3", "half-closed"]
    rig.calls[0].send(b"one")
    rig.calls[0].finish()
    rig.pump()
    assert unpacked(rig.answers[stream_id].body) == [b"one"]
    assert rig.answers[stream_id].head[b"grpc-encoding"] == b"gzip"


def test_what_waits_to_be_inflated_is_counted_until_the_call_is_over(rig: ServerRig) -> None:
    rig.stats.inflations.on_work = lambda: None
    stream_id = rig.begin("Bidi", GZIP)
    rig.data(stream_id, packed(b"1" * 5000) * 3)
    assert rig.seen == []
    assert rig.stats.unfinished_octets > 3 * 20
    rig.client.reset(stream_id, 8)
    rig.pump()
    assert rig.stats.unfinished_octets == 0
    rig.stats.inflations.step()
    assert rig.seen == []


def test_too_much_that_waits_ends_the_call() -> None:
    rig = ServerRig(stats=ServerStats(unfinished_connection_max=1000))
    rig.stats.inflations.on_work = lambda: None
    stream_id = rig.begin("Bidi", GZIP)
    rig.data(stream_id, packed(b"1" * 500) * 20)
    assert rig.answers[stream_id].status[0] == RESOURCE_EXHAUSTED


# Ends.


def answered(rig: ServerRig, stream_id: int) -> None:
    call = rig.calls[-1]
    if isinstance(call, GzipStreamCall):
        call.send(b"one")
        call.finish()
    else:
        call.reply(b"one")
    rig.pump()


def answered_in_parts(rig: ServerRig, stream_id: int) -> None:
    call = rig.calls[-1]
    if isinstance(call, GzipCall):
        call.begin_reply(3)
        call.continue_reply(b"one")
        call.end_reply()
    else:
        call.reply(b"one")
    rig.pump()


def failed(rig: ServerRig, stream_id: int) -> None:
    rig.calls[-1].fail(5, "no")
    rig.pump()


def reset(rig: ServerRig, stream_id: int) -> None:
    rig.client.reset(stream_id, 8)
    rig.pump()


def lost(rig: ServerRig, stream_id: int) -> None:
    rig.server_http2.close()
    rig.server.connection_lost()


def overdue(rig: ServerRig, stream_id: int) -> None:
    rig.server.expire(rig.now_ms + 5_000)
    rig.pump()


@pytest.mark.parametrize("end", [answered, answered_in_parts, failed, reset, lost, overdue])
@pytest.mark.parametrize("name", ["Wait", "Server", "Bidi"])
def test_nothing_stays_of_a_call_however_it_ends(
    name: str, end: Callable[[ServerRig, int], None]
) -> None:
    def alive() -> int:
        kinds = {GzipCall, GzipStreamCall, Inflating}
        return sum([type(found) in kinds for found in gc.get_objects()])

    gc.disable()
    try:
        rig = ServerRig()
        before = alive()
        stream_id = rig.begin(name, GZIP, (b"grpc-timeout", b"5S"))
        rig.data(stream_id, packed(b"1"), name != "Bidi")
        assert alive() == before + 2
        end(rig, stream_id)
        rig.calls.clear()
        # Nor is anything left to the garbage collector: calls are too many for that.
        assert alive() == before
    finally:
        gc.enable()


def test_a_defect_ends_the_call_with_a_status_and_is_told_to_whoever_does_the_work() -> None:
    rig = ServerRig()
    rig.stats.inflations.on_work = lambda: None

    def crash(call: Call, message: bytes) -> bytes:
        raise ZeroDivisionError("a defect")

    rig.methods.add_unary("/test.Svc/Crash", crash)
    broken = rig.begin("Crash", GZIP)
    rig.data(broken, packed(b"1"), True)
    other = rig.begin("Unary", GZIP)
    rig.data(other, packed(b"1"), True)
    queue = rig.stats.inflations
    with pytest.raises(ZeroDivisionError):
        queue.step()
    assert not queue.step(), "the others are served"
    rig.pump()
    assert rig.answers[broken].status == (DEFECT.code, DEFECT.message)
    assert rig.answers[other].status == (0, "")
    assert rig.server.open_calls == rig.stats.unfinished_octets == 0


# Turns.


def test_the_work_of_all_calls_is_done_in_bounded_pieces_each_in_turn() -> None:
    queue = InflateQueue()
    calls: list[int] = []
    queue.on_work = lambda: calls.append(1)
    done: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self._name = name

        def inflated(self, message: bytes) -> None:
            done.append(self._name)

        def inflated_all(self) -> None:
            """No more come."""

        def break_off(self, code: int, message: str) -> None:
            pytest.fail(message)

    def inflating(name: str, size: int, count: int) -> Inflating:
        made = Inflating(1 << 21, Owner(name))
        for _ in range(count):
            made.add(packed(random.Random(0).randbytes(size)))
        queue.add(made)
        return made

    heavy = inflating("heavy", 1 << 20, 20)
    light = inflating("light", 100, 1)
    queue.add(heavy)
    assert len(calls) == 1
    assert queue.step()
    assert done == ["light"], "whoever sends much waits behind itself"
    steps = 1
    while queue.step():
        steps += 1
    assert done.count("heavy") == 20
    assert steps >= 20 * (1 << 20) // (WORK_OCTETS_MAX + STEP_OCTETS)
    assert heavy.held == light.held == 0


def test_a_stream_answers_a_message_in_parts_in_the_form_of_its_encoding() -> None:
    rig = ServerRig(client_window=1 << 20)
    stream_id = rig.begin("Bidi", GZIP)
    rig.data(stream_id, packed(b"1"), True)
    call = rig.calls[0]
    assert isinstance(call, SendsInParts)
    call.send_parts([b"a" * 1_000, b"b" * 100_000])
    rig.pump()
    answer = rig.answers[stream_id]
    assert (answer.body[0], unpacked(answer.body)) == (1, [b"a" * 1_000 + b"b" * 100_000])
