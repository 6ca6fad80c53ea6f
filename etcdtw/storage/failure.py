"""What a member does when a commit fails or an invariant breaks: it ends, at once, and says why.

LMDB goes on after a failed sync as if nothing had happened, and the kernel may have dropped the
pages; only a restart, which reads everything again, knows what survived.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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


def guarded(
    call_from_thread: Callable[[Callable[[], None]], None], fail_stop: Callable[[str], None]
) -> Callable[[Callable[[], None]], None]:
    """Return ``call_from_thread`` for calls of the log: one that raises stops the member.

    The reactor would log what it raises and go on, with a log that never answers again.
    """

    def hand_over(call: Callable[[], None]) -> None:
        call_from_thread(lambda: run(call))

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            log.failure("what the log has written could not be taken in")
            fail_stop(f"what the log has written could not be taken in: {error}")

    return hand_over
