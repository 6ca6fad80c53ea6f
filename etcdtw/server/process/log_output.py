"""Log lines: twisted.logger events in, JSON or console lines out.

The JSON form is etcd's: ``level``, ``ts``, ``logger``, ``msg``, then the event's own fields.
What must not be seen (`SECRET_FIELDS`) is masked here, whoever logs it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import syslog
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

LEVEL_NAMES: Final = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warn",
    LogLevel.error: "error",
    LogLevel.critical: "fatal",
}
_THRESHOLDS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "panic": LogLevel.critical,
    "fatal": LogLevel.critical,
}
SECRET_FIELDS: Final = frozenset(("password", "token", "secret", "private_key", "authorization"))
MASK: Final = "<redacted>"
JOURNAL_PATH: Final = "/run/systemd/journal/socket"
_PRIORITIES: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "fatal": 2}
TWISTED: Final = "twisted"
LEGACY: Final = "log_legacy"
"""The namespace of what Twisted logs in its older way."""
SYSLOG: Final = "syslog"
_FIELD_LENGTH_MAX: Final = 4096
"""Characters of one field; a longer one is cut, so that no event can flood the log."""
_PLUMBING: Final = frozenset(("format", "message", "time", "system", "isError", "failure", "why"))
"""Keys that twisted's older logging adds to events."""

LineForm = Callable[[datetime, str, str, str, dict[str, object]], str]
"""when, level, logger, message, fields -> one line without its end"""


def json_line(
    when: datetime, level: str, logger: str, message: str, fields: dict[str, object]
) -> str:
    """Return the line as etcd's JSON encoder has it."""
    record: dict[str, object] = {"level": level, "ts": _timestamp(when)}
    if logger:
        record["logger"] = logger
    record["msg"] = message
    record.update(fields)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def console_line(
    when: datetime, level: str, logger: str, message: str, fields: dict[str, object]
) -> str:
    """Return the line for eyes: time, level, logger, message, fields as JSON."""
    parts = [_timestamp(when), level, logger or "-", message]
    if fields:
        parts.append(json.dumps(fields, ensure_ascii=False))
    return "\t".join(parts)


def _timestamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    else:
        text = str(value)
    return text if len(text) <= _FIELD_LENGTH_MAX else text[:_FIELD_LENGTH_MAX] + "..."


def _fields_of(event: LogEvent) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key, value in event.items():
        if key.startswith("log_") or key in _PLUMBING:
            continue
        fields[key] = MASK if key in SECRET_FIELDS else _plain(value)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        fields["error"] = _plain(failure.getErrorMessage())
        fields["stacktrace"] = failure.getTraceback()
    return fields


@implementer(ILogObserver)
class LineObserver:
    """Writes each event at or above a level as one line to every output."""

    def __init__(
        self, form: LineForm, level: str, outputs: Sequence[Callable[[str, str], None]]
    ) -> None:
        self._form = form
        self._threshold = _THRESHOLDS[level]
        self._outputs = tuple(outputs)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level") or LogLevel.info
        logger = str(event.get("log_namespace") or "")
        if logger == LEGACY:
            logger = TWISTED
            # "PeerPort starting on 2380": we say the same in our own words.
            level = LogLevel.debug if level is LogLevel.info else level
        if level < self._threshold:
            return
        name = LEVEL_NAMES[level]
        if name == "fatal" and ("log_failure" in event or logger == TWISTED):
            name = "error"  # a failure somewhere; whether the process ends is not said here
        masked = {key: MASK if key in SECRET_FIELDS else event[key] for key in event}
        when = datetime.fromtimestamp(event["log_time"], UTC)
        line = self._form(when, name, logger, formatEvent(masked), _fields_of(event))
        for write in self._outputs:
            write(name, line)

    def reopen(self) -> None:
        """Begin every file anew: what twistd's own log does at SIGUSR1, for logrotate."""
        for output in self._outputs:
            if isinstance(output, FileOutput):
                output.reopen()


def stream_output(stream: TextIO) -> Callable[[str, str], None]:
    """Return an output that writes lines to ``stream``, each at once."""

    def write(_level: str, line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write


class FileOutput:
    """Writes lines to the end of a file, each at once.  Raises OSError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self._is_old = False

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8")

    def __call__(self, level: str, line: str) -> None:
        if self._is_old:
            self._begin_anew()
        self._file.write(line + "\n")
        self._file.flush()

    def reopen(self) -> None:
        """Write the next line to a file of the same name, the old one having been renamed.

        May be called by a signal's handler, in the middle of a line.
        """
        self._is_old = True

    def _begin_anew(self) -> None:
        self._is_old = False
        with suppress(OSError):
            new = self._open()
            self._file.close()
            self._file = new


def journal_output(path: str = JOURNAL_PATH) -> Callable[[str, str], None]:
    """Return an output to systemd's journal; without a journal it is stderr, as in etcd."""
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.connect(path)
    except OSError:
        sender.close()
        return stream_output(_stderr())
    fallback = stream_output(_stderr())

    def write(level: str, line: str) -> None:
        text = line.replace("\n", "\\n")
        entry = f"MESSAGE={text}\nPRIORITY={_PRIORITIES[level]}\nSYSLOG_IDENTIFIER=etcdtw\n"
        try:
            sender.send(entry.encode())
        except OSError:
            fallback(level, line)

    return write


def syslog_output() -> Callable[[str, str], None]:
    """Return an output to syslog(3)."""
    syslog.openlog("etcdtw", syslog.LOG_PID, syslog.LOG_DAEMON)
    return lambda level, line: syslog.syslog(_PRIORITIES[level], line)


def fatal_event(message: str, unix_s: float, reason: str) -> LogEvent:
    """Return the event of a process that ends before logging has begun."""
    return {
        "log_level": LogLevel.critical,
        "log_time": unix_s,
        "log_format": message,
        "error": reason,
    }


def _stderr() -> TextIO:
    # Not sys.stderr: once logging has begun, Twisted turns that one into log events.
    assert sys.__stderr__ is not None, "a process without stderr"
    return sys.__stderr__


def _stdout() -> TextIO:
    assert sys.__stdout__ is not None, "a process without stdout"
    return sys.__stdout__


def open_output(name: str) -> Callable[[str, str], None]:
    """Open one of ``--log-outputs``; any other word is a file.  Raises OSError.

    (A file called ``syslog`` is written ``./syslog``: the bare word is twistd's ``--syslog``.)
    """
    if name == "stderr":
        return stream_output(_stderr())
    if name == "stdout":
        return stream_output(_stdout())
    if name == "systemd/journal":
        return journal_output()
    if name == SYSLOG:
        return syslog_output()
    return FileOutput(name)


def build_observer(outputs: Sequence[str], level: str, form: str) -> LineObserver:
    """Return the observer that ``--log-outputs``, ``--log-level``, ``--log-format`` ask for.

    An empty form is console on a terminal, else JSON.  Raises OSError for a file that cannot
    be opened.
    """
    if not form:
        form = "console" if _stderr().isatty() else "json"
    line = json_line if form == "json" else console_line
    return LineObserver(line, level, [open_output(name) for name in outputs])
