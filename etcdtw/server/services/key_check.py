"""Before clients are served: does this member hold the same keys as the others?

It has caught up by then, and a restart forgets what `node.duties.corruption` compares, so that
here a file that was damaged or replaced while the member was down is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.cluster.divergence import KeyHash, contradicting, revision_to_ask
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.member import Member
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.duties.corruption import AskHashes
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.standing import Standing
from etcdtw.rpc.errors import status_of
from etcdtw.storage.state.errands import ErrandError

GATE: Final = "InitialCorruptCheck"
CHECK_S: Final = 60.0
"""How long the check may keep clients waiting: very many keys take longer to read than that."""
ROUNDS_MAX: Final = 3
"""How often the others are asked while some of them cannot tell: they may be behind."""
ROUND_S: Final = 0.3


class KeysDifferError(Exception):
    """The others contradict this member; the text names them."""


class KeyCheck(Service):
    """Fails to start when the others hold other keys; others that do not answer are no obstacle."""

    name = "comparison with the other members"
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        standing: Standing,
        hashes: KeyHashes,
        ask_hashes: AskHashes,
        *,
        is_wanted: bool,
    ) -> None:
        """``ask_hashes`` asks other members for theirs; ``is_wanted``: the gate `GATE` is open."""
        self._clock = clock
        self._standing = standing
        self._hashes = hashes
        self._ask_hashes = ask_hashes
        self._is_wanted = is_wanted

    def startService(self) -> Deferred[None] | None:
        super().startService()
        others = self._standing.others()
        if not others or not self._is_wanted:
            return None
        checked = Deferred.fromCoroutine(self._check(others))
        checked.addTimeout(CHECK_S, self._clock, self._timed_out)
        return checked

    def _timed_out(self, result: object, timeout_s: float) -> None:
        self.log.warn(
            "the keys were not compared with the other members': that takes more than {seconds} s",
            seconds=timeout_s,
        )

    async def _check(self, others: list[Member]) -> None:
        own = await self._own_hash()
        if not isinstance(own, KeyHash):
            # What a leader has just sent is as good as what it would have answered.
            self.log.warn(
                "the keys were not compared with the other members': {why}",
                why=status_of(own)[1],
            )
            return
        answers: dict[int, KeyHash] = {}
        for _ in range(ROUNDS_MAX):
            missing = [one for one in others if one.member_id not in answers]
            answers |= await self._ask(missing, revision_to_ask(own))
            if len(answers) == len(others):
                break
            await self._pause()
        differing = contradicting(own, answers, len(others) + 1)
        if differing:
            raise KeysDifferError(
                f"{id_text(self._standing.member_id)} found data inconsistency with peers: at "
                f"revision {own.hash_revision}, compacted at {own.compact_revision}, its keys have "
                f"the hash {own.value:08x}, but "
                + ", ".join(
                    f"those of {id_text(one)} {answers[one].value:08x}" for one in differing
                )
                + f"; replace this member, or start it with --feature-gates={GATE}=false"
            )
        self.log.info(
            "{count} of {others} other members could be asked for their keys' hash, and none "
            "contradicts",
            count=len(answers),
            others=len(others),
        )

    def _own_hash(self) -> Deferred[KeyHash | ErrandError | MvccError]:
        # Without a canceller of its own: what comes after a cancellation is ignored.
        hashed: Deferred[KeyHash | ErrandError | MvccError] = Deferred()
        self._hashes.compute(0, hashed.callback)
        return hashed

    def _ask(self, others: list[Member], revision: int) -> Deferred[Mapping[int, KeyHash]]:
        told: Deferred[Mapping[int, KeyHash]] = Deferred()
        self._ask_hashes(others, revision, told.callback)
        return told

    def _pause(self) -> Deferred[None]:
        pause: Deferred[None] = Deferred(lambda _: due.cancel())
        due = self._clock.callLater(ROUND_S, pause.callback, None)
        return pause
