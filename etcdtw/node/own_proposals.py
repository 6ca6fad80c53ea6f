"""What a member proposes for itself: no client waits for the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.apply.applier import FIELD_ALARM
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.requests import Done, RequestIds
from etcdtw.node.no_call import NO_CALL
from etcdtw.wire import etcdserverpb as pb


def _ignore(call: Call, applied: Applied) -> None:
    """Nobody waits for this outcome."""


class OwnProposals:
    """The door through which the duties of one member propose."""

    def __init__(self, inbox: Inbox, ids: RequestIds) -> None:
        self._inbox = inbox
        self._ids = ids

    def propose(self, field: int, request: Any, done: Done = _ignore) -> None:
        """Propose something of the member's own; a refusal is tried again when it is due again."""
        self._inbox.propose(field, request.SerializeToString(), request, NO_CALL, done)

    def ask_alarm(self, action: int, member_id: int, alarm: int) -> None:
        """Propose to raise or to clear an alarm."""
        request = pb.AlarmRequest(action=action, memberID=member_id, alarm=alarm)
        self.propose(FIELD_ALARM, request)

    def propose_octets(self, make: Callable[[int], bytes]) -> None:
        """Put an entry of ``make(request id)`` into the log; nobody learns of its outcome."""
        if not self._inbox.is_stopping:
            self._inbox.add(make(self._ids.next_id()))
