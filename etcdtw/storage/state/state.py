"""`LmdbState`: the MVCC backend, an overlay of generations over durable rows.

Apply writes into the open generation; closed ones are on their way to the writer in a queue; reads
see all of them above the durable rows.  Knows no reactor: time comes in through `tick`, the writer
is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from etcdtw.mvcc.attached_walk import AttachedWalk
from etcdtw.mvcc.backend import BUCKET_META, BUCKETS, Change, Row
from etcdtw.mvcc.compaction_hashes import CompactionHashes
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.integrity.damage import KINDS, StateDamage
from etcdtw.storage.rows.boot import BootState
from etcdtw.storage.rows.codec import (
    KEY_SIZE_MAX,
    META_INDEX,
    META_TERM,
    encode_frame,
    encode_u64,
)
from etcdtw.storage.rows.fences import FENCE_COUNT_MAX, Fences
from etcdtw.storage.rows.tables import Batch
from etcdtw.storage.state.attachments import Attachments
from etcdtw.storage.state.errands import Compactions, Errands, HashTold, interrupted_compaction
from etcdtw.storage.state.generation_queue import BURY_TICK_ROWS, Flushes, GenerationQueue
from etcdtw.storage.state.overlay import (
    CHANGE_OVERHEAD,
    MISSING,
    SEND_CHANGES_MAX,
    Generation,
    Missing,
    add_fresh_changes,
    first_change,
    pending_of,
)
from etcdtw.storage.state.piece_reader import PieceReader
from etcdtw.storage.state.reader import CHUNK_MAX, StateReader
from etcdtw.storage.state.reuse import Reuse
from etcdtw.storage.state.stats import StateStats
from etcdtw.storage.state.step_reader import StepReader
from etcdtw.storage.writer.feed import Message, StateWriter
from etcdtw.storage.writer.worker import (
    ADOPT,
    ADOPTED,
    COMMITTED,
    COMPACT,
    COMPACTED,
    COMPACTION_HASH,
    COMPACTION_STEP,
    DEFRAGMENTED,
    DISPOSE,
    FAILED,
    HASH,
    HASH_ALL,
    HASH_KV,
    REOPENED,
    REUSABLE,
)

GENERATION_MS_MAX: Final = 1000
# Beside one batch of entries more, and a long entry's changes, however many those are.
OVERLAY_OCTETS_MAX: Final = 64 << 20
SPLIT_EVERY: Final = 128  # a fence that cannot be split is tried again after so many keys


class LmdbState:
    """The state of one member.  Implements `mvcc.backend.Backend`; see there for the calls.

    Invariants: every revision in a generation is newer than those in older ones and than every
    durable one, or the same row; all octets of generations but a long entry's are bounded.

    Reads see the generation ``_seen``.  It is the open one, except while a long entry is applied
    in slices: what that writes stays out of sight until `publish`, as one revision.
    """

    def __init__(
        self,
        reader: StateReader,
        writer: StateWriter,
        boot: BootState,
        fail_stop: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._pieces = PieceReader(reader, self.frames, self._changed)
        self._steps = StepReader(reader, self._generations, self._version_at, self.get_at)
        self._writer = writer
        self._fail_stop = fail_stop
        self._errands = Errands(self.flush, writer.send)
        self._attachments = Attachments(reader, self._generations)
        self._newest_file = 0  # the number of the newest defragmentation that moved the state
        self._is_stopped = False
        self.stats = StateStats(reader.open_reads)
        self.damage = StateDamage(reader.path, writer.send, self._errands.supersede)
        reader.on_damage = self.damage.hear
        self._begin(boot)
        writer.start(self._receive)
        self._resume_compaction()

    def _begin(self, boot: BootState) -> None:
        """Have nothing in memory above the durable state."""
        self._attachments.replaced()
        self._fences = Fences(boot.fences)
        self._has_long = self._reader.has_long
        self._open = self._seen = Generation(1)
        self._seen_fences = self._old_fences = self._fences
        self._unseen = Generation(0)  # stays empty: what reads see of a long entry
        self._is_hiding = False
        self._closed = GenerationQueue(self._writer)
        self.reuse = Reuse(self._writer.send)
        self._opened_ms: int | None = None
        self.revision = boot.revision
        """The newest main revision, 1 in an empty store; durable with its generation."""
        self.applied_index = boot.applied_index
        self.applied_term = boot.applied_term
        self.applied_durable = boot.applied_index
        """The applied index that a crash cannot take back."""
        self._flushes = Flushes()
        self._compactions = Compactions()
        self.compaction_hashes = CompactionHashes()
        self._adopted: Callable[[], None] | None = None
        self._is_flush_due = False  # at the end of the entry being applied

    def let_go(self, items: list[Any]) -> None:
        self._closed.let_go(items)

    # The current view.

    def get(self, key: bytes) -> bytes | None:
        record = self._unwritten(key)
        return self._reader.get(key) if isinstance(record, Missing) else record

    def frame(self, key: bytes) -> bytes | None:
        record = self._unwritten(key)
        if isinstance(record, Missing):
            return self._reader.frame(key)
        return None if record is None else encode_frame(record)

    def _unwritten(self, key: bytes) -> bytes | Missing | None:
        """Return a key's record as it will be written; `MISSING`: it is as it was read."""
        record = self._seen.current.get(key, MISSING)
        if isinstance(record, Missing) and (self._closed.generations or self._seen.full):
            return self._closed.record(key, self._seen)
        return record

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        position: bytes | None = start
        while position is not None:
            wanted = limit - len(found) if limit else CHUNK_MAX
            left = octets_max - size if octets_max else 0
            rows, position = self.rows(position, end, 0, wanted, left)
            found += (frames := [frame for _, frame in rows])
            if limit and len(found) >= limit:
                del found[limit:]
                break
            size += sum(map(len, frames)) if octets_max else 0
            if 0 < octets_max <= size:
                break
        return found

    def pieces(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> tuple[list[bytes], int]:
        return self._pieces.read(self._seen_fences, start, end, limit, octets_max)

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        found: list[bytes] = []
        position: bytes | None = start
        while position is not None:
            keys, bound = self._reader.keys(position, end, CHUNK_MAX)
            changed = self._changed(position, end if bound is None else bound)
            if changed:
                merged = set(keys)
                merged.update(changed)
                merged.difference_update([key for key in changed if changed[key] is None])
                keys = sorted(merged)
            found += keys
            position = bound if keys else self._seen_fences.skip_dead(bound, end)
        return found

    def count(self, start: bytes, end: bytes | None) -> int:
        total, rest = self._seen_fences.measure(start, end)
        for low, high in rest:
            if self._changed(low, high):
                total += len(self.keys(low, high))
            else:
                total += self._pieces.count(low, high)
        return total

    def count_least(self, start: bytes, end: bytes | None) -> int:
        return self._seen_fences.measure(start, end)[0]

    def large_octets(self) -> int:
        return self._reader.large_octets

    def get_at(self, key: bytes, revision: int) -> bytes | None:
        record = self._version_at(key, revision)
        if not isinstance(record, Missing):
            return record
        return self._reader.get_at(key, revision)

    def frames_at(
        self, start: bytes, end: bytes | None, revision: int, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        return self._steps.frames_at(start, end, revision, limit, octets_max)

    def count_at(self, start: bytes, end: bytes | None, revision: int) -> int:
        return self._steps.count_at(start, end, revision)

    def rows(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int, octets_max: int
    ) -> tuple[list[Row], bytes | None]:
        return self._steps.rows(self._seen_fences, start, end, revision, rows_max, octets_max)

    def count_some(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int
    ) -> tuple[int, bytes | None]:
        return self._steps.count(start, end, revision, rows_max)

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int = 0
    ) -> list[Change]:
        generations = self._generations()
        fresh = first_change(generations) or (last + 1, 0)
        found: list[Change] = []
        if (main, sub) < fresh:
            # A revision may lie in both, its beginning in the state and its end in the overlay.
            rows = self._reader.changes_from(main, sub, min(last, fresh[0]), limit, octets_max)
            found = [Change(*row) for row in rows if row[:2] < fresh]
        add_fresh_changes(found, generations, main, sub, last, limit, octets_max)
        return found

    # Writes; by apply only.

    def put(self, main: int, sub: int, key: bytes, record: bytes, is_new: bool) -> None:
        generation = self._open
        current = generation.current
        if key not in current:
            generation.fresh.append(key)
        current[key] = record
        changes = generation.changes
        changes.append((main, sub, key, record))
        generation.octets += len(record) + len(key) + CHANGE_OVERHEAD
        self.revision = main
        if is_new:
            self._count_new(key)
        if len(changes) >= generation.due or generation.octets >= generation.octets_due:
            self._closed.stream(generation)

    def delete(self, main: int, sub: int, key: bytes) -> None:
        generation = self._open
        if key not in generation.current:
            generation.fresh.append(key)
        generation.current[key] = None
        generation.changes.append((main, sub, key, None))
        generation.octets += 2 * len(key) + CHANGE_OVERHEAD
        self.revision = main
        self._fences.change(key, -1)
        if len(generation.changes) >= generation.due:
            self._closed.stream(generation)

    def attach(self, lease_id: int, key: bytes) -> None:
        self._set_attached(lease_id, key, True)

    def detach(self, lease_id: int, key: bytes) -> None:
        self._set_attached(lease_id, key, False)

    def attached(self, lease_id: int) -> list[bytes]:
        return self._attachments.all(lease_id)

    def has_attached(self, lease_id: int, count: int) -> bool:
        return self._attachments.has(lease_id, count)

    def walk_attached(self, lease_id: int) -> AttachedWalk:
        return self._attachments.walk(lease_id)

    def attached_durable(
        self, lease_id: int, position: bytes, limit: int
    ) -> tuple[list[bytes], bytes]:
        assert not self._closed.generations, "attachments are in the overlay"
        return self._reader.attached(lease_id, position, limit)

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None:
        if bucket == BUCKET_META and self.applied_index and key in (META_INDEX, META_TERM):
            return encode_u64(self.applied_index if key == META_INDEX else self.applied_term)
        for generation in reversed(self._generations()):
            if (bucket, key) in generation.buckets:
                return generation.buckets[bucket, key]
        return self._reader.bucket_get(bucket, key)

    def bucket_put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self._set_bucket(bucket, key, value)

    def bucket_delete(self, bucket: bytes, key: bytes) -> None:
        self._set_bucket(bucket, key, None)

    def bucket_items(self, bucket: bytes) -> list[tuple[bytes, bytes]]:
        items: dict[bytes, bytes | None] = dict(self._reader.bucket_items(bucket))
        for generation in self._generations():
            fresh = generation.buckets.items()
            items |= {key: value for (name, key), value in fresh if name == bucket}
        if bucket == BUCKET_META and self.applied_index:
            items[META_INDEX] = encode_u64(self.applied_index)
            items[META_TERM] = encode_u64(self.applied_term)
        return sorted((key, value) for key, value in items.items() if value is not None)

    def schedule_compaction(self, revision: int) -> None:
        self._open.schedule(revision)
        self._compactions.schedule(revision)

    def set_applied(self, index: int, term: int) -> None:
        self.applied_index = index
        self.applied_term = term
        if self._is_flush_due or self._open.is_large():
            self._close_generation()

    # Beside the seam: the node's calls.

    @property
    def is_committing(self) -> bool:
        return bool(self._closed.generations) and self._adopted is None

    @property
    def is_full(self) -> bool:
        if self.damage.proved:
            return True
        return self._open.octets - self._open.excused + self._closed.octets >= OVERLAY_OCTETS_MAX

    def tick(self, now_ms: int) -> None:
        """Close the open generation when it is due.  To be called about every 100 ms."""
        self._closed.bury(BURY_TICK_ROWS)
        if self._is_clean():
            self._opened_ms = None
        elif self._opened_ms is None:
            self._opened_ms = now_ms
        elif self._is_flush_due or now_ms - self._opened_ms >= GENERATION_MS_MAX:
            self._close_generation()

    def reveal(self) -> None:
        """Go on writing a long entry: reads see what it wrote, so only apply may read.

        At the first time everything before is durable: after `flush`, with nothing applied since.
        """
        if not self._is_hiding:
            assert not self._closed.generations and self._open.is_empty(), "not flushed"
            self._is_hiding = True
            self._old_fences = self._fences.copy()
        self._seen = self._open
        self._seen_fences = self._fences

    def conceal(self) -> None:
        """Let everybody read again, as if the long entry had not begun."""
        assert self._is_hiding, "nothing to hide"
        self._open.excused = self._open.octets
        self._seen = self._unseen
        self._seen_fences = self._old_fences

    def publish(self) -> None:
        """The long entry is complete: everybody sees all of it from now on."""
        self._open.excused = self._open.octets
        self._seen = self._open
        self._seen_fences = self._old_fences = self._fences
        self._is_hiding = False
        self._attachments.published(self._open)
        self._is_flush_due = bool(self._flushes)

    def flush(self, done: Callable[[], None]) -> None:
        """Call ``done`` once everything applied up to now is durable.  Never amid an entry."""
        if not self._is_clean():
            self._flushes.wait(self._open, done)
            self._close_generation()
        elif self._closed.generations:
            self._flushes.wait(self._closed.generations[-1], done)
        else:
            done()

    def on_compacted(self, revision: int, done: Callable[[], None]) -> None:
        """Call ``done`` when no scheduled compaction up to ``revision`` is left to do."""
        if self._compactions.wait(revision, done):
            self._is_flush_due = True  # asked amid an entry: its index must be stored with it

    def hash_kv(self, revision: int, compact_revision: int, done: HashTold) -> None:
        """Call ``done`` with etcd's HashKV as of ``revision``, computed beside the reactor."""
        self._errands.hash(done, HASH_KV, revision, compact_revision)

    def hash_all(self, done: HashTold) -> None:
        """Call ``done`` with etcd's Maintenance.Hash of everything applied up to now."""
        self._errands.hash(done, HASH_ALL)

    def defragment(self, done: Callable[[str], None]) -> None:
        """Give the file's free pages back beside all writes; then ``done("")``, or its error."""
        self._errands.defragment(done)

    def adopt(self, index: int, done: Callable[[], None]) -> None:
        """Stand on the state that was built beside this one (`building.swap`), then call ``done``.

        Everything in memory is forgotten then; reads see it until then, as it is now: commits
        under way count no more, and what waits for them waits for this; hashes are given up.
        The log begins behind ``index`` already, and nothing is applied from here to ``done``.
        """
        self._adopted = done
        self._closed.stop()
        self._errands.supersede()
        self._writer.send((ADOPT, index))

    def dispose(self, file: Path) -> None:
        """Delete a file of any size, a part at a time, beside the reactor."""
        self._writer.send((DISPOSE, str(file)))

    def forget_ended_reads(self) -> None:
        self._reader.forget_ended_reads()

    @property
    def size_allocated(self) -> int:
        return self._reader.size_allocated()

    @property
    def size_in_use(self) -> int:
        return self._reader.size_in_use()

    @property
    def pending(self) -> tuple[int, int]:
        """Octets, an estimate of what their rows will use, and changes that are not committed."""
        return pending_of([*self._closed.generations, self._open])

    @property
    def is_compacting(self) -> bool:
        return self._compactions.is_pending

    def close(self) -> None:
        """Hand over what is left and end the writer.  What was applied survives if it lives on."""
        self._is_stopped = True
        self._flushes.take()
        self._closed.finish()
        self._writer.close()
        self._reader.close()

    # Generations.

    def _generations(self) -> list[Generation]:
        """Return the generations, oldest first."""
        return [*self._closed.generations, self._seen]

    def _is_clean(self) -> bool:
        return self._open.is_empty() and self.applied_index == max(
            self._closed.newest_index, self.applied_durable
        )

    def _changed(self, start: bytes, end: bytes | None) -> dict[bytes, bytes | None]:
        found: dict[bytes, bytes | None] = {}
        self._closed.between(start, end, found)
        self._seen.between(start, end, found)
        return found

    def _version_at(self, key: bytes, revision: int) -> bytes | Missing | None:
        record = self._seen.version_at(key, revision)
        if isinstance(record, Missing):
            record = self._closed.version_at(key, revision)
        return record

    def _count_new(self, key: bytes) -> None:
        fences = self._fences
        position = fences.change(key, 1)
        count = fences.counts[position]
        if count > FENCE_COUNT_MAX and count % SPLIT_EVERY == 1:
            fences.split(position, self.keys(*fences.interval(position)))
        if len(key) > KEY_SIZE_MAX:
            self._has_long = True

    def _set_attached(self, lease_id: int, key: bytes, is_attached: bool) -> None:
        generation = self._open
        generation.attached.setdefault(lease_id, {})[key] = is_attached
        generation.attachments.append((lease_id, key, is_attached))
        if not self._is_hiding:
            self._attachments.changed(lease_id, key, is_attached)
        generation.octets += len(key) + CHANGE_OVERHEAD

    def _set_bucket(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        assert bucket in BUCKETS, "no such bucket"
        generation = self._open
        generation.buckets[bucket, key] = value
        generation.bucket_rows.append((bucket, key, value))
        generation.octets += len(key) + len(value or b"") + CHANGE_OVERHEAD
        if not len(generation.bucket_rows) % SEND_CHANGES_MAX:
            self._closed.stream(generation)

    def _close_generation(self) -> None:
        """End the open generation; a small one only when none is under way to the writer.

        Not in the midst of a long entry: a generation holds whole revisions.
        """
        generation = self._open
        if self._is_hiding or self._adopted is not None or self.damage.proved:
            return
        if self._closed.generations and not generation.is_large():
            return
        self._is_flush_due = False
        fences, has_long = self._fences.take_dirty(), self._has_long
        index, term, revision = self.applied_index, self.applied_term, self.revision
        batch = Batch([], [], fences, has_long, index, term, revision)
        self._open = self._seen = Generation(generation.number + 1)
        self._opened_ms = None
        self._closed.close(generation, batch)

    # The writer's answers.

    def _receive(self, message: Message) -> None:
        kind = message[0]
        if kind == COMMITTED:
            self.stats.committed(message)
            if self._adopted is None:
                self._confirm(message[1])
        elif kind == COMPACTION_STEP:
            self.stats.stepped(message)
            self._reader.renew_if_held()
        elif kind == COMPACTION_HASH:
            self.compaction_hashes.add(*message[1:])
        elif kind == COMPACTED:
            self.stats.compacted(message)
            self._reader.renew()
            self._compactions.finish(message[1])
        elif kind in KINDS:
            self.damage.receive(message)
        elif kind == HASH:
            self._errands.hashed(message[1], message[2])
        elif kind == ADOPTED:
            self._finish_adoption()
        elif kind == DEFRAGMENTED:
            self._finish_defragmentation(message[1], message[2], message[3])
        elif kind == REUSABLE:
            self.reuse.told(*message[1:])
        elif kind == FAILED and not self._is_stopped:
            self._is_stopped = True
            self._fail_stop(message[1])

    def _confirm(self, number: int) -> None:
        """A generation is durable: see it there, drop it here, go on."""
        generation, batch = self._closed.confirm(number)
        self._reader.renew()
        self.reuse.committed(*pending_of([generation]), self.size_in_use)
        self.applied_durable = batch.index
        self._flushes.confirm(generation, self._compact)
        if self._flushes:
            self._close_generation()
        self._closed.advance()

    def _compact(self, revision: int) -> None:
        if not self._is_stopped:
            self._writer.send((COMPACT, revision))

    def _finish_adoption(self) -> None:
        if (boot := self._reopen()) is None:
            return
        self.damage.forget()
        flushes, done, compactions = self._flushes, self._adopted, self._compactions
        self._begin(boot)
        self._errands.go_on()
        self._resume_compaction()
        for flushed in flushes.take():
            flushed()
        compactions.hand_over(self._compactions)
        assert done is not None
        done()

    def _finish_defragmentation(self, number: int, is_moved: bool, error: str) -> None:
        if is_moved:
            self._newest_file = number
            # Before any later commit is confirmed: this process still reads the old file.  Not
            # amid an adoption: what has the file's name may be the new state already.
            if self._adopted is None and self._reopen() is None:
                return
        self._errands.defragmented(number, error)

    def _reopen(self) -> BootState | None:
        """Read the file that has taken the old one's place; None: it cannot be, and we stop."""
        try:
            boot = self._reader.reopen()
        except DataDirError as failure:
            self._is_stopped = True
            self._fail_stop(f"the new file of the state cannot be opened: {failure}")
            return None
        self.reuse.told(0, 0)
        self._writer.send((REOPENED, self._newest_file))
        return boot

    def _resume_compaction(self) -> None:
        """Go on with a compaction that a crash, or the member that sent this state, left."""
        revision = interrupted_compaction(self._reader)
        if revision:
            self._compactions.schedule(revision)
            self._writer.send((COMPACT, revision))
