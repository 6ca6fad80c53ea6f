"""Events in, lines out."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from etcdtw.config.log_rotation import LogRotation
from etcdtw.server.process.log_output import (
    MASK,
    LineObserver,
    Rotates,
    build_observer,
    console_line,
    journal_output,
    json_line,
    stream_output,
)


def logged(level: str = "info", form: str = "json", **fields: object) -> list[str]:
    """Log one event of each level through an observer and return the lines."""
    stream = io.StringIO()
    line = json_line if form == "json" else console_line
    publisher = LogPublisher(LineObserver(line, level, [stream_output(stream)]))
    logger = Logger("test", observer=publisher)
    for name in ("debug", "info", "warn", "error", "critical"):
        getattr(logger, name)("became leader at term {term}", term=3, **fields)
    return stream.getvalue().splitlines()


def test_json_lines_have_etcds_fields_in_etcds_order() -> None:
    record = json.loads(logged()[0])
    assert list(record) == ["level", "ts", "logger", "caller", "msg", "term"]
    assert (record["level"], record["msg"], record["term"]) == (
        "info",
        "became leader at term 3",
        3,
    )
    assert record["ts"].endswith("Z")
    assert len(record["ts"]) == len("2006-01-02T15:04:05.000000Z")


def test_console_lines_are_separated_by_tabs() -> None:
    _, level, logger, message, fields = logged(form="console")[0].split("\t")
    assert (level, logger, message) == ("info", "test", "became leader at term 3")
    assert json.loads(fields) == {"term": 3}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warn", "error", "fatal"]),
        ("info", ["info", "warn", "error", "fatal"]),
        ("warn", ["warn", "error", "fatal"]),
        ("error", ["error", "fatal"]),
        ("panic", ["fatal"]),
        ("fatal", ["fatal"]),
    ],
)
def test_only_events_at_or_above_the_level_are_written(level: str, expected: list[str]) -> None:
    assert [json.loads(line)["level"] for line in logged(level)] == expected


def test_secrets_are_masked_in_fields_and_messages() -> None:
    stream = io.StringIO()
    observer = LineObserver(json_line, "info", [stream_output(stream)])
    Logger("test", observer=observer).info("user {user} said {password}", user="u", password="p4ss")
    assert "p4ss" not in stream.getvalue()
    record = json.loads(stream.getvalue())
    assert (record["msg"], record["password"]) == (f"user u said {MASK}", MASK)


def test_values_of_any_kind_become_json() -> None:
    record = json.loads(
        logged(octets=b"\xff\x00k", many=(1, "a", {2}), long="x" * 5000, none=None)[0]
    )
    assert record["octets"] == "\\xff\u0000k"
    assert record["many"] == [1, "a", [2]]
    assert len(record["long"]) == 4096 + 3
    assert record["none"] is None


def test_failure_is_an_error_with_its_stack() -> None:
    stream = io.StringIO()
    observer = LineObserver(json_line, "info", [stream_output(stream)])
    try:
        raise ValueError("oh")
    except ValueError:
        Logger("test", observer=observer).failure("it broke", Failure())
    record = json.loads(stream.getvalue())
    assert (record["level"], record["error"]) == ("error", "oh")
    assert "ValueError" in record["stacktrace"]


def test_event_without_level_or_format_is_survived() -> None:
    stream = io.StringIO()
    observer = LineObserver(json_line, "info", [stream_output(stream)])
    event: LogEvent = {"log_time": 0.0, "log_text": "x", "message": ("m",)}
    observer(event)
    observer({"log_time": 0.0, "log_level": LogLevel.info, "log_format": "{absent}"})
    assert len(stream.getvalue().splitlines()) == 2


def test_file_output_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "etcdtw.log"
    path.write_text("before\n")
    observer = build_observer([str(path)], "info", "json")
    Logger("test", observer=observer).info("after")
    assert path.read_text().splitlines()[0] == "before"
    assert json.loads(path.read_text().splitlines()[1])["msg"] == "after"


def test_stderr_that_is_no_terminal_gets_json(capfd: pytest.CaptureFixture[str]) -> None:
    Logger("test", observer=build_observer(["stderr", "stdout"], "info", "")).info("hello")
    captured = capfd.readouterr()
    assert json.loads(captured.err)["msg"] == "hello"
    assert captured.err == captured.out


def test_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        build_observer([str(tmp_path / "no" / "log")], "info", "json")


def test_journal_gets_one_datagram_a_line(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal_output(path)("warn", "a line\nbroken")
        assert journal.recv(1000) == (
            b"MESSAGE=a line\\nbroken\nPRIORITY=4\nSYSLOG_IDENTIFIER=etcdtw\n"
        )


def test_journal_is_told_the_package_that_logs(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        observer = LineObserver(json_line, "info", [journal_output(path)])
        Logger(__name__, observer=observer).warn("told")
        fields = journal.recv(1000).decode().splitlines()
    assert fields[1:] == ["PRIORITY=4", "SYSLOG_IDENTIFIER=etcdtw", "PACKAGE=process"]


def test_without_a_journal_lines_go_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journal_output(str(tmp_path / "none"))("info", "line")
    assert capfd.readouterr().err == "line\n"


def test_twisteds_own_lines_are_no_news() -> None:
    stream = io.StringIO()
    observer = LineObserver(json_line, "info", [stream_output(stream)])
    for level in (LogLevel.info, LogLevel.critical):
        observer(
            {
                "log_level": level,
                "log_namespace": "log_legacy",
                "log_time": 0.0,
                "log_format": "PeerPort starting on 2380",
            }
        )
    (line,) = stream.getvalue().splitlines()
    assert (json.loads(line)["level"], json.loads(line)["logger"]) == ("error", "twisted")


def test_the_caller_is_file_and_line_or_the_module_alone() -> None:
    stream = io.StringIO()
    observer = LineObserver(json_line, "info", [stream_output(stream)])
    Logger(__name__, observer=observer).info("here")
    Logger(f"{__name__}.OfAClass", observer=observer).info("here, too")
    Logger("etcdtw.raft.log", observer=observer).info("compiled, or kept for later")
    Logger("etcdtw.raft.log.OfAClass", observer=observer).info("so, too")
    Logger("", observer=observer).info("nobody knows")
    here, here_too, elsewhere, so_too, nowhere = [
        json.loads(line) for line in stream.getvalue().splitlines()
    ]
    line = test_the_caller_is_file_and_line_or_the_module_alone.__code__.co_firstlineno + 3
    assert here["caller"] == f"process/test_log_output.py:{line}"
    assert here_too["caller"] == f"process/test_log_output.py:{line + 1}"
    assert elsewhere["caller"] == so_too["caller"] == "raft/log.py"
    assert "caller" not in nowhere


def test_files_rotate_when_told_to(tmp_path: Path) -> None:
    rotation = LogRotation(
        size_max=1, age_max_s=0, backups_max=0, is_local_time=False, compresses=False
    )
    rotates = Rotates(rotation=rotation, unix_s=lambda: 0.0)
    observer = build_observer([str(tmp_path / "log")], "info", "json", rotates)
    assert observer.has_files
    for word in ("one", "two"):
        Logger("test", observer=observer).info(word)
    assert len(list(tmp_path.iterdir())) == 2
    assert not build_observer(["stderr"], "info", "json", rotates).has_files
