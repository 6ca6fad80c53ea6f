"""A channel that makes calls again where that is safe, and shows a user's token.

Unary calls as `retry_rules` says.  Streams are opened with the token that there is, and are made
again by who knows where they stood: `server_stream`, `client/watch.py`, `client/lease.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from etcdtw.client.channel import Channel, Metadata, NotTakenError, Stream
from etcdtw.client.network import retry_rules
from etcdtw.client.network.retry_rules import (
    AGAIN,
    ATTEMPTS_MAX,
    AUTH_NOT_ENABLED,
    OLD_AUTH_REVISION,
    OLD_REVISIONS_MAX,
    RENEWALS_MAX,
    WITH_NEW_TOKEN,
)
from etcdtw.grpc.call import DEADLINE_EXCEEDED, StatusError
from etcdtw.wire import etcdserverpb as pb

AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"
TOKEN: Final = b"token"
LATE: Final = "context deadline exceeded"


class Credentials(NamedTuple):
    """Who calls."""

    name: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.name!r}, ...)"


class Attempts:
    """One unary call, through all its attempts."""

    __slots__ = ("count", "message", "metadata", "path", "renewals", "shown", "until_s")

    def __init__(
        self, path: str, message: bytes, metadata: Metadata, until_s: float | None
    ) -> None:
        self.path = path
        self.message = message
        self.metadata = metadata
        self.until_s = until_s
        self.count = 0
        self.renewals = 0
        self.shown: Metadata = ()  # the token that the last attempt showed


class RetriedChannel(Channel, Protocol):
    """A channel that can be closed."""

    def close(self) -> Deferred[None]: ...


class RetryingChannel:
    """Implements `client.channel.Channel` on top of one that makes no call again.

    ``servers``: how many the channel below goes round.  Without ``credentials`` no token is shown.
    """

    def __init__(
        self,
        channel: RetriedChannel,
        clock: IReactorTime,
        *,
        random: Callable[[], float],
        servers: int = 1,
        credentials: Credentials | None = None,
    ) -> None:
        self.clock = clock
        self.random = random
        self.servers = servers
        self._channel = channel
        self._credentials = credentials
        self._token: Metadata = ()
        self._is_prepared = credentials is None
        self._fetching: list[Deferred[None]] | None = None

    # -- implements Channel

    def unary(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> Deferred[bytes]:
        """See `client.channel.Channel`; ``timeout_ms`` is for all attempts together."""
        until_s = None if timeout_ms is None else self.clock.seconds() + timeout_ms / 1_000
        attempts = Attempts(path, message, metadata, until_s)
        if self._is_prepared or path == AUTHENTICATE:
            return self._try(attempts, timeout_ms)
        return self._with_token(self.prepare(), attempts)

    def stream(self, path: str, metadata: Metadata = (), timeout_ms: int | None = None) -> Stream:
        """See `client.channel.Channel`.  Wait for `prepare` before it."""
        return self._channel.stream(path, (*metadata, *self._token), timeout_ms)

    def close(self) -> Deferred[None]:
        """Close the channel below."""
        return self._channel.close()

    # -- tokens

    @property
    def token(self) -> Metadata:
        """What calls show at present."""
        return self._token

    def prepare(self) -> Deferred[None]:
        """Fire when there is a token, or none is needed.  Fails as `Authenticate` does."""
        return succeed(None) if self._is_prepared else self.renew(())

    def renew(self, shown: Metadata) -> Deferred[None]:
        """Get another token than ``shown``, which was refused."""
        if self._credentials is None:
            return succeed(None)
        if self._fetching is None and self._is_prepared and self._token != shown:
            return succeed(None)  # somebody was faster
        waiter: Deferred[None] = Deferred(self._wait_no_more)
        if self._fetching is not None:
            self._fetching.append(waiter)
            return waiter
        self._fetching = [waiter]
        self._is_prepared = False
        self._token = ()
        request = pb.AuthenticateRequest(
            name=self._credentials.name, password=self._credentials.password
        )
        fetched = self.unary(AUTHENTICATE, request.SerializeToString())
        fetched.addCallbacks(self._fetched, self._not_fetched)
        return waiter

    def _wait_no_more(self, waiter: Deferred[None]) -> None:
        if self._fetching is not None and waiter in self._fetching:
            self._fetching.remove(waiter)

    def _fetched(self, octets: bytes) -> None:
        token = pb.AuthenticateResponse.FromString(octets).token
        self._tell(((TOKEN, token.encode()),), None)

    def _not_fetched(self, reason: Failure) -> None:
        error = reason.value
        if isinstance(error, StatusError) and error.message == AUTH_NOT_ENABLED:
            self._tell((), None)  # as etcd's own clients: the user matters once users do
        else:
            self._tell((), reason)

    def _tell(self, token: Metadata, reason: Failure | None) -> None:
        self._token = token
        self._is_prepared = reason is None
        waiters, self._fetching = self._fetching or [], None
        for waiter in waiters:
            if reason is None:
                waiter.callback(None)
            else:
                waiter.errback(reason)

    # -- attempts

    def _try(self, attempts: Attempts, timeout_ms: int | None) -> Deferred[bytes]:
        attempts.count += 1
        metadata = attempts.metadata
        if self._token and attempts.path != AUTHENTICATE:
            attempts.shown = self._token
            metadata = (*metadata, *self._token)
        answered = self._channel.unary(attempts.path, attempts.message, metadata, timeout_ms)
        return answered.addErrback(self._failed, attempts)

    def _next(self, attempts: Attempts) -> Deferred[bytes]:
        """Try with what is left of the time."""
        if attempts.until_s is None:
            return self._try(attempts, None)
        left_ms = int((attempts.until_s - self.clock.seconds()) * 1_000)
        if left_ms <= 0:
            raise (StatusError if attempts.count else NotTakenError)(DEADLINE_EXCEEDED, LATE)
        return self._try(attempts, left_ms)

    def _with_token(self, fetched: Deferred[None], attempts: Attempts) -> Deferred[bytes]:
        """Try when there is a token, if there is time left then."""
        if attempts.until_s is not None and not fetched.called:
            left_s = max(attempts.until_s - self.clock.seconds(), 0.0)
            fetched.addTimeout(left_s, self.clock, _too_late)
        return fetched.addCallback(lambda _: self._next(attempts))

    def _failed(self, reason: Failure, attempts: Attempts) -> Deferred[bytes]:
        error = reason.value
        if not isinstance(error, StatusError) or attempts.count >= ATTEMPTS_MAX:
            return fail(reason)
        found = retry_rules.verdict(attempts.path, error, self.servers)
        if found == WITH_NEW_TOKEN and self._may_renew(error, attempts):
            attempts.renewals += 1
            return self._with_token(self.renew(attempts.shown), attempts)
        if found != AGAIN:
            return fail(reason)
        wait_s = retry_rules.wait_s(attempts.count, self.servers, self.random())
        return deferLater(self.clock, wait_s).addCallback(lambda _: self._next(attempts))

    def _may_renew(self, error: StatusError, attempts: Attempts) -> bool:
        if error.message == OLD_AUTH_REVISION:
            return attempts.renewals < OLD_REVISIONS_MAX  # also for who has no token
        return self._credentials is not None and attempts.renewals < RENEWALS_MAX


def _too_late(reason: Any, _: float) -> Any:
    """What a call comes to that has waited too long for a token."""
    if isinstance(reason, Failure) and reason.check(CancelledError):
        raise NotTakenError(DEADLINE_EXCEEDED, LATE)
    return reason
