"""The longest piece of work that a member's reactor has done, read from its ``/metrics``."""

from __future__ import annotations

import re
import ssl
import urllib.request
from typing import Final

PIECE_LINE: Final = re.compile(r'^etcdtw_piece_cpu_seconds_max\{kind="([^"]*)"\} (\S+)$', re.M)
TIMEOUT_S: Final = 20.0


def longest_piece(client_url: str, ca_file: str = "") -> tuple[float, str]:
    """Return the CPU time of the longest piece in ms, and its kind; (0, "") of real etcd.

    Raises `OSError` when the page does not come.
    """
    context = None
    if ca_file:
        context = ssl.create_default_context(cafile=ca_file)
        context.check_hostname = False
    with urllib.request.urlopen(
        f"{client_url}/metrics", timeout=TIMEOUT_S, context=context
    ) as answer:
        page = answer.read().decode()
    found = [(float(value) * 1000, kind) for kind, value in PIECE_LINE.findall(page)]
    return max(found, default=(0.0, ""))
