"""The JSON gateway of a member in memory, asked without HTTP."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport

from etcdtw.gateway.json_gateway import JsonGateway
from etcdtw.gateway.pages import Answer, Posted, Streamed
from etcdtw.gateway.turns import Turns
from etcdtw.rpc.maintenance.health import HealthService
from tests.client.member_rig import MemberRig

MESSAGE_SIZE_MAX = 2 * 1024 * 1024


class Connection:
    """Somebody's."""

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", 4000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.9", 2379)


class JsonRig(MemberRig):
    """A member of one with its gateway."""

    def __init__(self) -> None:
        super().__init__()
        HealthService().register(self.methods)
        self.turns = Turns(self.clock)
        self.refuses_names = False
        self.gateway = JsonGateway(
            self.loopback, self.turns, MESSAGE_SIZE_MAX, lambda: self.refuses_names
        )
        self.connection = cast(ITCPTransport, Connection())
        self.lets_go = 0
        """How many bodies were let go."""

    def begin(self, path: str, body: bytes | dict[str, Any] = b"", **fields: str) -> Any:
        """Return what the page at ``path`` says: an answer, or a Deferred."""
        taking = self.gateway.find(path.encode())
        assert taking is not None
        given = {name.replace("_", "-").encode(): v.encode() for name, v in fields.items()}
        octets = json.dumps(body).encode() if isinstance(body, dict) else body
        return taking.page(Posted({}, given.get, octets, self.connection, self._let_go))

    def _let_go(self) -> None:
        self.lets_go += 1

    def ask(self, path: str, body: bytes | dict[str, Any] = b"", **fields: str) -> Any:
        """Return the answer itself."""
        said = self.begin(path, body, **fields)
        return self.wait(said) if isinstance(said, Deferred) else said

    def told(self, path: str, body: bytes | dict[str, Any] = b"", **fields: str) -> Any:
        """Return (status, JSON) of a page that answers at once."""
        answer = self.ask(path, body, **fields)
        assert isinstance(answer, Answer)
        return answer.status, json.loads(answer.body)

    def taken(self, streamed: Streamed, count: int | None = None) -> list[bytes]:
        """Return parts of a streamed answer, up to its end if no ``count`` is given."""
        found: list[bytes] = []
        while count is None or len(found) < count:
            part = self.wait(streamed.parts.receive())
            if part is None:
                break
            found.append(part)
        return found

    @property
    def is_idle(self) -> bool:
        """Whether no call of the gateway is left."""
        return not self.loopback.ledger.calls and not self.turns.waiting
