"""Where a member's lines go, by what twistd was told."""

from __future__ import annotations

import os

import pytest

from etcdtw.server.process.background import DAEMON_LOG, Launch, launch_of

HERE = os.path.abspath(DAEMON_LOG)


@pytest.mark.parametrize(
    ("launch", "wanted", "outputs"),
    [
        (Launch(), ("stderr",), ("stderr",)),
        (Launch(log_file="/l"), ("stderr", "/own"), ("/own", "/l")),
        (Launch(is_daemon=True), ("stderr",), (HERE,)),
        (Launch(is_daemon=True), ("stderr", "/own"), ("/own",)),
        (Launch(is_daemon=True, log_file="/l"), ("stderr",), ("/l",)),
        (Launch(is_daemon=True, uses_syslog=True), ("stdout",), ("syslog",)),
        (Launch(is_daemon=True), ("systemd/journal",), ("systemd/journal",)),
    ],
)
def test_lines_of_a_daemon_are_seen_by_somebody(
    launch: Launch, wanted: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    assert launch.outputs(wanted) == outputs


@pytest.mark.parametrize(
    ("options", "launch"),
    [
        (None, Launch()),
        ({"nodaemon": 1, "logfile": "-"}, Launch(log_file="stdout", folder=os.getcwd())),
        ({"nodaemon": 0, "logfile": "-"}, Launch(is_daemon=True, folder=os.getcwd())),
        ({"rundir": "/", "uid": 0}, Launch(is_daemon=True, changes_user=True, folder="/")),
    ],
)
def test_twistds_own_options_are_understood(
    options: dict[str, object] | None, launch: Launch
) -> None:
    assert launch_of(options) == launch
