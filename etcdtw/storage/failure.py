"""What a member does when a commit fails or an invariant breaks: it ends, at once, and says why.

LMDB goes on after a failed sync as if nothing had happened, and the kernel may have dropped the
pages; only a restart, which reads everything again, knows what survived.
"""

from __future__ import annotations

import os
from typing import Final, NoReturn

from twisted.logger import Logger

EXIT_FAIL_STOP: Final = 74  # EX_IOERR of sysexits.h
ADVICE: Final = (
    "check the disk and its free space, then start the member again: "
    "it continues from what is on the disk"
)

log = Logger()


def stop_process(reason: str) -> NoReturn:
    """Log ``reason`` and end the process without unwinding.  Safe on any thread."""
    try:
        os.write(2, f"etcdtw: the member stops at once: {reason}; {ADVICE}\n".encode())
        log.critical("the member stops at once: {reason}; {advice}", reason=reason, advice=ADVICE)
    finally:
        os._exit(EXIT_FAIL_STOP)
