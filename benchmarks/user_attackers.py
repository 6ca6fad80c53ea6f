"""What a stranger may do to a member that asks for users; see `benchmarks.attackers`."""

from __future__ import annotations

import itertools
import os
import socket
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Final

from benchmarks.attackers import IDLE_S, KV, Pace, Target, bursts, drain_for, pour, repeat
from etcdtw.wire import etcdserverpb as pb
from tests.support import wire_frames as wire
from tests.support.user_setup import AUTH

GUESSES_AT_ONCE: Final = 500
GUESSED_NAMES: Final = ("root", "ann", "nobody")
TOKENS_AT_ONCE: Final = 500
HUGE_OCTETS: Final = 8_000_000
SIGNATURE_OCTETS: Final = 256
CLAIMS: Final = b'{"username":"root","revision":1,"exp":99999999999}'
RANGE: Final = wire.grpc_message(pb.RangeRequest(key=b"k").SerializeToString())


def guessed_passwords(target: Target, pace: Pace) -> None:
    """500 wrong passwords at once, of two users and of nobody."""
    block = wire.header_block(wire.grpc_fields(f"{AUTH}Authenticate", target.client))
    numbers = itertools.count()

    def call(stream_id: int) -> bytes:
        number = next(numbers)
        name = GUESSED_NAMES[number % len(GUESSED_NAMES)]
        request = pb.AuthenticateRequest(name=name, password=f"guess {number}")
        message = wire.grpc_message(request.SerializeToString())
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        return head + wire.data_frames(stream_id, message, end=True)

    bursts(target.client, GUESSES_AT_ONCE, call, 4 * IDLE_S, pace, b"")


def _ranges_with(target: Target, pace: Pace, tokens: Iterator[bytes]) -> None:
    fields = wire.grpc_fields(f"{KV}Range", target.client)

    def call(stream_id: int) -> bytes:
        block = wire.header_block([*fields, (b"token", next(tokens))])
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        return head + wire.data_frames(stream_id, RANGE, end=True)

    bursts(target.client, TOKENS_AT_ONCE, call, IDLE_S, pace, b"")


def wrong_tokens(target: Target, pace: Pace) -> None:
    """500 ranges at once, each with another token that nobody was given."""
    _ranges_with(target, pace, (b"%016d.%d" % (i, 1_000_000 + i) for i in itertools.count()))


def wrong_signatures(target: Target, pace: Pace) -> None:
    """500 ranges at once, each with a signed token whose signature is another's."""
    parts = [b'{"alg":"RS256","typ":"JWT"}', CLAIMS]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)

    def tokens() -> Iterator[bytes]:
        while True:
            yield signed + b"." + urlsafe_b64encode(os.urandom(SIGNATURE_OCTETS)).rstrip(b"=")

    _ranges_with(target, pace, tokens())


def huge_tokens(target: Target, pace: Pace) -> None:
    """Signed tokens of 8 MB, one after the other."""
    claims = urlsafe_b64encode(CLAIMS + b" " * HUGE_OCTETS)[:HUGE_OCTETS]
    token = urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').rstrip(b"=") + b"." + claims + b".AA"
    fields = wire.grpc_fields(f"{KV}Range", target.client)
    block = wire.header_block([*fields, (b"token", token)])
    pieces = [block[i : i + wire.FRAME_SIZE] for i in range(0, len(block), wire.FRAME_SIZE)]
    first = 1

    def once(sock: socket.socket) -> bool:
        nonlocal first
        frames = [wire.frame(wire.HEADERS, 0, first, pieces[0])]
        for piece in pieces[1:]:
            flags = wire.END_HEADERS if piece is pieces[-1] else 0
            frames.append(wire.frame(wire.CONTINUATION, flags, first, piece))
        frames.append(wire.data_frames(first, RANGE, end=True))
        done = pour(sock, b"".join(frames), pace) and drain_for(sock, IDLE_S, pace)
        first = first + 2 if done else 1
        return done

    repeat(target.client, once, pace)
