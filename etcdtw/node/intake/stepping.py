"""What peers say, brought to Raft as it comes; a turn does what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from etcdtw.node.intake.seams import Door
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.raft.errors import (
    InvariantError,
    LocalMessageError,
    PeerNotFoundError,
    ProposalDroppedError,
)
from etcdtw.raft.message import Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.wire.pieces import PEER_OCTETS, Pieces

_IGNORED: Final = (LocalMessageError, PeerNotFoundError, ProposalDroppedError)
"""What a peer may cause without being wrong: it does not know yet what we know."""


class Stepper:
    """The way of one member's peers into its Raft.  ``fail_stop`` ends the process."""

    log = Logger()

    def __init__(
        self,
        raw: RawNode,
        wakeup: Wakeup,
        pieces: Pieces,
        fail_stop: Callable[[str], None],
    ) -> None:
        self._raw = raw
        self._wakeup = wakeup
        self._pieces = pieces
        self._fail_stop = fail_stop
        self.door: Door | None = None

    def receive(self, m: Message) -> None:
        """Step a message; a turn does what follows from it."""
        if self._wakeup.is_stopping or (self.door is not None and not self.door.takes(m)):
            return
        piece = self._pieces.begin()
        try:
            self._raw.step(m)
        except _IGNORED:
            pass
        except InvariantError as error:
            # Going on could bend what was promised: a leader that knows more of our log than
            # we do means that this log was lost or cut.
            self.log.failure("a message of {peer} broke an invariant", peer=f"{m.from_id:x}")
            self._fail_stop(f"{error}; remove this member and add it again")
            return
        except Exception as error:
            # A damaged log, or a core that stopped half way: nothing it says may count.
            self.log.failure("a message of {peer} could not be taken", peer=f"{m.from_id:x}")
            self._fail_stop(f"a message of a peer could not be taken: {error}")
            return
        finally:
            self._pieces.end(piece, PEER_OCTETS)
        self._wakeup.wake()

    def report_unreachable(self, member_id: int) -> None:
        """Messages to ``member_id`` were lost, or may have been."""
        self._raw.report_unreachable(member_id)
        self._wakeup.wake()

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """The snapshot to ``member_id`` has arrived, or not."""
        self._raw.report_snapshot(member_id, ok)
        self._wakeup.wake()
