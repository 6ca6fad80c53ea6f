"""The pages under ``/debug/pprof/``: one profile at a time, made by a thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from etcdtw.gateway.pages import INTERNAL_SERVER_ERROR, OK, Answer, Arguments, Page
from etcdtw.server.profiles.pprof import Stack, encode_profile, folded
from etcdtw.server.profiles.sampling import PERIOD_S, sample_cpu, sample_memory, threads_text

PREFIX: Final = b"/debug/pprof/"
OCTETS: Final = b"application/octet-stream"
HTML: Final = b"text/html; charset=utf-8"
CPU_S: Final = 30
MEMORY_S: Final = 5
SECONDS_MAX: Final = 300
IN_USE: Final = b"Could not enable CPU profiling: cpu profiling already in use\n"
INDEX: Final = b"""<html><head><title>/debug/pprof/</title></head><body><p>/debug/pprof/</p><ul>
<li><a href="profile?seconds=30">profile</a>: where CPU time goes, for go tool pprof;
 with debug=1 as lines for a flame graph</li>
<li><a href="heap?seconds=5">heap</a>: what is allocated meanwhile and not freed (slows the member)
</li>
<li><a href="goroutine">goroutine</a>: where each thread is</li>
<li><a href="cmdline">cmdline</a></li>
</ul></body></html>
"""

Sampled = dict[Stack, tuple[int, int]]
Sample = Callable[[float, threading.Event, Callable[[], float]], Sampled]
"""seconds, what ends it earlier, the time -> values by stack"""


class Profiles:
    """Makes a profile at a time for whoever asks; ends it when they leave."""

    def __init__(
        self,
        reactor: object,
        unix_ns: Callable[[], int],
        cpu: Sample = sample_cpu,
        memory: Sample = sample_memory,
    ) -> None:
        self._threads = cast(IReactorFromThreads, reactor)
        self._now_s = cast(IReactorTime, reactor).seconds
        self._unix_ns = unix_ns
        self._cpu = cpu
        self._memory = memory
        self._stop: threading.Event | None = None

    def pages(self) -> dict[bytes, Page]:
        return {
            PREFIX: lambda _arguments: Answer(OK, INDEX, HTML),
            PREFIX + b"profile": self._cpu_page,
            PREFIX + b"heap": self._memory_page,
            PREFIX + b"allocs": self._memory_page,
            PREFIX + b"goroutine": lambda _arguments: Answer(OK, threads_text().encode()),
            PREFIX + b"cmdline": lambda _arguments: Answer(OK, "\0".join(sys.argv).encode()),
        }

    def stop(self) -> None:
        """End what is under way."""
        if self._stop is not None:
            self._stop.set()

    def _cpu_page(self, arguments: Arguments) -> Answer | Deferred[Answer]:
        kinds = (("samples", "count"), ("cpu", "nanoseconds"))
        return self._make(self._cpu, kinds, arguments, CPU_S, int(PERIOD_S * 1e9))

    def _memory_page(self, arguments: Arguments) -> Answer | Deferred[Answer]:
        kinds = (("inuse_objects", "count"), ("inuse_space", "bytes"))
        return self._make(self._memory, kinds, arguments, MEMORY_S, 1)

    def _make(
        self,
        sample: Sample,
        kinds: tuple[tuple[str, str], ...],
        arguments: Arguments,
        default_s: float,
        period: int,
    ) -> Answer | Deferred[Answer]:
        if self._stop is not None:
            return Answer(INTERNAL_SERVER_ERROR, IN_USE)
        seconds = seconds_of(arguments, default_s)
        is_text = arguments.get(b"debug", [b"0"])[0] not in (b"", b"0")
        stop = self._stop = threading.Event()
        answer: Deferred[Answer] = Deferred(lambda _: stop.set())

        def make() -> Answer:
            begun_ns = self._unix_ns()
            samples = sample(seconds, stop, self._now_s)
            if is_text:
                return Answer(OK, folded(samples).encode())
            duration_ns = self._unix_ns() - begun_ns
            octets = encode_profile(
                samples, kinds, time_ns=begun_ns, duration_ns=duration_ns, period=period
            )
            return Answer(OK, octets, OCTETS)

        def work() -> None:
            try:
                made: Answer | Failure = make()
            except Exception:  # told to whoever asked
                made = Failure()
            self._threads.callFromThread(done, made)

        def done(made: Answer | Failure) -> None:
            self._stop = None
            if not answer.called:
                answer.callback(made)  # a Failure goes on as one

        threading.Thread(target=work, name="profile", daemon=True).start()
        return answer


def seconds_of(arguments: Arguments, default_s: float) -> float:
    """Return what ``seconds=`` says, within bounds; what is no number counts as not said."""
    try:
        seconds = float(arguments.get(b"seconds", [b""])[0])
    except ValueError:
        return default_s
    return min(seconds, SECONDS_MAX) if seconds > 0 else default_s
