"""A server that says anything: the client loses its calls to it, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from etcdtw.grpc.call import StatusError
from tests.client.network.network_rig import NetworkRig, has_come, result_of


def answers(rig: NetworkRig) -> list[Any]:
    """Begin calls of each kind, and return what will come of them."""
    stream = rig.stream()
    stream.send(b"x")
    return [
        rig.channel.unary("/test.Svc/Echo", b"x"),
        rig.channel.unary("/test.Svc/Wait", b"x"),
        stream.receive(),
    ]


def bent(octets: bytes, chance: random.Random) -> bytes:
    """Return ``octets`` with a few of them changed, left out or repeated."""
    bent = bytearray(octets)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(bent))
        match chance.randrange(4):
            case 0:
                bent[at] = chance.randrange(256)
            case 1:
                del bent[at : at + chance.randint(1, 9)]
            case 2:
                bent[at:at] = bent[at : at + chance.randint(1, 20)]
            case _:
                bent[at:at] = chance.randbytes(chance.randint(1, 20))
        if not bent:
            return b"\0"
    return bytes(bent)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_server_says_calls_end_and_nothing_is_raised(seed: int) -> None:
    chance = random.Random(seed)
    rig = NetworkRig(keepalive_ms=1_000, keepalive_timeout_ms=1_000)
    rig.settle()
    link = rig.servers[0].link
    waiting = answers(rig)
    link.core.receive(link.wire.written, 0)
    link.wire.written = b""
    link.is_mute = True
    octets = bent(link.core.take_output(), chance)
    while octets and not link.wire.is_closing:
        size = chance.randint(1, len(octets))
        link.protocol.dataReceived(octets[:size])
        octets = octets[size:]
    link.lose()
    for answer in waiting:
        if not has_come(answer):
            continue
        found = result_of(answer)
        assert found is None or isinstance(found, bytes | StatusError)
    rig.channel.close()
    rig.pump()
    assert all(has_come(answer) for answer in waiting)
    assert rig.channel.calls == 0
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_server(seed: int) -> None:
    chance = random.Random(seed)
    rig = NetworkRig(connection_wait_ms=100)
    rig.servers[0].mode = "mute"
    waiting = answers(rig)
    rig.servers[0].link.protocol.dataReceived(chance.randbytes(200))
    rig.pump()
    rig.clock.advance(0.1)
    assert all(isinstance(result_of(answer), StatusError) for answer in waiting)
    rig.channel.close()
    rig.pump()
    assert rig.clock.getDelayedCalls() == []
