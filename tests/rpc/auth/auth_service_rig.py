"""The Auth service, and who may do what, over a whole node in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.apply.authorization import Authorization
from etcdtw.auth.access import Access
from etcdtw.auth.store import AuthStore
from etcdtw.auth.tokens import SimpleTokens
from etcdtw.grpc.call import MethodTable, StatusError
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.auth.admission import Admission
from etcdtw.rpc.auth.authentication import Authentication
from etcdtw.rpc.auth.passwords import COST_MIN, Passwords
from etcdtw.rpc.auth.service import PREFIX, AuthService
from etcdtw.rpc.auth.signed_tokens import SignedTokens
from etcdtw.rpc.guard import Guard
from tests.support.model_state import State
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall


class AuthServiceRig:
    """Hashing is done when `work` is called, or at once with ``is_quick``."""

    def __init__(
        self,
        *,
        is_quick: bool = True,
        trusts_certificates: bool = False,
        signer: SignedTokens | None = None,
    ) -> None:
        state = State()
        self.jobs: list[Callable[[], None]] = []
        self.is_quick = is_quick
        self.tokens = SimpleTokens(300_000, lambda: int(self.node_rig.clock.seconds() * 1000))
        self.auth = AuthStore(state, self.tokens)
        access = Access(self.auth, state)
        self.guard = Guard(self.auth, access, self.tokens, trusts_certificates=trusts_certificates)
        self.node_rig = NodeRig(
            state=state,
            identify=self.guard,
            permissions=Authorization(self.auth, access),
            auth=self.auth,
        ).start()
        self.passwords = Passwords(self._in_thread, lambda job: job(), COST_MIN)
        self.letters = 0
        node = self.node_rig.node
        self.authentication = Authentication(
            node, self.auth, self.passwords, self._letters, signer=signer
        )
        self.methods = MethodTable()
        AuthService(node, self.guard, self.passwords, self.authentication).register(self.methods)
        self.admission = Admission(node, self.guard)

    def _in_thread(self, job: Callable[[], None]) -> None:
        if self.is_quick:
            job()
        else:
            self.jobs.append(job)

    def _letters(self) -> str:
        self.letters += 1
        return f"letters{self.letters}"

    def work(self) -> None:
        """Do what threads would have done, and let the node go on."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        self.node_rig.run()

    def start(self, name: str, request: Any, caller: Caller | None = None) -> RecordedCall:
        """Call a method."""
        call = RecordedCall()
        if caller is not None:
            call.caller = caller
        method = self.methods.find((PREFIX + name).encode())
        assert method is not None
        assert method.unary is not None
        try:
            reply = method.unary(call, request.SerializeToString())
        except StatusError as error:
            call.fail(error.code, error.message)
        else:
            if reply is not None:
                call.reply(reply)
        self.node_rig.run()
        return call

    def ask(self, name: str, request: Any, response: Any, caller: Caller | None = None) -> Any:
        """Call a method that must succeed; return its response."""
        call = self.start(name, request, caller)
        assert call.status == (0, ""), call.status
        return response.FromString(call.replies[0])

    def refusal(self, name: str, request: Any, caller: Caller | None = None) -> tuple[int, str]:
        """Call a method that must fail; return code and text."""
        status = self.start(name, request, caller).status
        assert status is not None
        assert status[0] != 0
        return status


def showing(token: str, address: str = "") -> Caller:
    """Return a caller with a token."""
    return Caller(address, "", token.encode())
