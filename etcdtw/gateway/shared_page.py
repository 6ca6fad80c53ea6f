"""A page whose rendering costs: those who ask much at once share one.

Pure: ``seconds`` tells the time, ``soon`` calls back when the reactor has served others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.http2.flow import TokenBucket

BURST: Final = 16
"""Renderings that may be asked for in short order, each of the very moment."""
SUDDEN: Final = 4
"""Of those, the ones that may follow each other at once; one holds everybody up for half a ms."""
SUDDEN_PER_S: Final = 25
PER_S: Final = 2
"""Renderings a second beyond them: what others get is older by half a second at the most."""


class SharedPage:
    """Renders anew as often as is granted, and hands out the last rendering in between.

    Those who ask within one iteration of the reactor share a rendering in any case.
    """

    def __init__(
        self,
        render: Callable[[], bytes],
        seconds: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._render = render
        self._seconds = seconds
        self._soon = soon
        self._is_of_now = False
        self._sudden = TokenBucket(SUDDEN, SUDDEN_PER_S)
        self._renderings = TokenBucket(BURST, PER_S)
        self._last = b""

    def body(self) -> bytes:
        if self._is_of_now:
            return self._last
        now_ms = int(self._seconds() * 1000)
        if self._sudden.take(now_ms) and self._renderings.take(now_ms):
            self._last = self._render()
            self._is_of_now = True
            self._soon(self._passed)
        return self._last

    def _passed(self) -> None:
        self._is_of_now = False
