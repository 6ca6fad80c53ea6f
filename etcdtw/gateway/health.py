"""Is this member healthy: ``/health``, ``/livez``, ``/readyz`` and their single checks.

Knows the member only through `HealthSource`.  Counts results in plain ints, which the
metrics read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from etcdtw.gateway.pages import OK, Answer, Arguments, Page

SERVICE_UNAVAILABLE: Final = 503
CORRUPT: Final = "CORRUPT"
NO_LEADER: Final = "RAFT NO LEADER"


class HealthSource(Protocol):
    """What the health pages ask a member."""

    @property
    def has_leader(self) -> bool: ...

    @property
    def is_learner(self) -> bool: ...

    @property
    def alarms(self) -> Sequence[str]:
        """Names of the raised alarms: ``NOSPACE``, ``CORRUPT``."""
        ...

    @property
    def state_trouble(self) -> str:
        """Why the state must not be served; empty: nothing is known."""
        ...

    @property
    def disk_trouble(self) -> str:
        """What the disk lacks; empty while there is room."""
        ...

    def read(self, linearizable: bool) -> Deferred[None]:
        """Try a read of one key; fails with the error whose text the client would see.

        Fires within the request timeout, and can be cancelled.
        """
        ...


class HealthCounts:
    """How the checks went; the metrics read these."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.last: dict[tuple[str, ...], int] = {}
        """(type, name) -> 1 if the last such check passed, else 0"""
        self.checks: dict[tuple[str, ...], int] = {}
        """(type, name, "success" or "error") -> how many"""

    def count(self, kind: str, name: str, passed: bool) -> None:
        """Note the result of one check; ``kind`` is ``livez`` or ``readyz``."""
        self.last[(kind, name)] = int(passed)
        key = (kind, name, "success" if passed else "error")
        self.checks[key] = self.checks.get(key, 0) + 1


class HealthPage:
    """``/health``: alarms, then a leader, then a read; the first that fails is the reason.

    ``exclude=NOSPACE`` (repeatable) overlooks an alarm; ``serializable=true`` asks only this
    member, not the cluster.
    """

    log = Logger()

    def __init__(self, source: HealthSource, counts: HealthCounts) -> None:
        self._source = source
        self._counts = counts

    def __call__(self, arguments: Arguments) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._answer(arguments))

    async def _answer(self, arguments: Arguments) -> Answer:
        excluded = [name.decode("utf-8", "replace") for name in arguments.get(b"exclude", ())]
        serializable = arguments.get(b"serializable", [b""])[0] == b"true"
        reason = await self._reason(excluded, serializable)
        if reason:
            self._counts.failures += 1
            self.log.warn("serving /health false: {reason}", reason=reason)
        else:
            self._counts.successes += 1
        body = json.dumps(
            {"health": "false" if reason else "true", "reason": reason}, separators=(",", ":")
        )
        if reason:
            return Answer(SERVICE_UNAVAILABLE, body.encode() + b"\n")
        return Answer(OK, body.encode())

    async def _reason(self, excluded: Sequence[str], serializable: bool) -> str:
        for alarm in self._source.alarms:
            if alarm not in excluded:
                return f"ALARM {alarm}"
        if not serializable and not self._source.has_leader:
            return NO_LEADER
        try:
            await self._source.read(linearizable=not serializable)
        except Exception as error:
            return f"RANGE ERROR:{error}"
        return ""


class _Check:
    """One named check: its error, or None.

    ``is_own``: it is not one of etcd's, and shown only where it fails.
    """

    def __init__(self, name: str, run: Callable[[], Deferred[None]], is_own: bool = False) -> None:
        self.name = name
        self.run = run
        self.is_own = is_own


class _CheckFailedError(Exception):
    """The text is the reason that the page shows."""


def _checks(source: HealthSource) -> dict[str, tuple[_Check, ...]]:
    async def data_corruption() -> None:
        if CORRUPT in source.alarms:
            raise _CheckFailedError("alarm activated: CORRUPT")

    async def non_learner() -> None:
        if source.is_learner:
            raise _CheckFailedError("not supported for learner")

    async def disk_space() -> None:
        if trouble := source.disk_trouble:
            raise _CheckFailedError(trouble)

    async def serializable_read() -> None:
        await source.read(linearizable=False)

    async def linearizable_read() -> None:
        await source.read(linearizable=True)

    async def state_damage() -> None:
        if trouble := source.state_trouble:
            raise _CheckFailedError(trouble)

    def check(function: Callable[[], Any], is_own: bool = False) -> _Check:
        name = function.__name__
        return _Check(name, lambda: Deferred.fromCoroutine(function()), is_own)

    return {
        "livez": (check(serializable_read),),
        "readyz": (
            check(data_corruption),
            check(serializable_read),
            check(linearizable_read),
            check(non_learner),
            check(disk_space, is_own=True),
            check(state_damage, is_own=True),
        ),
    }


class ChecksPage:
    """``/livez``, ``/readyz`` or one check of theirs.

    ``verbose`` lists the checks also when all pass; ``exclude=name`` (repeatable) leaves one out.
    """

    log = Logger()

    def __init__(self, kind: str, checks: Sequence[_Check], counts: HealthCounts) -> None:
        self._kind = kind
        self._checks = tuple(checks)
        self._counts = counts

    def __call__(self, arguments: Arguments) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._answer(arguments))

    async def _answer(self, arguments: Arguments) -> Answer:
        excluded = {name.decode("utf-8", "replace") for name in arguments.get(b"exclude", ())}
        unknown = excluded - {check.name for check in self._checks}
        if unknown:
            self.log.warn("no such checks to exclude: {names}", names=sorted(unknown))
        lines, healthy = [], True
        for check in self._checks:
            if check.name in excluded:
                continue
            reason = await self._run(check)
            healthy = healthy and reason is None
            if check.is_own and reason is None:
                continue
            ok = f"[+]{check.name} ok\n"
            lines.append(ok if reason is None else f"[-]{check.name} failed: {reason}\n")
        listed = "".join(lines).encode()
        if not healthy:
            return Answer(SERVICE_UNAVAILABLE, listed)
        shown = (listed if b"verbose" in arguments else b"") + b"ok\n"
        return Answer(OK, shown, is_guarded=True)

    async def _run(self, check: _Check) -> str | None:
        try:
            await check.run()
        except Exception as error:
            self._counts.count(self._kind, check.name, passed=False)
            self.log.warn(
                "{kind} check {name} failed: {reason}",
                kind=self._kind,
                name=check.name,
                reason=str(error),
            )
            return str(error)
        if not check.is_own:
            self._counts.count(self._kind, check.name, passed=True)
        return None


def health_pages(source: HealthSource, counts: HealthCounts) -> dict[bytes, Page]:
    """Return all health pages by path."""
    pages: dict[bytes, Page] = {b"/health": HealthPage(source, counts)}
    for kind, checks in _checks(source).items():
        path = f"/{kind}".encode()
        page = ChecksPage(kind, checks, counts)
        pages[path] = page
        for check in checks:
            pages[path + b"/" + check.name.encode()] = ChecksPage(kind, (check,), counts)
    return pages
