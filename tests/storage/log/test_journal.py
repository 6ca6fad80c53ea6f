"""The journal: its layout, its laps, and what it makes of torn and damaged files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.storage.disk.directory import DataDirError, open_environment
from etcdtw.storage.log.codec import FORMAT_1, KEY_FORMAT, KEY_JOURNAL, encode_batch
from etcdtw.storage.log.journal import SEGMENT_FILES, Journal, write_at
from etcdtw.storage.log.journal_codec import (
    BODY_AT,
    MAGIC,
    PAGE,
    PAGE_PARTS,
    RECORD_SIZE_MAX,
    SECTOR,
    decode_body,
    decode_job,
    decode_stamp,
    encode_record,
    encode_stamp,
    join_parts,
    record_size,
)
from etcdtw.storage.log.log import LmdbLog, open_log
from etcdtw.storage.log.writer import (
    MERGED_SIZE_MAX,
    NOTHING_UNSETTLED,
    LogJob,
    perform,
    perform_group,
)
from tests.support.journal_rig import (
    MAP_SIZE,
    SALT,
    SEGMENT_SIZE,
    JournalRig,
    ReadOnlyWriter,
    all_of,
    read_log,
    write_image,
)


def entry(index: int, term: int = 1, size: int = 10) -> Entry:
    return Entry(term, index, 0, b"%d %d " % (index, term) + bytes(size))


def run(first: int, last: int, term: int = 1, size: int = 10) -> list[Entry]:
    return [entry(index, term, size) for index in range(first, last + 1)]


def job_of(entries: list[Entry], previous: int = 0) -> LogJob:
    job = LogJob()
    job.batch, _ = encode_batch(previous, entries)
    job.batch_first = entries[0].index
    job.entry_count = len(entries)
    return job


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JournalRig]:
    made = JournalRig(tmp_path / "wal")
    yield made
    made.close()


def test_a_record_comes_back_as_it_was_and_fills_whole_pages() -> None:
    job = job_of(run(5, 7))
    job.keep_below, job.forget_below = 5, 4
    job.hard_state, job.snapshot, job.mark = b"hard", b"snapshot" * 700, b"mark"
    record = encode_record(7, SALT, 9, job)
    assert len(record) == record_size(job) == 2 * PAGE
    body = decode_body(record, 7, SALT, 9)
    assert body is not None
    found = decode_job(body)
    for name in (name for name in dir(LogJob) if not name.startswith("_")):
        assert getattr(found, name) == getattr(job, name), name


def test_a_flipped_bit_anywhere_in_a_record_is_noticed() -> None:
    record = encode_record(1, SALT, 1, job_of(run(1, 2)))
    assert decode_body(record, 1, SALT, 1) is not None
    for bit in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_body(bytes(damaged), 1, SALT, 1) is None, bit


def test_a_record_is_not_taken_for_another() -> None:
    record = encode_record(1 << 32 | 7, SALT, 9, job_of(run(1, 2)))
    assert decode_body(record, 1 << 32 | 7, SALT, 9) is not None
    for epoch, salt, sequence in ((7, SALT, 9), (1 << 32 | 7, b"x" * 8, 9), (1 << 32 | 7, SALT, 8)):
        assert decode_body(record, epoch, salt, sequence) is None


def test_a_stamp_says_whose_a_sector_is_and_a_changed_one_says_nothing() -> None:
    stamp = encode_stamp(1 << 32 | 5, (1 << 40) + 3, 1024)
    assert decode_stamp(stamp) == (5, (1 << 40) + 3, 1024)
    assert decode_stamp(bytes(16)) is None, "zeros are no stamp"
    for bits in itertools.combinations(range(128), 2):
        damaged = bytearray(stamp)
        for bit in bits:
            damaged[bit // 8] ^= 1 << bit % 8
        assert decode_stamp(bytes(damaged)) is None, bits


def test_each_flush_writes_whole_pages_at_a_page_of_their_own(rig: JournalRig) -> None:
    rig.append(run(1, 1))
    rig.append([entry(2, 1, PAGE)])
    rig.append(run(3, 3))
    content = rig.image()["journal.0"]
    starts = [at for at in range(0, len(content), PAGE) if content[at : at + 4] == MAGIC]
    assert starts == [0, PAGE, 3 * PAGE]
    assert rig.writer._settler.commits == 0


def test_files_are_private_and_never_change_their_size(rig: JournalRig) -> None:
    for index in range(1, 100):
        rig.append(run(index, index))
    for name in SEGMENT_FILES:
        found = os.stat(rig.path / name)
        assert (found.st_mode & 0o777, found.st_size) == (0o600, SEGMENT_SIZE)


def test_segments_take_turns_and_are_begun_anew_only_when_settled() -> None:
    journal = Journal([10, 11], 4 * PAGE, 1, SALT)
    places = [journal.place(2 * PAGE) for _ in range(4)]
    assert places == [(10, 0), (10, 2 * PAGE), (11, 0), (11, 2 * PAGE)]
    assert not journal.has_room(PAGE)
    journal.settle(1)
    assert not journal.has_room(PAGE), "record 2 is still needed"
    journal.settle(2)
    assert journal.has_room(4 * PAGE)
    assert not journal.has_room(5 * PAGE)
    assert journal.place(PAGE) == (10, 0)
    assert journal.place(3 * PAGE) == (10, PAGE)
    assert not journal.has_room(PAGE), "record 4 is still needed"
    journal.settle(4)
    assert journal.place(PAGE) == (11, 0)
    assert journal.sequence == 7


def test_many_laps_lose_nothing(rig: JournalRig) -> None:
    for index in range(1, 400):
        rig.append([entry(index, 1, index * 31 % 9000)])
    assert [e.index for e in rig.all()] == list(range(1, 400))
    expected = rig.all()
    assert rig.writer.held_jobs > 3, "only a lack of room made LMDB take over"
    image = rig.image()
    write_image(rig.path.parent / "image", image)
    assert read_log(rig.path.parent / "image")[0] == expected


def test_what_finds_no_room_or_is_too_large_goes_to_lmdb_with_all_before_it(
    rig: JournalRig,
) -> None:
    rig.append(run(1, 3))
    rig.append([entry(4, 1, SEGMENT_SIZE)])
    assert rig.writer.held_jobs == 1
    assert rig.writer.unsettled_first() == 1 << 64
    rig.append(run(5, 5))
    assert rig.writer.unsettled_first() == 5
    write_image(rig.path.parent / "image", rig.image())
    assert [e.index for e in read_log(rig.path.parent / "image")[0]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("over", "held"), [(0, 0), (1, 1)])
def test_the_largest_record_is_journaled_and_a_larger_one_is_not(
    tmp_path: Path, over: int, held: int
) -> None:
    rig = JournalRig(tmp_path / "wal", 2 * RECORD_SIZE_MAX)
    fixed = len(job_of([Entry(1, 1, 0, b"")]).batch) + BODY_AT + 40
    largest = RECORD_SIZE_MAX // PAGE * PAGE_PARTS - fixed
    rig.append([Entry(1, 1, 0, bytes(largest + over))])
    assert rig.writer.held_jobs == held
    rig.close()


def test_entries_that_lmdb_has_not_yet_stay_readable_whatever_the_tail_may_hold(
    tmp_path: Path,
) -> None:
    rig = JournalRig(tmp_path / "wal", 1 << 20, tail_size_max=1000)
    for index in range(1, 60):
        rig.append([entry(index, index, 100)])
    assert rig.log.entries(1, 60, 1 << 30) == [entry(i, i, 100) for i in range(1, 60)]
    assert [rig.log.term(index) for index in range(1, 60)] == list(range(1, 60))
    rig.settle()
    rig.append([entry(60, 60, 100)])
    assert len(rig.log._tail) < 10
    assert rig.log.entries(1, 61, 1 << 30) == [entry(i, i, 100) for i in range(1, 61)]
    rig.append([entry(20, 99)])
    assert rig.all() == [*[entry(i, i, 100) for i in range(1, 20)], entry(20, 99)]
    rig.close()


def test_a_torn_last_record_is_ignored_wherever_it_is_torn(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 2), HardState(1, 1, 0))
    before = rig.image()
    rig.append([entry(3, 1, PAGE)], HardState(1, 1, 2))
    after = rig.image()
    rig.close()
    # The LMDB file is small here, so that thousands of recoveries take no time.
    for cut in range(PAGE, 3 * PAGE + 1, SECTOR):
        image = dict(before)
        image["journal.0"] = after["journal.0"][:cut] + before["journal.0"][cut:]
        write_image(tmp_path / "image", image)
        entries, hard_state = read_log(tmp_path / "image")
        is_whole = cut == 3 * PAGE
        assert entries == ([*run(1, 2), entry(3, 1, PAGE)] if is_whole else run(1, 2)), cut
        assert hard_state == HardState(1, 1, 2 if is_whole else 0)


def test_what_a_recovery_drops_is_logged(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 2))
    before = rig.image()
    rig.append(run(3, 5, size=PAGE))
    after = rig.image()
    rig.close()
    cut = PAGE + 3 * SECTOR
    image = dict(before)
    image["journal.0"] = after["journal.0"][:cut] + before["journal.0"][cut:]
    write_image(tmp_path / "image", image)
    with capturedLogs() as events:
        assert read_log(tmp_path / "image")[0] == run(1, 2)
    (text,) = [formatEvent(event) for event in events]
    assert "1536 of 16384 octets of record 2 (3 entries) were there" in text


def test_a_last_record_that_was_damaged_is_refused_with_advice(tmp_path: Path) -> None:
    """It was acknowledged: dropping it would take back a promise."""
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 1))
    rig.append(run(2, 2))
    image = rig.image()
    rig.close()
    for at, text in (
        (PAGE + 60, "record 2, the last one, was written whole and fails its checksum"),
        (2 * PAGE - 1, "sector 15 of journal.0, where record 2 lies or would"),
    ):
        content = bytearray(image["journal.0"])
        content[at] ^= 1
        write_image(tmp_path / "image", {**image, "journal.0": bytes(content)})
        with pytest.raises(DataDirError, match=rf"{text}.* join again"):
            read_log(tmp_path / "image")


def test_a_torn_first_record_of_a_lap_leaves_stale_records_that_are_ignored(
    tmp_path: Path,
) -> None:
    rig = JournalRig(tmp_path / "wal")
    for index in range(1, 33):
        rig.append(run(index, index))
    rig.settle()
    before = rig.image()
    rig.append([entry(33, 1, 3 * PAGE)])
    after = rig.image()
    rig.close()
    for cut in range(0, 4 * PAGE, 512):
        image = dict(before)
        image["journal.0"] = after["journal.0"][:cut] + before["journal.0"][cut:]
        write_image(tmp_path / "image", image)
        is_whole = image["journal.0"] == after["journal.0"]
        assert len(read_log(tmp_path / "image")[0]) == (33 if is_whole else 32), cut


def test_octets_that_a_client_chose_never_pass_for_a_record(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    forged = encode_record(rig.journal.epoch, SALT, 1, job_of([entry(1, 9)]))
    at = PAGE_PARTS - (BODY_AT + 40 + 8 + 17)  # the forged record begins at the second page
    before = rig.image()
    rig.append([Entry(1, 1, 0, bytes(at) + join_parts(forged))])
    image = rig.image()
    rig.close()
    content = image["journal.0"]
    assert join_parts(content[PAGE : 2 * PAGE]) == join_parts(forged), "stamps are missing"
    torn = before["journal.0"][:PAGE] + content[PAGE:]
    write_image(tmp_path / "image", {**image, "journal.0": torn})
    assert read_log(tmp_path / "image")[0] == []


def test_a_damaged_record_before_a_whole_one_is_refused_with_advice(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    for index in range(1, 6):
        rig.append(run(index, index))
    image = rig.image()
    rig.close()
    for page in range(4):
        content = bytearray(image["journal.0"])
        content[page * PAGE + 60] ^= 1
        write_image(tmp_path / "image", {**image, "journal.0": bytes(content)})
        text = f"record {page + 1} is damaged, but record 5 was written after it.* join again"
        with pytest.raises(DataDirError, match=text):
            read_log(tmp_path / "image")


def test_damage_in_records_that_lmdb_holds_does_no_harm(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 1))
    rig.settle()
    rig.append(run(2, 2))
    image = rig.image()
    rig.close()
    content = bytearray(image["journal.0"])
    content[60] ^= 1
    write_image(tmp_path / "image", {**image, "journal.0": bytes(content)})
    assert read_log(tmp_path / "image")[0] == run(1, 2)


@pytest.mark.parametrize("name", SEGMENT_FILES)
@pytest.mark.parametrize("content", [None, b"", bytes(PAGE - 1)])
def test_a_missing_or_truncated_journal_is_refused(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 1))
    rig.close()
    (tmp_path / "wal" / name).unlink()
    if content is not None:
        (tmp_path / "wal" / name).write_bytes(content)
    with pytest.raises(DataDirError, match=rf"{name} is (missing|truncated).* restore a snapshot"):
        read_log(tmp_path / "wal")


def test_a_journal_newer_than_its_log_is_refused(tmp_path: Path) -> None:
    JournalRig(tmp_path / "wal").close()
    old = (tmp_path / "wal" / "data.mdb").read_bytes()
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 1))
    rig.close()
    write_image(tmp_path / "wal", {"data.mdb": old})
    with pytest.raises(DataDirError, match="newer than the log"):
        read_log(tmp_path / "wal")


def test_a_directory_of_the_format_before_is_taken_over(tmp_path: Path) -> None:
    env, lock_fd = open_log(tmp_path / "wal", MAP_SIZE)
    with env.begin(write=True) as txn:
        txn.put(KEY_FORMAT, FORMAT_1)
        perform(txn, job_of(run(1, 5)))
        assert txn.get(KEY_JOURNAL) is None
    env.close()
    os.close(lock_fd)
    # A crash while the files were made left half of one.
    (tmp_path / "wal" / "journal.0").write_bytes(bytes(100))
    assert read_log(tmp_path / "wal")[0] == run(1, 5)
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(6, 6))
    write_image(tmp_path / "image", rig.image())
    rig.close()
    assert read_log(tmp_path / "image")[0] == run(1, 6)


def test_recovery_that_is_cut_short_is_done_again(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 9), HardState(2, 3, 0))
    rig.append(run(4, 5, 2))
    rig.log.compact(3)
    image = rig.image()
    rig.close()
    write_image(tmp_path / "image", image)
    for _ in range(2):
        # The second time LMDB holds it all, and the records are still there.
        assert read_log(tmp_path / "image") == (run(4, 5, 2), HardState(2, 3, 0))
        write_image(tmp_path / "image", {name: image[name] for name in SEGMENT_FILES})


def test_a_new_epoch_ignores_every_record_of_the_one_before(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    for index in range(1, 6):
        rig.append(run(index, index))
    rig.close()
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(3, 3, 2))
    write_image(tmp_path / "image", rig.image())
    rig.close()
    assert read_log(tmp_path / "image")[0] == [*run(1, 2), entry(3, 2)]


def test_snapshot_mark_and_compaction_keep_their_order(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    for index in range(1, 9):
        rig.append(run(index, index))
    rig.log.put_snapshot(Snapshot(5, 1, ConfState((1,)), b"x"), lambda: rig.told.append(1))
    assert rig.told == [1]
    rig.log.compact(5)
    rig.append(run(9, 9))
    assert rig.writer._settler.commits == 0
    write_image(tmp_path / "image", rig.image())
    assert read_log(tmp_path / "image")[0] == run(6, 9)
    rig.settle()
    assert rig.all() == run(6, 9)
    rig.close()
    assert read_log(tmp_path / "wal")[0] == run(6, 9)


def test_closing_brings_everything_into_lmdb(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append(run(1, 5))
    rig.close()
    log = LmdbLog(open_environment(tmp_path / "wal", MAP_SIZE, 0), ReadOnlyWriter())
    assert all_of(log) == run(1, 5)
    log.close()


def test_a_journal_that_is_older_than_its_log_is_refused(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal")
    old = rig.image()
    rig.append(run(1, 5))
    rig.close()
    write_image(tmp_path / "wal", {name: old[name] for name in SEGMENT_FILES})
    with pytest.raises(DataDirError, match="it is older than the log beside it"):
        read_log(tmp_path / "wal")


def test_short_writes_are_continued_and_a_stuck_one_is_an_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    steps = [3, 1, 5, 0]

    def short(fd: int, octets: bytes, at: int) -> int:
        return os.pwrite(fd, octets[: steps.pop(0)], at)

    write_at(fd, b"123456789", 0, short)
    assert os.pread(fd, 20, 0) == b"123456789"
    steps[:] = [3, 0]
    with pytest.raises(OSError, match="only 3 of 9"):
        write_at(fd, b"123456789", 0, short)
    os.close(fd)


@pytest.mark.parametrize(("over", "batches"), [(0, 1), (1, 2)])
def test_neighbouring_jobs_become_one_batch_up_to_a_size(
    tmp_path: Path, over: int, batches: int
) -> None:
    env, lock_fd = open_log(tmp_path / "wal", MAP_SIZE)
    first = job_of([Entry(1, 1, 0, bytes(1000))])
    crc = encode_batch(0, [Entry(1, 1, 0, bytes(1000))])[1][-1]
    overhead = len(job_of([Entry(1, 2, 0, b"")]).batch)
    second = Entry(1, 2, 0, bytes(MERGED_SIZE_MAX - len(first.batch) - overhead + over))
    with env.begin(write=True) as txn:
        before = txn.stat()["entries"]
        perform_group(txn, [first, job_of([second], crc)], 0)
        assert txn.stat()["entries"] - before == batches
    env.close()
    os.close(lock_fd)
    assert read_log(tmp_path / "wal")[0] == [Entry(1, 1, 0, bytes(1000)), second]


@pytest.mark.parametrize(("size", "commits"), [(4 * PAGE, 0), (3 * PAGE, 1)])
def test_lmdb_takes_over_at_once_from_a_size_on(tmp_path: Path, size: int, commits: int) -> None:
    rig = JournalRig(tmp_path / "wal", settle_size=size)
    for index in range(1, 4):
        rig.append(run(index, index))
    rig.turn_until(lambda: rig.writer._group is None)
    assert rig.writer._settler.commits == commits
    rig.close()


def test_lmdb_takes_over_after_a_while_what_came_slowly(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal", settle_delay_s=0.01)
    rig.append(run(1, 1))
    rig.append(run(2, 2))
    assert rig.writer.unsettled_first() == 1
    rig.turn_until(lambda: rig.writer.unsettled_first() == NOTHING_UNSETTLED)
    assert rig.writer._settler.commits == 1
    rig.append(run(3, 3))
    rig.turn_until(lambda: rig.writer.unsettled_first() == NOTHING_UNSETTLED)
    assert rig.writer._settler.commits == 2
    rig.close()


def test_a_start_that_finds_no_room_in_the_map_makes_some(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "wal", 64 * PAGE)
    rig.append([entry(1, 1, 20 * PAGE)])
    rig.append([entry(2, 1, 20 * PAGE)])
    write_image(tmp_path / "image", rig.image())
    rig.close()
    env, lock_fd = open_log(tmp_path / "image", 12 * PAGE)
    env.close()
    os.close(lock_fd)
    assert [e.index for e in read_log(tmp_path / "image")[0]] == [1, 2]
