"""What ``--help`` and ``--version`` print."""

from __future__ import annotations

import platform
from typing import Final

from etcdtw import __version__
from etcdtw.config.flag_table import FLAGS, GROUPS
from etcdtw.config.flags import (
    BOOL,
    DURATION,
    LEGACY,
    NO_EFFECT,
    SUPPORTED,
    URLS,
    FlagSpec,
)

COMPAT_VERSION: Final = "3.7.3"
"""The etcd release whose contract this product keeps."""

_HEAD: Final = """\
etcdtw: a distributed, strongly consistent key-value store that speaks etcd's protocols.

Usage:
  twistd -n --pidfile= etcdtw [flags]     run one member in the foreground
  twistd etcdtw --version                 print the version
  twistd etcdtw --help                    print this text

Flags are written --flag=value, --flag value or with one dash; a boolean takes its value
after =.  Each flag has an environment variable: ETCD_ and its name in capitals with _ for -
(--data-dir: ETCD_DATA_DIR).  Setting both is an error.  With --config-file all other flags
and variables are ignored.  Durations look like 100ms, 1m30s, 2h; lists are separated by
commas; URLs are http://host:port, https://host:port, unix://path or unixs://path.
"""

_KIND_WORDS: Final = {
    "string": "text",
    "int": "number",
    "uint": "number",
    "uint32": "number",
    DURATION: "duration",
    URLS: "urls",
    "list": "list",
}
_ACTS: Final = (SUPPORTED,)
_REST: Final = {
    NO_EFFECT: "Accepted, without effect here (a warning says so)",
    LEGACY: "Ignored, as by etcd",
}
"""The groups at the end: what is told by its status, whatever it is about."""


def help_text() -> str:
    """Return the complete help: every flag with its default and its meaning."""
    parts = [_HEAD]
    named = [spec for spec in FLAGS.values() if spec.group]
    for group in GROUPS:
        shown = [_flag_text(one) for one in named if one.group == group and one.status in _ACTS]
        parts += [f"\n{group}:\n", *shown]
    for status, heading in _REST.items():
        shown = [_flag_text(spec) for spec in named if spec.status == status]
        parts += [f"\n{heading}:\n", *shown] if shown else []
    return "".join(parts)


def _flag_text(spec: FlagSpec) -> str:
    if spec.kind == BOOL:
        shown = f"--{spec.name}={spec.default}"
    else:
        words = "|".join(choice for choice in spec.choices if choice)
        kind = words or _KIND_WORDS[spec.kind]
        default = f" (default {spec.default})" if spec.default else ""
        shown = f"--{spec.name} <{kind}>{default}"
    return f"  {shown}\n      {spec.meaning}\n"


def version_text() -> str:
    """Return what ``--version`` prints."""
    return (
        f"etcdtw Version: {__version__}\n"
        f"etcd Version: {COMPAT_VERSION}\n"
        f"Python Version: {platform.python_version()}\n"
        f"OS/Arch: {platform.system().lower()}/{platform.machine()}\n"
    )
