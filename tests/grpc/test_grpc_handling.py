"""How long calls took, for those who want to know."""

from __future__ import annotations

import pytest

from etcdtw.grpc.stats import ServerStats
from tests.grpc.grpc_rig import PREFIX, ServerRig


class Measured(ServerRig):
    """A rig whose calls are measured by its own time."""

    def __init__(self) -> None:
        stats = ServerStats()
        stats.measure(lambda: self.now_ms)
        super().__init__(stats=stats)

    def seconds(self, name: str) -> tuple[int, float]:
        found = self.stats.handling_s(PREFIX + name)
        return (0, 0.0) if found is None else (found.count, found.total)


@pytest.fixture
def rig() -> Measured:
    return Measured()


def test_a_call_took_as_long_as_it_was_waited_for(rig: Measured) -> None:
    rig.request("Unary", b"x")
    assert rig.seconds("Unary") == (1, 0.0)
    rig.request("Wait", b"x")
    rig.request("Wait", b"x", (b"grpc-timeout", b"9S"))
    assert rig.seconds("Wait") == (0, 0.0)
    for call in rig.calls[-2:]:
        rig.now_ms += 250
        call.reply(b"")
    assert rig.seconds("Wait") == (2, 0.75)


def test_a_call_that_fails_and_a_stream_count_too(rig: Measured) -> None:
    rig.request("Wait", b"x")
    rig.begin("Bidi")
    rig.pump()
    rig.now_ms += 2_000
    for call in list(rig.calls):
        call.fail(14, "no")
    assert rig.seconds("Wait") == (1, 2.0)
    assert rig.seconds("Bidi") == (1, 2.0)
    rig.request("Raise", b"x")
    assert rig.seconds("Raise") == (1, 0.0)


def test_nobody_pays_who_does_not_ask() -> None:
    rig = ServerRig()
    rig.request("Unary", b"x")
    assert not rig.stats.is_measured
    assert rig.stats.handling_s(PREFIX + "Unary") is None
    with pytest.raises(AssertionError):
        rig.stats.measure(lambda: 0)  # too late
