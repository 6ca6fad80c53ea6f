"""What a member does when a commit fails or an invariant breaks: it ends, at once, and says why.

LMDB goes on after a failed sync as if nothing had happened, and the kernel may have dropped the
pages; only a restart, which reads everything again, knows what survived.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, NoReturn

from twisted.logger import Logger
from twisted.python.failure import Failure

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


class Guard:
    """Stops the process when what runs within raises.

    For callbacks of a reactor and for threads: they would log the exception, or nothing, and go
    on, and whatever waits for the answer would wait for ever.
    """

    def __init__(self, what: str, fail_stop: Callable[[str], None]) -> None:
        self._what = what
        self._fail_stop = fail_stop

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        log.failure("{what} failed", Failure(error), what=self._what)
        self._fail_stop(f"{self._what} failed: {error}; report this with the lines above")
        return True
