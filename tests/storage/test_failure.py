"""What must stop the member does."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.storage.failure import guarded


def test_a_call_of_the_log_that_raises_on_the_reactor_stops_the_member() -> None:
    queued: list[Callable[[], None]] = []
    stops: list[str] = []
    hand_over = guarded(queued.append, stops.append)
    hand_over(lambda: stops.append("in order"))
    hand_over(lambda: [][1])
    assert stops == []
    for call in queued:
        call()
    assert stops == [
        "in order",
        "what the log has written could not be taken in: list index out of range",
    ]
