"""The members, network and disks that the interaction scripts drive by hand."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from etcdtw.raft.confchange import ADD_NODE, ConfChange, decode_conf_change
from etcdtw.raft.config import READ_ONLY_LEASE_BASED, READ_ONLY_SAFE, Config
from etcdtw.raft.entry import (
    ENTRY_CONF_CHANGE,
    ENTRY_CONF_CHANGE_V2,
    ENTRY_NORMAL,
    ConfState,
    Entry,
    HardState,
    Snapshot,
)
from etcdtw.raft.errors import PeerNotFoundError, ProposalDroppedError
from etcdtw.raft.log import NO_LIMIT
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import (
    MESSAGE_NAMES,
    MSG_SNAP,
    STORAGE_APPEND,
    STORAGE_APPLY,
    Message,
)
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.state import ROLE_NAMES
from tests.conformance.raft_describe import entry_text, indented, message_text, ready_text
from tests.conformance.raft_small import parse_changes
from tests.support.datadriven import Directive

ELECTION_TICKS: Final = 3
TRANSITIONS: Final = {"auto": 0, "implicit": 1, "explicit": 2}


class ScriptStorage(MemoryStorage):
    """Storage whose newest snapshot is the state machine's, made at every applied entry."""

    def __init__(self) -> None:
        super().__init__()
        self.newest = Snapshot()

    def snapshot(self) -> Snapshot:
        return self.newest


class ScriptMember:
    """One member with its disk and the work that its two storage threads have queued."""

    def __init__(self, node: RawNode, storage: ScriptStorage, is_async: bool) -> None:
        self.node = node
        self.storage = storage
        self.is_async = is_async
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []

    def write(
        self, hard_state: HardState | None, entries: list[Entry], snapshot: Snapshot | None
    ) -> None:
        if hard_state is not None:
            self.storage.set_hard_state(hard_state)
        if snapshot is not None:
            self.storage.apply_snapshot(snapshot)
            self.storage.newest = snapshot
        self.storage.append(entries)

    def apply(self, entries: list[Entry]) -> None:
        """Apply to a state machine that is all the data so far, one line an entry."""
        for entry in entries:
            old = self.storage.newest
            conf_state, data = old.conf_state, old.data
            if entry.type == ENTRY_NORMAL:
                data += entry.data
            else:
                conf_state = self.node.apply_conf_change(decode_conf_change(entry))
            self.storage.newest = Snapshot(entry.index, entry.term, conf_state, data)


