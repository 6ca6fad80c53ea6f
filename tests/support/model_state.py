"""The model backend as a node drives it, and its snapshots as real bbolt files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed

from etcdtw.bbolt.reader import BboltFile
from etcdtw.bbolt.writer import BboltWriter
from etcdtw.mvcc.backend import BUCKET_META, BUCKETS
from etcdtw.storage.building.from_bbolt import SnapshotFacts, SnapshotInstall
from etcdtw.storage.snapshot.child import NoRoom
from etcdtw.storage.snapshot.export import SnapshotExport
from etcdtw.storage.state.errands import ErrandError
from etcdtw.wire.mvccpb import KeyValue
from tests.support.model_backend import ModelBackend, encode_revision


class State(ModelBackend):
    """The model backend as a node drives it."""

    is_full = False
    is_committing = False

    def __init__(self) -> None:
        super().__init__()
        self.is_amid_entry = False
        self.behind_entry: list[Callable[[], None]] = []
        """What waits for the end of the long entry under way."""

    @property
    def revision(self) -> int:
        mark = self.bucket_get(BUCKET_META, b"finishedCompactRev")
        compacted = 1 if mark is None else int.from_bytes(mark[:8], "big")
        return max([compacted, *[main for main, _ in self.revisions]])

    size_allocated = 0
    size_in_use = 0
    pending = (0, 0)
    is_compacting = False

    hash_error: ErrandError | None = None
    """What is answered to each request for a hash, if anything."""

    def hash_kv(self, revision: int, compact_revision: int, done: Callable[[Any], None]) -> None:
        if self.hash_error is not None:
            done(self.hash_error)
        else:
            super().hash_kv(revision, compact_revision, done)

    def hash_all(self, done: Callable[[Any], None]) -> None:
        done(self.hash_error or 0)

    def defragment(self, done: Callable[[str], None]) -> None:
        done("")

    def reveal(self) -> None:
        self.is_amid_entry = True  # nothing is hidden here: `LmdbState` does that

    def conceal(self) -> None:
        pass

    def publish(self) -> None:
        self.is_amid_entry = False
        waiting, self.behind_entry = self.behind_entry, []
        for go_on in waiting:
            go_on()


class ModelDamage:
    """Damage to a model state, as a test has it: then nothing is applied any more."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._told: Callable[[], None] = lambda: None
        self.proved = ""

    def listen(self, proved: Callable[[], None]) -> None:
        self._told = proved

    def prove(self, why: str) -> None:
        self.proved = why
        self._state.is_full = True
        self._told()

    def forget(self) -> None:
        self.proved = ""
        self._state.is_full = False


class ModelStream:
    """A snapshot that is no file.  Is `node.duties.snapshots.StateStream`."""

    def __init__(
        self, octets: bytes, export: SnapshotExport, buckets: list[list[tuple[bytes, bytes]]]
    ) -> None:
        self.octets = octets
        self.export = export
        self.buckets = buckets
        self.is_closed = False

    def read(self, wanted: int) -> Deferred[bytes]:
        assert not self.is_closed
        octets, self.octets = self.octets[:wanted], self.octets[wanted:]
        return succeed(octets)

    def close(self) -> None:
        self.is_closed = True


