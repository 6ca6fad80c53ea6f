"""What a member does when a commit fails: it ends, at once, and says why.

LMDB goes on after a failed sync as if nothing had happened, and the kernel may have dropped the
pages; only a restart, which reads everything again, is safe.
"""

from __future__ import annotations

import os
from typing import Final

from twisted.logger import Logger

EXIT_COMMIT_FAILED: Final = 70  # EX_SOFTWARE of sysexits.h

log = Logger()


def stop_process(reason: str) -> None:
    """Log ``reason`` and end the process without unwinding.  Safe on any thread."""
    try:
        os.write(2, f"etcdtw: {reason}; stopping at once\n".encode())
        log.critical("stopping at once: {reason}", reason=reason)
    finally:
        os._exit(EXIT_COMMIT_FAILED)
