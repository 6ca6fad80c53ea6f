"""The seam between whoever calls etcd and what carries its calls.

A channel is one caller's way to one server: `loopback` carries calls within a member; a client
over the network is another.  Messages are octets of protobuf; `calls` makes methods of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from etcdtw.grpc.call import StatusError

Metadata = Sequence[tuple[bytes, bytes]]
"""(key, value): keys in lower case, values as the service sees them (those of ``-bin`` keys not
in base64).  The first value of a repeated key is the one that counts."""


class NotTakenError(StatusError):
    """No server has taken the call: it may be made again, whatever it is."""


class Stream(Protocol):
    """One streaming call, as its caller sees it.

    Whoever has one reads it to its end or cancels it: what is not taken is kept, within bounds,
    and the service waits meanwhile.
    """

    def send(self, message: bytes) -> None:
        """Send one message; after the end of the call, or of what is sent, nothing happens."""
        ...

    def half_close(self) -> None:
        """Say that no more is sent."""
        ...

    def cancel(self) -> None:
        """End the call and forget what was not taken; does nothing when that is so already."""
        ...

    def receive(self) -> Deferred[bytes | None]:
        """Return the next message; None: the call has ended with OK, and there are no more.

        Fails with `StatusError` where it ended otherwise, after the messages before.  One at a
        time: the Deferred before must have fired.  Cancelling it loses no message.
        """
        ...


class Channel(Protocol):
    """Carries calls.  ``path`` is that of the method (``/etcdserverpb.KV/Range``)."""

    def unary(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> Deferred[bytes]:
        """Return the answer.  Fails with `StatusError`; cancelling it ends the call.

        ``timeout_ms`` None: it may take as long as it takes.
        """
        ...

    def stream(self, path: str, metadata: Metadata = (), timeout_ms: int | None = None) -> Stream:
        """Open a streaming call; a refusal is what its first `Stream.receive` tells."""
        ...
