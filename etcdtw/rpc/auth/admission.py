"""What stands before a method while users are asked: does it admit the caller, is his token known?

A token was handed out by the log.  A member that is behind waits for what is committed, once, and
then either knows it or refuses it (real members wait until the client gives up).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from etcdtw.auth.tokens import index_of
from etcdtw.grpc.call import RESOURCE_EXHAUSTED, Call, Metadata, Method, StatusError
from etcdtw.grpc.caller import token_of
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.needs import ADMIN, NEEDS, OPEN, USER
from etcdtw.rpc.screening import UnlessRefused

HELD_MAX: Final = 16
"""Messages of a stream that are kept while its token is not known yet."""
TOO_MANY_HELD: Final = (
    f"etcdtw: more than {HELD_MAX} messages on a stream whose token this member does not know yet"
)


class Admission:
    """Puts before each method what its caller has to pass.  One per member."""

    def __init__(self, node: Facade, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def __call__(self, method: Method, metadata: Metadata) -> Method:
        """Return what to call in the place of ``method``, by callers with this metadata."""
        need = NEEDS.get(method.path, ADMIN)
        if need == OPEN:
            return method
        if need == ADMIN:
            method = UnlessRefused(self._admin_refusal, method).method
        elif need == USER:
            method = UnlessRefused(self._user_refusal, method).method
        token = token_of(metadata)
        index = None if token is None else index_of(token.decode("latin-1"))
        # What is applied once stays so: these calls never have to wait.
        if index is None or self._node.applied_index > index:
            return method
        return _BehindToken(self._node, self._guard, index, method).method

    def _admin_refusal(self, call: Call) -> Exception | None:
        return self._guard.admin_refusal(call.caller)

    def _user_refusal(self, call: Call) -> Exception | None:
        return self._guard.user_refusal(call.caller)


class _BehindToken:
    """A method whose caller shows a token that was given by the entry behind ``index``."""

    def __init__(self, node: Facade, guard: Guard, index: int, inner: Method) -> None:
        self._node = node
        self._guard = guard
        self._index = index
        self._inner = inner
        self.method = inner.served_by(self._unary, self._opened)

    @property
    def _is_behind(self) -> bool:
        return self._guard.switch.is_on and self._node.applied_index <= self._index

    def _unary(self, call: Call, message: bytes) -> bytes | None:
        assert self._inner.unary is not None
        if not self._is_behind:
            return self._inner.unary(call, message)
        self._node.read(call, partial(self._call_late, message))
        return None

    def _call_late(self, message: bytes, call: Call, error: Exception | None) -> None:
        if not call.is_open:
            return
        assert self._inner.unary is not None
        if error is not None:
            fail(call, error)
            return
        try:
            answer = self._inner.unary(call, message)
        except StatusError as refusal:
            fail(call, refusal)
            return
        if answer is not None:
            call.reply(answer)

    def _opened(self, call: Call) -> None:
        assert self._inner.opened is not None
        if self._is_behind:
            self._node.read(call, _HeldStream(call, self._inner.opened).go_on)
        else:
            self._inner.opened(call)


class _HeldStream:
    """A stream that is not open to its service yet: what comes meanwhile is kept."""

    def __init__(self, call: Call, opened: Callable[[Call], None]) -> None:
        self._opened = opened
        self._messages: list[bytes] = []
        self._is_half_closed = False
        call.on_message = partial(self._keep, call)
        call.on_half_close = self._half_closed

    def _keep(self, call: Call, message: bytes) -> None:
        if len(self._messages) < HELD_MAX:
            self._messages.append(message)
        else:
            call.fail(RESOURCE_EXHAUSTED, TOO_MANY_HELD)

    def _half_closed(self) -> None:
        self._is_half_closed = True

    def go_on(self, call: Call, error: Exception | None) -> None:
        """Open the stream to its service, and give it what was kept."""
        if not call.is_open:
            return
        if error is not None:
            fail(call, error)
            return
        call.on_message = call.on_half_close = None
        self._opened(call)
        for message in self._messages:
            _give(call, message)
        if self._is_half_closed:
            _half_close(call)


def _give(call: Call, message: bytes) -> None:
    if call.is_open and call.on_message is not None:
        call.on_message(message)


def _half_close(call: Call) -> None:
    if call.is_open and call.on_half_close is not None:
        call.on_half_close()
