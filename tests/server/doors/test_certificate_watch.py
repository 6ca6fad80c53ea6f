"""Certificates that end: a metric, and warnings in time and not too often."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock

from etcdtw.server.doors.certificate_watch import (
    EXPIRY_WARNED,
    EXPIRY_WARNING_S,
    LOOK_S,
    CertificateWatch,
)
from tests.transport.tls.tls_rig import log_lines

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


class Policy:
    """Files whose certificates end when a test says; new ones are taken at `refresh`."""

    def __init__(self, **ends: datetime) -> None:
        self.ends: Mapping[str, datetime] = ends
        self.new = self.ends

    def refresh(self) -> None:
        self.ends = self.new


class Watched:
    """A watch whose wall clock goes with its clock."""

    def __init__(self, *policies: Policy) -> None:
        self.clock = Clock()
        self.watch = CertificateWatch(
            self.clock, lambda: BEGIN + timedelta(seconds=self.clock.seconds()), policies
        )


def test_ends_are_shown_as_unix_times_by_file() -> None:
    watch = Watched(Policy(a=BEGIN), Policy(a=BEGIN, b=BEGIN + EXPIRY_WARNED)).watch
    begin = BEGIN.timestamp()
    assert watch.readings() == {("a",): begin, ("b",): begin + 30 * 86_400}


def test_ends_within_thirty_days_are_warned_of_at_once_and_daily() -> None:
    near = BEGIN + EXPIRY_WARNED - timedelta(seconds=1)
    watched = Watched(Policy(near=near, far=near + timedelta(days=300)))
    with log_lines() as lines:
        watched.watch.start()
        assert lines == [
            "a certificate in near expires in 29 days, at 2030-01-30T23:59:59Z: replace the file"
        ]
        watched.clock.pump([LOOK_S] * int(EXPIRY_WARNING_S / LOOK_S - 1))
        assert len(lines) == 1
        watched.clock.advance(LOOK_S)
        assert len(lines) == 2
    watched.watch.stop()
    assert watched.clock.getDelayedCalls() == []


def test_thirty_days_are_not_warned_of_yet() -> None:
    watched = Watched(Policy(a=BEGIN + EXPIRY_WARNED))
    with log_lines() as lines:
        watched.watch.start()
        assert lines == []
        watched.clock.advance(LOOK_S)
        assert len(lines) == 1


def test_what_has_expired_is_an_error() -> None:
    with log_lines() as lines:
        Watched(Policy(a=BEGIN)).watch.start()
    assert lines == ["a certificate in a has expired at 2030-01-01T00:00:00Z: replace the file"]


def test_new_files_are_noticed_without_traffic() -> None:
    policy = Policy(a=BEGIN + timedelta(days=300))
    watched = Watched(policy)
    with log_lines() as lines:
        watched.watch.start()
        policy.new = {"a": BEGIN + timedelta(days=2)}
        watched.clock.advance(LOOK_S)
    assert len(lines) == 1
    assert "expires in 1 days" in lines[0]
    assert watched.watch.readings() == {("a",): (BEGIN + timedelta(days=2)).timestamp()}
