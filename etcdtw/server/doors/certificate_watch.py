"""Looks after certificates while a member runs: rotation without traffic, and their ends.

etcd warns of nothing; an expired certificate is how clusters stop one night.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

LOOK_S: Final = 60.0
"""How often files are looked at; each new connection looks too."""
EXPIRY_WARNED: Final = timedelta(days=30)
EXPIRY_WARNING_S: Final = 24 * 3600.0
"""How often the same end is warned of."""


class Rotating(Protocol):
    """A policy whose files may change."""

    @property
    def ends(self) -> Mapping[str, datetime]:
        """When the certificates in use end, by file."""

    def refresh(self) -> None:
        """Read the files again if they changed."""


class CertificateWatch:
    """Warns of certificates that end within `EXPIRY_WARNED`: at once when they are loaded,
    then daily.  ``now`` is the wall clock.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, now: Callable[[], datetime], policies: Sequence[Rotating]
    ) -> None:
        self._clock = clock
        self._now = now
        self._policies = tuple(policies)
        self._warned_s: dict[tuple[str, datetime], float] = {}
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Look at the certificates now and every `LOOK_S`."""
        self._next = self._clock.callLater(LOOK_S, self.start)
        for policy in self._policies:
            policy.refresh()
        now_s = self._clock.seconds()
        current = {item for policy in self._policies for item in policy.ends.items()}
        # What is no longer in use is forgotten, so that this stays as small as the policies.
        self._warned_s = {key: at for key, at in self._warned_s.items() if key in current}
        for path, end in sorted(current):
            if now_s - self._warned_s.get((path, end), -EXPIRY_WARNING_S) >= EXPIRY_WARNING_S:
                self._look(path, end, now_s)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def readings(self) -> dict[tuple[str, ...], float]:
        """Return the Unix time at which the certificates of each file end."""
        return {
            (path,): end.timestamp()
            for policy in self._policies
            for path, end in policy.ends.items()
        }

    def _look(self, path: str, end: datetime, now_s: float) -> None:
        left = end - self._now()
        if left >= EXPIRY_WARNED:
            return
        self._warned_s[path, end] = now_s
        when = end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if left <= timedelta(0):
            self.log.error(
                "a certificate in {path} has expired at {when}: replace the file",
                path=path,
                when=when,
            )
        else:
            self.log.warn(
                "a certificate in {path} expires in {days} days, at {when}: replace the file",
                path=path,
                days=left.days,
                when=when,
            )
