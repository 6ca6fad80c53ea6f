"""Log lines: twisted.logger events in, JSON or console lines out.

The JSON form is etcd's: ``level``, ``ts``, ``logger``, ``caller``, ``msg``, then the event's own
fields.
What must not be seen (`SECRET_FIELDS`) is masked here, whoever logs it.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import syslog
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from types import FrameType
from typing import Final, NamedTuple, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.config.log_rotation import LogRotation
from etcdtw.server.process.log_files import FileOutput, RotatingOutput

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
_CALLER: Final = re.compile(r'"caller":"([\w.]+)/')
"""The package in a line of JSON: etcd gives the journal a field of it."""
_PRIORITIES: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "fatal": 2}
TWISTED: Final = "twisted"
LEGACY: Final = "log_legacy"
"""The namespace of what Twisted logs in its older way."""
SYSLOG: Final = "syslog"
_FIELD_LENGTH_MAX: Final = 4096
"""Characters of one field; a longer one is cut, so that no event can flood the log."""
_PLUMBING: Final = frozenset(("format", "message", "time", "system", "isError", "failure", "why"))
"""Keys that twisted's older logging adds to events."""

FRAMES_MAX: Final = 16
"""Frames that are looked through for the caller: twisted.logger's own are five or so."""


class LineHead(NamedTuple):
    """What every line begins with."""

    when: datetime
    level: str
    logger: str
    caller: str
    """File and line, as ``loop/turn.py:17``; without the line where it is not known."""


LineForm = Callable[[LineHead, str, dict[str, object]], str]
"""head, message, fields -> one line without its end"""


def json_line(head: LineHead, message: str, fields: dict[str, object]) -> str:
    """Return the line as etcd's JSON encoder has it."""
    record: dict[str, object] = {"level": head.level, "ts": _timestamp(head.when)}
    if head.logger:
        record["logger"] = head.logger
    if head.caller:
        record["caller"] = head.caller
    record["msg"] = message
    record.update(fields)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def console_line(head: LineHead, message: str, fields: dict[str, object]) -> str:
    """Return the line for eyes: time, level, logger, message, fields as JSON."""
    parts = [_timestamp(head.when), head.level, head.logger or "-", message]
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


def _caller(namespace: str) -> str:
    """Return who logs: the frame of the module of ``namespace`` on the way to here.

    Compiled modules have no frames, and events that were kept for later have left theirs: then it
    is the module alone.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            break
        module = str(frame.f_globals.get("__name__"))
        if namespace == module or namespace.startswith(f"{module}."):
            return f"{_file(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    module, _, last = namespace.rpartition(".")
    name = module if last[:1].isupper() else namespace  # loggers of classes bear their names, too
    return _file(f"{name.replace('.', '/')}.py") if name else ""


def _file(path: str) -> str:
    """Return the file and its folder, as etcd has it."""
    return "/".join(PurePath(path).parts[-2:])


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
        head = LineHead(when, name, logger, _caller(logger))
        line = self._form(head, formatEvent(masked), _fields_of(event))
        for write in self._outputs:
            write(name, line)

    @property
    def has_files(self) -> bool:
        return any(isinstance(output, FileOutput) for output in self._outputs)

    def reopen(self) -> None:
        """Begin every file anew, as twistd's own log does at SIGUSR1: for logrotate."""
        for output in self._outputs:
            if isinstance(output, FileOutput):
                output.reopen()


def stream_output(stream: TextIO) -> Callable[[str, str], None]:
    """Return an output that writes lines to ``stream``, each at once."""

    def write(_level: str, line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write


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
        caller = _CALLER.search(line)
        if caller is not None:
            entry += f"PACKAGE={caller[1]}\n"
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


@dataclass(frozen=True, kw_only=True)
class Rotates:
    """How files are put aside; ``unix_s`` tells the time."""

    rotation: LogRotation
    unix_s: Callable[[], float]


def open_output(name: str, rotates: Rotates | None = None) -> Callable[[str, str], None]:
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
    if rotates is None:
        return FileOutput(name)
    return RotatingOutput(name, rotates.rotation, unix_s=rotates.unix_s)


def build_observer(
    outputs: Sequence[str], level: str, form: str, rotates: Rotates | None = None
) -> LineObserver:
    """Return the observer that ``--log-outputs``, ``--log-level``, ``--log-format`` ask for.

    An empty form is console on a terminal, else JSON.  Raises OSError for a file that cannot
    be opened.
    """
    if not form:
        form = "console" if _stderr().isatty() else "json"
    line = json_line if form == "json" else console_line
    return LineObserver(line, level, [open_output(name, rotates) for name in outputs])
