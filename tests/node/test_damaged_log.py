"""A log that turns out to be damaged while others ask for its entries."""

from __future__ import annotations

from pathlib import Path

from etcdtw.raft.message import MSG_APP_RESP, Message
from etcdtw.storage.log.codec import CorruptionError
from tests.support.cluster_rig import ClusterRig, others
from tests.support.node_rig import MemoryLog


class DamagedLog(MemoryLog):
    """One that misses an entry, once the test says so."""

    is_damaged = False

    def term(self, index: int) -> int:
        if self.is_damaged:
            raise CorruptionError("entry 7 of the log is missing")
        return super().term(index)


def test_a_damaged_log_met_by_a_message_ends_the_process(tmp_path: Path) -> None:
    logs: list[DamagedLog] = []

    def new_log() -> DamagedLog:
        logs.append(DamagedLog())
        return logs[-1]

    three = ClusterRig(tmp_path, 3, new_log=new_log)
    leader = three.leader()
    three.must_put(leader, b"k")
    three.converge()
    logs[leader.member_id - 1].is_damaged = True
    last = three.parts_of(leader).log.last_index()
    rejection = Message(
        MSG_APP_RESP,
        to=leader.member_id,
        from_id=others(three, leader)[0].member_id,
        term=leader.term,
        log_term=leader.term,
        index=last + 1,
        reject=True,
        reject_hint=last - 1,
    )
    leader.peers.receive(rejection)
    assert "entry 7 of the log is missing" in three.members[leader.member_id].stops[0]
