"""What a start can know without an event loop: the directory, the addresses, the keys.

Done before twistd forks, so that a start that cannot work says so where it was asked for.
Nothing here founds, joins or publishes; only certificates that a member makes for itself are
written, when everything else is in order.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from etcdtw.config.config import Config
from etcdtw.server.doors.addresses import bind_addresses
from etcdtw.server.doors.taken import Taken, let_go
from etcdtw.server.doors.tls_roles import client_policy, peer_roles
from etcdtw.server.process.readiness import SocketNameError, inherited_sockets
from etcdtw.server.start.bootstrap import BootstrapError, remote_urls
from etcdtw.server.start.data import check_data, has_identity
from etcdtw.server.start.token_files import TokenFilesError, check_token_files
from etcdtw.server.tracing.export import TracingError, check_tracing
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.transport.listener import ListenError
from etcdtw.transport.name_lookup import SystemLookup
from etcdtw.transport.tls.policy import TlsError

START_ERRORS: Final = (
    BootstrapError,
    DataDirError,
    ListenError,
    SocketNameError,
    TlsError,
    TokenFilesError,
    TracingError,
)
"""What `take` raises."""


def take(config: Config, environment: Mapping[str, str], reactor: Any, now: datetime) -> Taken:
    """Check everything that needs no event loop, and take the member's addresses.

    ``environment``: the one that the process was started with.
    Raises one of `START_ERRORS`, whose texts say what is wrong and what to do; nothing is taken
    then.
    """
    try:
        check_data(config)
        for path in (config.data_dir, config.wal_dir):
            if path is not None:
                check_writable(path)
        is_new = not has_identity(config)
    except OSError as error:
        raise BootstrapError(_refused(error.filename or config.data_dir, error)) from error
    if is_new and config.discovery is None:
        remote_urls(config)
    check_token_files(config.auth_token)
    check_tracing(config.tracing)
    inherited_sockets(environment)
    bound = bind_addresses(config)
    try:
        lookup = SystemLookup(reactor)
        return Taken(
            bound=bound,
            client_tls=client_policy(config, now),
            peer_tls=peer_roles(config, reactor, now, lookup),
            lookup=lookup,
        )
    except Exception:
        let_go(bound)
        raise


def check_writable(path: str, may: Callable[[Path, int], bool] = os.access) -> None:
    """Raise OSError unless this process may write in ``path``, or make it.

    ``may``: whether the process may do what a mode of `os.access` says.
    """
    found = Path(path)
    while not found.exists():
        found = found.parent
    if not may(found, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(found))


def _refused(path: str, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"the data directory cannot be used: {path}: {reason}"
    return (
        f"the data directory cannot be used: {path}: {reason} (this process has the user id "
        f"{os.geteuid()}): run the member as the owner of the directory, or give it to this user"
    )
