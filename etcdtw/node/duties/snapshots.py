"""Snapshots of the whole state: this member's for peers that lag, a leader's for this one.

Out: the state is exported to a file, and the message names what is in exactly that file.  In: a
new state is built beside the running one first; only then does Raft hear of the snapshot, so
that the moment at which it counts is short and nothing but a crash can end it half way.

    received -> built -> stepped -> log starts behind it -> state adopted -> caches rebuilt
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.apply.members import CONF_STATE_KEY, decode_conf_state, encode_conf_state
from etcdtw.bbolt.layout import BboltError
from etcdtw.bbolt.reader import BboltFile
from etcdtw.cluster.membership import Membership, Row
from etcdtw.cluster.v2_store import V2StoreError, decode_v2_store, encode_v2_store
from etcdtw.mvcc.backend import (
    BUCKET_CLUSTER,
    BUCKET_MEMBERS,
    BUCKET_MEMBERS_REMOVED,
)
from etcdtw.node.intake.stepping import Stepper
from etcdtw.raft.entry import HardState, Snapshot
from etcdtw.raft.message import Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.storage import LogStore
from etcdtw.storage.building.from_bbolt import SnapshotFacts, SnapshotInstall
from etcdtw.storage.disk.received_files import EXPORTED, RECEIVED, remove_leftovers
from etcdtw.storage.rows.codec import META_TERM, encode_u64
from etcdtw.storage.snapshot.child import NoRoom
from etcdtw.storage.snapshot.export import SnapshotExport
from etcdtw.transport.peer.seams import PeerTransport, SnapshotOctets

SENDS_MAX: Final = 16
"""Snapshots on their way at once; a peer that wants one more is told later (etcd's number)."""
SHORT_LOG_KEPT_MS: Final = 600_000
"""So long a log whose disk is short is kept for a snapshot on its way."""
REFUSAL_REST_S: Final = 5.0
"""Before a sender hears that its snapshot is of no use: it sends the same at once again.
Also before another one is made for a peer that the last did not reach."""
MEMBERSHIP_BUCKETS: Final = (BUCKET_MEMBERS, BUCKET_MEMBERS_REMOVED, BUCKET_CLUSTER)


class SnapshotRefusedError(Exception):
    """A received snapshot cannot be used; the text says why."""


class StateStream(SnapshotOctets, Protocol):
    """A snapshot that is no file (`storage.snapshot.stream`)."""

    @property
    def export(self) -> SnapshotExport: ...

    @property
    def buckets(self) -> Sequence[Sequence[tuple[bytes, bytes]]]:
        """The rows of the buckets that were asked for, in that order."""
        ...

    def close(self) -> None: ...


class StateSnapshotFiles(Protocol):
    """What of the state's snapshots is used here (`storage.snapshot.snapshots`)."""

    def export(
        self,
        target: Path,
        done: Callable[[SnapshotExport | str], None],
        storage_version: bytes = b"",
    ) -> None: ...

    def stream(
        self, buckets: Sequence[bytes], done: Callable[[StateStream | str], None]
    ) -> None: ...

    def build(
        self, source: Path, facts: SnapshotFacts, done: Callable[[SnapshotInstall | str], None]
    ) -> None: ...

    def adopt(self, done: Callable[[], None]) -> None: ...

    def discard(self) -> None: ...

    def dispose(self, file: Path) -> None: ...


class StateReplaced(Protocol):
    """Whatever is kept beside the state (`loop.caches`)."""

    @property
    def revision(self) -> int:
        """The last one that watchers were told of."""
        ...

    def read_anew(self, last_revision: int) -> None:
        """Log and state are those of a snapshot."""
        ...


class Snapshots:
    """The snapshots of one member, in both directions."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        raw: RawNode,
        stepper: Stepper,
        log_store: LogStore,
        replaced: StateReplaced,
        files: StateSnapshotFiles,
        folder: Path,
        *,
        max_learners: int,
        log_kept_ms: int,
    ) -> None:
        """``log_kept_ms``: after a snapshot went out its receiver needs the entries behind it."""
        self._clock = clock
        self._raw = raw
        self._stepper = stepper
        self._log_store = log_store
        self._replaced = replaced
        self._max_learners = max_learners
        self._files = files
        self._folder = folder
        self._number = 0
        self._sending: dict[int, int] = {}
        """Since when those are on their way, by their numbers."""
        self._rests_until_ms: dict[int, int] = {}
        """By the peer that the last one did not reach."""
        self._log_kept_ms = log_kept_ms
        self._last_sent_ms = -log_kept_ms
        self._built_index = 0
        self._built_from = ""
        self.sent_total = 0
        self.installed_total = 0
        self.installing = 0
        """Received databases whose state is neither in place nor refused yet."""

    def prepare(self) -> None:
        """Make the folder; delete what a crash left half sent or half received."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        remove_leftovers(self._folder)

    def keeps_log(self, now_ms: int, *, is_short: bool) -> bool:
        """Tell whether a receiver still needs the entries behind the snapshot it gets, or got.

        A log whose disk is short is not kept for long for one that takes its snapshot in drips.
        """
        is_needed = any(
            not is_short or now_ms - ms <= SHORT_LOG_KEPT_MS for ms in self._sending.values()
        )
        return is_needed or now_ms - self._last_sent_ms < self._log_kept_ms

    # Out.

    def export(
        self, done: Callable[[Path, SnapshotExport | str], None], storage_version: str = ""
    ) -> None:
        """Write the state to a file of its own; whoever asked has it deleted (`dispose`).

        ``storage_version``: what the file says of its version; etcd takes one that says nothing
        as its line 3.5.
        """
        self._number += 1
        path = self._folder / f"{self._number:016x}{EXPORTED}"
        self._files.export(path, lambda found: done(path, found), storage_version.encode())

    def dispose(self, path: Path) -> None:
        """Delete a file that `export` has written; nothing happens if it is gone."""
        self._files.dispose(path)

    def send(self, m: Message, transport: PeerTransport) -> None:
        """Send the present state in place of the mark that Raft put into ``m``."""
        now_ms = self._now_ms()
        if len(self._sending) >= SENDS_MAX or now_ms < self._rests_until_ms.get(m.to, now_ms):
            self._stepper.report_snapshot(m.to, False)
            return
        number = self._number + 1
        self._sending[number] = now_ms

        def exported(path: Path, found: SnapshotExport | str) -> None:
            if isinstance(found, NoRoom):
                self.dispose(path)
                self._send_stream(m, number, transport)
                return
            if isinstance(found, str):
                self._not_sent(m.to, number, found)
                self.dispose(path)
                return
            try:
                with _opened(path) as file:
                    rows = [list(file.items(bucket)) for bucket in MEMBERSHIP_BUCKETS]
                m.snapshot = _snapshot_of(found, rows)
            except (BboltError, OSError, ValueError) as error:
                self._not_sent(m.to, number, f"the one just written is unusable: {error}")
                self.dispose(path)
                return

            def ended(ok: bool) -> None:
                self._finished(m.to, number, ok)
                self.dispose(path)

            self._tell_of(m, found)
            transport.send_snapshot(m, str(path), found.size, ended)

        self.export(exported)

    def _send_stream(self, m: Message, number: int, transport: PeerTransport) -> None:
        """Send it without a file, for which there is no room here; there may be at the peer's."""

        def opened(found: StateStream | str) -> None:
            if isinstance(found, str):
                self._not_sent(m.to, number, found)
                return
            stream = found
            try:
                m.snapshot = _snapshot_of(found.export, found.buckets)
            except ValueError as error:
                stream.close()
                self._not_sent(m.to, number, f"the state's members cannot be read: {error}")
                return

            def ended(ok: bool) -> None:
                stream.close()
                self._finished(m.to, number, ok)

            self._tell_of(m, found.export)
            transport.send_snapshot(m, stream, found.export.size, ended)

        self._files.stream(MEMBERSHIP_BUCKETS, opened)

    def _tell_of(self, m: Message, found: SnapshotExport) -> None:
        self.log.info(
            "sending the snapshot at index {index}, {octets} octets, to {peer}",
            index=found.index,
            octets=found.size,
            peer=f"{m.to:x}",
        )

    def _not_sent(self, peer: int, number: int, why: str) -> None:
        self.log.warn("no snapshot for {peer}: {why}", peer=f"{peer:x}", why=why)
        self._finished(peer, number, False)
        self._stepper.report_snapshot(peer, False)

    def _finished(self, peer: int, number: int, ok: bool) -> None:
        self._sending.pop(number, None)
        now_ms = self._now_ms()
        if not ok:
            self._rests_until_ms[peer] = now_ms + int(REFUSAL_REST_S * 1000)
            return
        self._rests_until_ms.pop(peer, None)
        # Nobody who got nothing needs the log behind it: a peer that refuses for ever must not
        # stop its compaction.
        self._last_sent_ms = now_ms
        self.sent_total += 1

    # In.

    def path_of_received(self, index: int) -> str:
        """Return where the database of the snapshot at ``index`` is to be kept."""
        self._number += 1
        return str(self._folder / f"{index:016x}-{self._number:x}{RECEIVED}")

    def received(self, m: Message, path: str) -> Deferred[None]:
        """Take a MsgSnap and its database, which is deleted here.

        Fires when Raft has heard of it; fails with `SnapshotRefusedError`, after a rest.
        """
        done: Deferred[None] = Deferred()
        snapshot = m.snapshot
        if snapshot is None or snapshot.index <= self._raw.commit_index:
            self._step(m, path, done)
            return done
        try:
            facts = _facts_of(snapshot, self._max_learners)
        except (V2StoreError, ValueError) as error:
            self._refuse(path, str(error), done)
            return done

        def built(found: SnapshotInstall | str) -> None:
            if isinstance(found, str):
                self.installing -= 1
                self._refuse(path, found, done)
                return
            self._built_index = found.index
            self._step(m, path, done)

        self.installing += 1
        self._files.build(Path(path), facts, built)
        return done

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    def _refuse(self, path: str, why: str, done: Deferred[None]) -> None:
        self.log.error("a snapshot cannot be installed: {why}", why=why)
        self._files.dispose(Path(path))
        refusal = SnapshotRefusedError(why)
        self._clock.callLater(REFUSAL_REST_S, done.errback, refusal)

    def _step(self, m: Message, path: str, done: Deferred[None]) -> None:
        self._stepper.receive(m)
        if self._built_index and self._raw.installing_index == self._built_index:
            self._built_from = path  # deleting it would hold up the adoption
        else:
            self._files.dispose(Path(path))
            if self._built_index:
                # Raft has no use for it: it is not for us, or the log has come further meanwhile.
                self._built_index = 0
                self.installing -= 1
                self._files.discard()
        done.callback(None)

    def install(
        self, hard_state: HardState | None, snapshot: Snapshot, done: Callable[[], None]
    ) -> None:
        """Put a built snapshot in place of log and state; from here there is no way back."""
        assert hard_state is not None, "a snapshot moves the commit index"
        assert snapshot.index == self._built_index, "Raft installs what was not built"
        self._built_index = 0
        last_revision = self._replaced.revision
        mark = Snapshot(snapshot.index, snapshot.term, snapshot.conf_state)

        def adopted() -> None:
            self._replaced.read_anew(last_revision)
            self.installing -= 1
            self.installed_total += 1
            self._files.dispose(Path(self._built_from))
            self.log.info("the snapshot at index {index} is installed", index=snapshot.index)
            done()

        self.log.info("installing the snapshot at index {index}", index=snapshot.index)
        self._log_store.install_snapshot(hard_state, mark, lambda: self._files.adopt(adopted))


@contextmanager
def _opened(path: Path) -> Iterator[BboltFile]:
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        yield BboltFile(lambda offset, size: os.pread(fd, size, offset), os.fstat(fd).st_size)


def _snapshot_of(export: SnapshotExport, rows: Sequence[Sequence[tuple[bytes, bytes]]]) -> Snapshot:
    """Return what a database is a snapshot of; ``rows``: of its `MEMBERSHIP_BUCKETS`."""
    membership = Membership()
    membership.restore(*rows)
    return Snapshot(
        export.index,
        export.term,
        decode_conf_state(export.conf_state),
        encode_v2_store(membership.v2_store()),
    )


def _facts_of(snapshot: Snapshot, max_learners: int) -> SnapshotFacts:
    """Return what a snapshot's message says better than its database does.

    The term and configuration at its index, and up to etcd 3.5 who the members are.
    """
    meta = {
        META_TERM: encode_u64(snapshot.term),
        CONF_STATE_KEY: encode_conf_state(snapshot.conf_state),
    }
    buckets: dict[bytes, list[tuple[bytes, bytes]]] = {}
    store = decode_v2_store(snapshot.data) if snapshot.data else None
    if store is not None and store.is_authority and store.members:
        rows: list[Row] = Membership(max_learners).replace(store)
        for bucket in MEMBERSHIP_BUCKETS:
            found = [(key, value) for name, key, value in rows if name == bucket]
            buckets[bucket] = sorted([(key, value) for key, value in found if value is not None])
    return SnapshotFacts(snapshot.index, meta, buckets)
