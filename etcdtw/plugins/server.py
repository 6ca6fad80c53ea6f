"""``twistd etcdtw``: one member.

twistd asks a plugin for ``Options`` and ``makeService``.  Its own usage.Options abbreviates
flags, knows no ``-name value`` and has its own exit statuses, so the parsing is ours.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from twisted.application.service import IService
from twisted.python import usage

from etcdtw.server.process.garbage import held_off

with held_off(gc):
    from etcdtw.config.config import Config, TextRequestedError, configure
    from etcdtw.config.flags import STATUS_USAGE, FlagError
    from etcdtw.config.help import help_text
    from etcdtw.server.doors.taken import Taken
    from etcdtw.server.process.background import enter, launch_of
    from etcdtw.server.process.descriptors import RESERVE, raise_limit, share_out
    from etcdtw.server.process.log_output import (
        LineHead,
        Rotates,
        build_observer,
        console_line,
        fatal_event,
        json_line,
    )
    from etcdtw.server.process.readiness import started_environment
    from etcdtw.server.process.services import CANNOT_START
    from etcdtw.server.start.preflight import START_ERRORS, take
    from etcdtw.storage.disk.core_dumps import CORES_ARE_LEFT, forbid_core_dumps

SEEN: Final = frozenset(("stderr", "systemd/journal"))
"""Outputs that are read where stderr is."""
CALLER: Final = "plugins/server.py"
"""Where a line comes from that is written before logging has begun."""


class Options(usage.Options):
    """The command line after ``etcdtw``, by etcd's rules."""

    config: Config
    """Set by `parseOptions`."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the words after ``etcdtw``.  Raises SystemExit with etcd's statuses:
        0 for --help and --version, 2 for a wrong flag, 1 for a wrong configuration.
        """
        self.config = _configure(sys.argv[1:] if options is None else options, os.environ)

    def getUsage(self, width: int | None = None) -> str:
        return help_text()


def _configure(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    try:
        return configure(arguments, environment, lambda path: Path(path).read_bytes())
    except TextRequestedError as request:
        sys.stdout.write(request.text)
        raise SystemExit(0) from None
    except FlagError as error:
        sys.stderr.write(_complaint(error))
        raise SystemExit(error.status) from None


def _complaint(error: FlagError) -> str:
    if error.status == STATUS_USAGE:
        return f"{error.message}\nRun `twistd etcdtw --help` for all flags.\n"
    return _fatal_line("failed to verify flags", error=error.message)


def _fatal_line(message: str, **values: object) -> str:
    """As etcd: a log line, though logging has not begun."""
    form = console_line if sys.stderr.isatty() else json_line
    head = LineHead(datetime.now(UTC), "fatal", "", CALLER)
    return form(head, message, values) + "\n"


def _too_few_descriptors(limit: int) -> str:
    """Return etcd's last words; it names the same number as the one that it recommends."""
    text = "file descriptor limit of etcd process is too low; please set higher"
    return _fatal_line(text, **{"limit": limit, "recommended-limit": RESERVE})


def makeService(options: Options) -> IService:
    """Return the member as a service, its addresses taken.

    Whatever can be known without an event loop is checked here, before twistd forks: a start
    that cannot work raises SystemExit with status 1 and its reason on stderr and in the log.
    """
    with held_off(gc):
        from twisted.internet import reactor

        from etcdtw.server.process.services import MemberService
        from etcdtw.server.services.order import build_member

    config = options.config
    limit = raise_limit()
    shares = share_out(limit)
    if shares is None:
        sys.stderr.write(_too_few_descriptors(limit))
        raise SystemExit(1)
    launch = launch_of(options.parent)
    logging = config.logging
    outputs = launch.outputs(logging.outputs)
    try:
        rotation = logging.rotation
        rotates = None if rotation is None else Rotates(rotation=rotation, unix_s=time.time)
        observer = build_observer(outputs, logging.level, logging.form, rotates)
    except OSError as error:
        sys.stderr.write(_complaint(FlagError(f"--log-outputs: {error}")))
        raise SystemExit(1) from None
    warnings = config.warnings
    started_environment()  # as long as it may be read
    if not config.core_dumps and not forbid_core_dumps():
        warnings = (*warnings, CORES_ARE_LEFT)
    signal.signal(signal.SIGUSR1, lambda number, frame: observer.reopen())
    if observer.has_files:  # else a terminal that is closed still ends the member
        signal.signal(signal.SIGHUP, lambda number, frame: observer.reopen())
    _use_monotonic_time(reactor)
    taken: Taken | None = None
    if not launch.changes_user:
        enter(launch, options.parent)
        try:
            taken = take(config, started_environment(), reactor, datetime.now(UTC))
        except START_ERRORS as error:
            observer(fatal_event(CANNOT_START, time.time(), str(error)))
            if launch.is_daemon or not SEEN.intersection(outputs):
                sys.stderr.write(_fatal_line(CANNOT_START, error=str(error)))
            raise SystemExit(1) from None
    if launch.is_daemon:
        sys.stderr.write(f"etcdtw goes on in the background and logs to {', '.join(outputs)}\n")
    member = build_member(reactor, config, lambda: time.time_ns() // 1_000_000, shares, taken)
    return MemberService(reactor, member, observer, warnings, is_daemon=launch.is_daemon)


def _use_monotonic_time(reactor: Any) -> None:
    """Let timers, deadlines and leases run on a clock that nobody can set.

    Twisted's reactors read the time of day; each asks its own ``seconds``.  Nothing is
    scheduled yet when twistd makes the service.
    """
    assert not reactor.getDelayedCalls()
    reactor.seconds = time.monotonic
