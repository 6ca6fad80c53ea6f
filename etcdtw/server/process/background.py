"""How twistd was asked to run a member: in the background, where its log goes, as which user.

Without ``-n`` twistd forks, and what is written to stderr is seen by nobody from then on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple

from etcdtw.server.process.log_output import SYSLOG

DAEMON_LOG: Final = "twistd.log"
"""Where twistd's daemons log unless told otherwise, in the directory of the start."""
_STREAMS: Final = ("stderr", "stdout")


class Launch(NamedTuple):
    """twistd's own options, as far as a member cares.  Paths are absolute."""

    is_daemon: bool = False
    log_file: str | None = None
    """``-l``."""
    uses_syslog: bool = False
    changes_user: bool = False
    """It becomes another user, or sees another file system, when twistd has forked."""
    folder: str = "."
    """Where it runs: relative paths of flags begin there."""

    def outputs(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return where log lines go, ``--log-outputs`` being ``wanted``.

        What twistd was told (``-l``, ``--syslog``) stands in for streams; so does a daemon's
        `DAEMON_LOG`, if its lines would be seen by nobody otherwise.
        """
        kept = tuple(one for one in wanted if one not in _STREAMS)
        if self.uses_syslog:
            return (*kept, SYSLOG)
        if self.log_file is not None:
            return (*kept, self.log_file)
        if not self.is_daemon:
            return tuple(wanted)
        return kept or (os.path.abspath(DAEMON_LOG),)


def enter(launch: Launch, options: MutableMapping[str, Any] | None) -> None:
    """Go where the member will run: what is checked before the fork is then what counts."""
    if options is not None:
        options["rundir"] = launch.folder  # twistd goes there again
    os.chdir(launch.folder)


def launch_of(options: Mapping[str, Any] | None) -> Launch:
    """Return what twistd was asked; ``options`` are its own, None outside of twistd."""
    if options is None:
        return Launch()
    names = ("uid", "gid", "chroot")
    is_daemon = not options.get("nodaemon")
    return Launch(
        is_daemon=is_daemon,
        log_file=_log_file(options.get("logfile"), is_daemon),
        uses_syslog=bool(options.get("syslog")),
        changes_user=any(options.get(name) is not None for name in names),
        folder=os.path.abspath(options.get("rundir") or "."),
    )


def _log_file(name: str | None, is_daemon: bool) -> str | None:
    """``-`` is twistd's word for stdout, which a daemon has not."""
    if not name or (name == "-" and is_daemon):
        return None
    return "stdout" if name == "-" else os.path.abspath(name)
