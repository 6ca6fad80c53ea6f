"""How most services answer a call whose request was applied."""

from __future__ import annotations

from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail


def answer_applied(node: Facade, call: Call, applied: Applied) -> None:
    """Reply with the header of its revision and the body, or say why it was refused."""
    if applied.error is not None:
        fail(call, applied.error)
    else:
        call.reply(node.header(applied.revision) + applied.body)