class ScriptCluster:
    """All members by id, and the messages on their way."""

    def __init__(self) -> None:
        self._members: dict[int, ScriptMember] = {}
        self._network: list[Message] = []
        self._is_silent = False
        self._commands: dict[str, Callable[[Directive], str]] = {
            "add-nodes": self._add_nodes,
            "campaign": self._campaign,
            "compact": self._compact,
            "deliver-msgs": self._deliver_messages,
            "forget-leader": self._forget_leader,
            "process-append-thread": self._process_append_threads,
            "process-apply-thread": self._process_apply_threads,
            "process-ready": self._process_readies,
            "propose": self._propose,
            "propose-conf-change": self._propose_conf_change,
            "raft-log": self._raft_log,
            "raft-state": self._raft_state,
            "report-unreachable": self._report_unreachable,
            "send-snapshot": self._send_snapshot,
            "set-randomized-election-timeout": self._set_election_timeout,
            "stabilize": self._stabilize,
            "status": self._status,
            "tick-election": self._tick_election,
            "tick-heartbeat": self._tick_heartbeat,
            "transfer-leadership": self._transfer_leadership,
        }

    def run(self, directive: Directive) -> str:
        """Run one directive and return its output; errors are part of it, even in silence."""
        if directive.command == "log-level":
            self._is_silent = directive.arguments == ["none"]
            return ""
        error = ""
        output = ""
        try:
            output = self._commands[directive.command](directive)
        except ProposalDroppedError as dropped:
            error = str(dropped)
        if self._is_silent or directive.value("log-level") == "none":
            output = ""
        return output + error

    def _ids(self, directive: Directive) -> list[int]:
        return [int(word) for word in directive.arguments] or list(self._members)

    def _member(self, directive: Directive) -> ScriptMember:
        return self._members[int(directive.arguments[0])]

    # -- members ---------------------------------------------------------------------

    def _add_nodes(self, directive: Directive) -> str:
        for _ in range(int(directive.arguments[0])):
            self._add_node(len(self._members) + 1, directive)
        return ""

    def _add_node(self, member_id: int, directive: Directive) -> None:
        def flag(key: str) -> bool:
            return directive.value(key, "false") == "true"

        def ids(key: str) -> tuple[int, ...]:
            return tuple([int(word) for word in directive.keys.get(key, [])])

        storage = ScriptStorage()
        index = int(directive.value("index", "0"))
        if index:
            conf_state = ConfState(voters=ids("voters"), learners=ids("learners"))
            content = directive.value("content").encode()
            storage.newest = Snapshot(index, 1, conf_state, content)
            storage.apply_snapshot(storage.newest)
        lease_based = directive.value("read-only") == "lease-based"
        is_async = flag("async-storage-writes")
        node = RawNode(
            Config(
                id=member_id,
                election_ticks=ELECTION_TICKS,
                heartbeat_ticks=1,
                storage=storage,
                random=Random(member_id),
                applied=index,
                max_size_per_message=NO_LIMIT,
                max_inflight_messages=int(directive.value("inflight", str(NO_LIMIT))),
                max_committed_size_per_ready=int(
                    directive.value("max-committed-size-per-ready", str(NO_LIMIT))
                ),
                check_quorum=flag("checkquorum"),
                pre_vote=flag("prevote"),
                async_storage_writes=is_async,
                step_down_on_removal=flag("step-down-on-removal"),
                disable_conf_change_validation=flag("disable-conf-change-validation"),
                read_only_option=READ_ONLY_LEASE_BASED if lease_based else READ_ONLY_SAFE,
            )
        )
        self._members[member_id] = ScriptMember(node, storage, is_async)

    def _campaign(self, directive: Directive) -> str:
        self._member(directive).node.campaign()
        return ""

    def _forget_leader(self, directive: Directive) -> str:
        self._member(directive).node.forget_leader()
        return ""

    def _propose(self, directive: Directive) -> str:
        self._member(directive).node.propose(directive.arguments[1].encode())
        return ""

    def _propose_conf_change(self, directive: Directive) -> str:
        is_v1 = directive.value("v1", "false") == "true"
        change = ConfChange(
            parse_changes(directive.input),
            TRANSITIONS[directive.value("transition", "auto")],
            entry_type=ENTRY_CONF_CHANGE if is_v1 else ENTRY_CONF_CHANGE_V2,
        )
        assert not is_v1 or change.changes[0][0] >= ADD_NODE
        self._member(directive).node.propose_conf_change(change)
        return ""

    def _report_unreachable(self, directive: Directive) -> str:
        self._member(directive).node.report_unreachable(int(directive.arguments[1]))
        return ""

    def _set_election_timeout(self, directive: Directive) -> str:
        ticks = int(directive.value("timeout"))
        self._member(directive).node.set_randomized_election_ticks(ticks)
        return ""

    def _tick_election(self, directive: Directive) -> str:
        for _ in range(ELECTION_TICKS):
            self._member(directive).node.tick()
        return ""

    def _tick_heartbeat(self, directive: Directive) -> str:
        self._member(directive).node.tick()
        return ""

    def _transfer_leadership(self, directive: Directive) -> str:
        member = self._members[int(directive.value("from"))]
        member.node.transfer_leader(int(directive.value("to")))
        return ""

    # -- what is to be seen ----------------------------------------------------------

    def _raft_log(self, directive: Directive) -> str:
        storage = self._member(directive).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            return f"log is empty: first index={first}, last index={last}"
        return "\n".join([entry_text(entry) for entry in storage.entries(first, last + 1)])

    def _raft_state(self, directive: Directive) -> str:
        lines = []
        for member_id, member in self._members.items():
            node = member.node
            config = node.configuration
            voter = "Voter" if member_id in config.voters | config.outgoing else "Non-Voter"
            lines.append(
                f"{member_id}: {ROLE_NAMES[node.role]} ({voter}) Term:{node.term} Lead:{node.lead}"
            )
        return "\n".join(lines)

    def _status(self, directive: Directive) -> str:
        progress = self._member(directive).node.progress()
        return "\n".join([f"{member_id}: {one!r}" for member_id, one in progress.items()])

    # -- disks and network -----------------------------------------------------------

    def _compact(self, directive: Directive) -> str:
        self._member(directive).storage.compact(int(directive.arguments[1]))
        return self._raft_log(directive)

    def _send_snapshot(self, directive: Directive) -> str:
        source = self._member(directive)
        to = int(directive.arguments[1])
        m = Message(
            MSG_SNAP,
            to=to,
            from_id=source.node.id,
            term=source.node.term,
            snapshot=source.storage.snapshot(),
        )
        self._network.append(m)
        return message_text(m)

    def _deliver_messages(self, directive: Directive) -> str:
        wanted = directive.value("type")
        lines: list[str] = []
        for word in directive.arguments:
            lines += self._deliver(int(word), wanted)
        for word in directive.keys.get("drop", []):
            for m in self._take(int(word), wanted, from_peers=True):
                lines.append("dropped: " + message_text(m))
        return "\n".join(lines)

    def _take(self, to: int, wanted: str = "", from_peers: bool = False) -> list[Message]:
        taken: list[Message] = []
        rest: list[Message] = []
        for m in self._network:
            is_wanted = m.to == to and wanted in ("", MESSAGE_NAMES[m.type])
            is_local = m.from_id in (STORAGE_APPEND, STORAGE_APPLY, to)
            (taken if is_wanted and not (from_peers and is_local) else rest).append(m)
        self._network = rest
        return taken

    def _deliver(self, to: int, wanted: str = "") -> list[str]:
        lines: list[str] = []
        for m in self._take(to, wanted):
            lines.append(message_text(m))
            try:
                self._members[to].node.step(m)
            except (PeerNotFoundError, ProposalDroppedError) as error:
                lines.append(str(error))
        return lines

    def _process_readies(self, directive: Directive) -> str:
        return self._each(directive, "handling Ready", self._process_ready)

    def _process_append_threads(self, directive: Directive) -> str:
        return self._each(directive, "processing append thread", self._process_append)

    def _process_apply_threads(self, directive: Directive) -> str:
        return self._each(directive, "processing apply thread", self._process_apply)

    def _each(self, directive: Directive, what: str, work: Callable[[ScriptMember], str]) -> str:
        ids = self._ids(directive)
        if len(ids) == 1:
            return work(self._members[ids[0]])
        lines: list[str] = []
        for member_id in ids:
            lines += [f"> {member_id} {what}", indented(work(self._members[member_id]))]
        return "\n".join(lines)

    def _process_ready(self, member: ScriptMember) -> str:
        ready = member.node.ready()
        text = ready_text(ready)
        if not member.is_async:
            member.write(ready.hard_state, ready.entries, ready.snapshot)
            member.apply(ready.committed_entries)
        for m in ready.messages:
            if m.to == STORAGE_APPEND:
                member.append_work.append(m)
            elif m.to == STORAGE_APPLY:
                member.apply_work.append(m)
            else:
                self._network.append(m)
        if not member.is_async:
            member.node.advance()
        return text

    def _process_append(self, member: ScriptMember) -> str:
        if not member.append_work:
            return "no append work to perform"
        m = member.append_work.pop(0)
        hard_state = HardState(m.term, m.vote, m.commit) if m.term else None
        member.write(hard_state, m.entries, m.snapshot)
        return self._done(m)

    def _process_apply(self, member: ScriptMember) -> str:
        if not member.apply_work:
            return "no apply work to perform"
        m = member.apply_work.pop(0)
        member.apply(m.entries)
        return self._done(m)

    def _done(self, m: Message) -> str:
        self._network += m.responses
        lines = ["Processing:", message_text(m, with_responses=False), "Responses:"]
        return "\n".join([*lines, *[message_text(response) for response in m.responses]])

    def _stabilize(self, directive: Directive) -> str:
        ids = self._ids(directive)
        lines: list[str] = []
        while True:
            before = len(lines)
            for member_id in ids:
                if self._members[member_id].node.has_ready():
                    text = self._process_ready(self._members[member_id])
                    lines += [f"> {member_id} handling Ready", indented(text)]
            for member_id in ids:
                delivered = self._deliver(member_id)
                if delivered:
                    lines.append(f"> {member_id} receiving messages")
                    lines += [indented(text) for text in delivered]
            self._run_threads(ids, lines)
            if len(lines) == before:
                return "\n".join(lines)

    def _run_threads(self, ids: list[int], lines: list[str]) -> None:
        for member_id in ids:
            member = self._members[member_id]
            if member.append_work:
                lines.append(f"> {member_id} processing append thread")
            while member.append_work:
                lines.append(indented(self._process_append(member)))
        for member_id in ids:
            member = self._members[member_id]
            if member.apply_work:
                lines.append(f"> {member_id} processing apply thread")
            while member.apply_work:
                lines.append(indented(self._process_apply(member)))