class ModelSnapshots:
    """Snapshots of a model state as real bbolt files, made at once.

    With ``holds`` set nothing is built before `release`.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._built: State | None = None
        self.holds = False
        self._held: list[Callable[[], None]] = []
        self.holds_adoption = False
        """Whether an adoption waits for `release_adoption`."""
        self.refusal = ""
        """What is answered to each request to build, if anything."""
        self.is_disk_full = False
        """Whether there is no room for a file."""
        self.streamed = 0
        self.exports = 0
        """Files that were asked for, also where there is no room."""
        self.asked = 0
        """Requests to build so far."""
        self._adopting: Callable[[], None] | None = None

    def export(
        self,
        target: Path,
        done: Callable[[SnapshotExport | str], None],
        storage_version: bytes = b"",
    ) -> None:
        self.exports += 1
        state = self._state
        if state.is_amid_entry:
            state.behind_entry.append(lambda: self._export(target, done))
        else:
            self._export(target, done)

    def _export(self, target: Path, done: Callable[[SnapshotExport | str], None]) -> None:
        if self.is_disk_full:
            done(NoRoom("no room"))
            return
        octets, export = self._exported()
        target.write_bytes(octets)
        done(export)

    def stream(self, buckets: Sequence[bytes], done: Callable[[ModelStream | str], None]) -> None:
        octets, export = self._exported()
        self.streamed += 1
        done(ModelStream(octets, export, [self._state.bucket_items(name) for name in buckets]))

    def _exported(self) -> tuple[bytes, SnapshotExport]:
        state = self._state
        revisions = [
            (encode_revision(main, sub, is_tombstone), record)
            for (main, sub), (is_tombstone, _, record) in sorted(state.revisions.items())
        ]
        octets: list[bytes] = []
        writer = BboltWriter(octets.append)
        for name in sorted((*BUCKETS, b"key")):
            items = revisions if name == b"key" else state.bucket_items(name)
            writer.add_bucket(name, items)
        metas = writer.finish()
        conf_state = state.bucket_get(BUCKET_META, b"confState") or b""
        whole = metas + b"".join(octets)[len(metas) :]
        return whole, SnapshotExport(
            len(whole), state.applied_index, state.applied_term, conf_state
        )

    def build(
        self, source: Path, facts: SnapshotFacts, done: Callable[[SnapshotInstall | str], None]
    ) -> None:
        self.asked += 1
        if self.refusal:
            done(self.refusal)
            return
        if self.holds:
            self._held.append(lambda: self.build(source, facts, done))
            return
        if self._built is not None:
            done("another snapshot is being installed already")
            return
        data = source.read_bytes()
        file = BboltFile(lambda offset, size: data[offset : offset + size], len(data))
        built = State()
        for stored, record in file.items(b"key"):
            place = int.from_bytes(stored[:8], "big"), int.from_bytes(stored[9:17], "big")
            kv = KeyValue.FromString(record)
            built.revisions[place] = (len(stored) == 18, kv.key, record)
            if len(stored) == 18:
                built.live.pop(kv.key, None)
            else:
                built.live[kv.key] = record
        for record in built.live.values():
            kv = KeyValue.FromString(record)
            if kv.lease:
                built.attach(kv.lease, kv.key)
        for name in BUCKETS:
            rows = facts.buckets.get(name)
            built.buckets[name] = dict(rows if rows is not None else file.items(name))
        meta = built.buckets[BUCKET_META]
        meta.update(facts.meta)
        built.applied_index = int.from_bytes(meta[b"consistent_index"], "big")
        built.applied_term = int.from_bytes(meta[b"term"], "big")
        assert built.applied_index == facts.index, "the file is of another index"
        self._built = built
        done(SnapshotInstall(built.applied_index, built.applied_term, built.revision, b""))

    def release(self) -> None:
        """Build what was held, and what comes from now on."""
        self.holds = False
        held, self._held = self._held, []
        for build in held:
            build()

    def adopt(self, done: Callable[[], None]) -> None:
        assert self._built is not None, "nothing is built"
        self._adopting = done
        if not self.holds_adoption:
            self.release_adoption()

    @property
    def is_adopting(self) -> bool:
        return self._adopting is not None

    def release_adoption(self) -> None:
        """Let the adoption happen."""
        built, done = self._built, self._adopting
        assert built is not None, "nothing is built"
        assert done is not None, "nothing is to be adopted"
        waiting = self._state.behind_entry
        self._state.__dict__.update(built.__dict__)
        self._built = self._adopting = None
        done()
        for go_on in waiting:
            go_on()

    def discard(self) -> None:
        self._built = None

    def dispose(self, file: Path) -> None:
        file.unlink(missing_ok=True)
