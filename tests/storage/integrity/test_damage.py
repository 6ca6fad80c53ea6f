"""Damage that a running member meets: mended from history, or proved and the state frozen."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from etcdtw.storage.disk.directory import DATA_FILE
from etcdtw.storage.integrity.check import MARK
from etcdtw.storage.integrity.sweeper import (
    LOOK_GROWTH_PAGES_MAX,
    LOOK_INTERVAL_S,
    POSTPONED_MAX,
    REST_S_MIN,
    RETRY_S,
    Sweeper,
)
from etcdtw.storage.rows.codec import (
    DEAD,
    LIVE,
    TABLE_CURRENT,
    TABLE_HISTORY,
    TABLE_KEY,
    encode_version,
    revision_key,
)
from etcdtw.storage.rows.compaction import newest_version
from etcdtw.storage.rows.hidden_versions import TREE_VERSIONS_MIN
from etcdtw.storage.rows.seal import SEALS, StateDamageError
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.errands import SupersededError
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.reader import StateReader
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.state_rebuild import verify
from etcdtw.storage.writer.worker import Pace, StateWorker
from etcdtw.wire.encode import encode_record
from tests.support.page_map import PAGE, pages_in_use
from tests.support.state_rows import MAP_SIZE, fail, flip, hide_versions, open_tables

KEYS = [b"k%02d" % number for number in range(40)]


class Rig:
    """A state of forty keys, one row of it flipped, open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state"
        self.state = self.open()
        for main, key in enumerate(KEYS, 2):
            self.put(main, key)
        self.state.flush(lambda: None)
        self.state.close()

    def open(self) -> LmdbState:
        self.state = open_state(self.path, fail, map_size=MAP_SIZE)
        return self.state

    def put(self, main: int, key: bytes) -> None:
        is_new = main < 2 + len(KEYS)
        record = encode_record(key, 2, main, 1, b"value of " + key, 0)
        self.state.put(main, 0, key, record, is_new)
        self.state.set_applied(main, 1)

    def damaged(self, table: bytes, name: bytes) -> LmdbState:
        flip(self.path, table, name)
        return self.open()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_damaged_row_of_the_present_is_answered_from_history_and_mended(rig: Rig) -> None:
    state = rig.damaged(TABLE_CURRENT, KEYS[3])
    record = state.get(KEYS[3])
    assert record is not None
    assert b"value of k03" in record
    assert (state.damage.rows_total, state.damage.mended_total) == (1, 1)
    assert state.damage.proved == ""
    state.close()
    tables = open_tables(rig.path)
    assert verify(tables) == []
    tables.env.close()


@pytest.mark.parametrize("table", [TABLE_CURRENT])
def test_a_range_over_a_damaged_row_is_whole(rig: Rig, table: bytes) -> None:
    state = rig.damaged(table, KEYS[3])
    frames = state.frames(b"", None)
    assert [b"value of " + key in frame for key, frame in zip(KEYS, frames, strict=True)] == [
        True
    ] * len(KEYS)
    assert state.damage.mended_total == 1
    state.close()


def test_a_damaged_version_is_refused_and_nothing_is_applied_any_more(rig: Rig) -> None:
    state = rig.damaged(TABLE_HISTORY, KEYS[3])
    heard: list[str] = []
    state.damage.listen(lambda: heard.append(state.damage.proved))
    with pytest.raises(StateDamageError):
        state.get_at(KEYS[3], 20)
    assert len(heard) == 1
    assert "`history`" in heard[0]
    assert state.is_full
    rig.put(100, KEYS[5])
    state.tick(0)
    state.tick(5000)
    assert state.applied_durable == 1 + len(KEYS)  # what came later is not stored
    state.close()
    assert (rig.path / MARK).read_text() == heard[0]


@pytest.mark.parametrize("octet", range(-24, -1))
def test_a_damaged_row_of_a_key_of_many_versions_is_mended_too(rig: Rig, octet: int) -> None:
    state = rig.open()
    for main in range(50, 50 + TREE_VERSIONS_MIN + 6):
        record = encode_record(KEYS[3], 2, main, main - 48, b"value of k03", 0)
        state.put(main, 0, KEYS[3], record, False)
        state.set_applied(main, 1)
    state.flush(lambda: None)
    state.close()
    flip(rig.path, TABLE_CURRENT, KEYS[3], octet)
    state = rig.open()
    assert b"value of k03" in (state.get(KEYS[3]) or b"")
    assert state.damage.mended_total == 1
    assert state.damage.proved == ""
    state.close()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_version_that_nobody_sees_any_more_is_missed(rig: Rig, is_deleted: bool) -> None:
    state = rig.open()
    if is_deleted:
        state.delete(50, 0, KEYS[3])
        state.set_applied(50, 1)
    else:
        rig.put(50, KEYS[3])
    state.flush(lambda: None)
    state.close()
    tables = open_tables(rig.path)
    with tables.env.begin(write=True) as txn:  # as the damaged head of an inner page does
        versions = txn.cursor(tables.handles[TABLE_HISTORY])
        assert versions.set_key(KEYS[3])
        assert versions.last_dup()
        versions.delete()
    tables.env.close()
    state = rig.open()
    with pytest.raises(StateDamageError, match="a version is missing"):
        state.get_at(KEYS[3], 60)
    state.close()


@pytest.mark.processes
def test_the_next_start_makes_the_history_anew(rig: Rig) -> None:
    state = rig.damaged(TABLE_HISTORY, KEYS[3])
    with pytest.raises(StateDamageError):
        state.get_at(KEYS[3], 20)
    state.close()
    state = rig.open()
    assert "made anew" in state.damage.mended_at_start
    assert state.get_at(KEYS[3], 20) is not None
    state.close()
    assert not (rig.path / MARK).exists()


def test_a_damaged_record_is_never_served(rig: Rig) -> None:
    state = rig.damaged(TABLE_KEY, revision_key(5, 0))
    with pytest.raises(StateDamageError, match="`key`"):
        state.changes_from(2, 0, 50, 1000)
    assert "`key`" in state.damage.proved
    told: list[object] = []
    state.hash_kv(10, -1, told.append)
    assert len(told) <= 1
    state.close()


def test_a_hash_over_a_damaged_record_proves_it(rig: Rig) -> None:
    state = rig.damaged(TABLE_KEY, revision_key(5, 0))
    told: list[object] = []
    state.hash_kv(20, -1, told.append)
    assert "`key`" in state.damage.proved
    assert [type(one) for one in told] == [SupersededError]
    state.close()


def test_a_sweep_in_the_writer_finds_what_no_read_does(rig: Rig) -> None:
    tables = open_tables(rig.path)
    with tables.env.begin(write=True) as txn:
        txn.delete(KEYS[7], db=tables.handles[TABLE_CURRENT])
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], interval_s=100.0)
    while not answers or answers[-1][0] != "swept":
        now_s[0] += sweeper.rest_s or 0.0
        sweeper.step()
    assert ("mended", KEYS[7], "") in answers
    assert 50.0 < now_s[0] - 10.0 <= 100.0
    assert sweeper.rest_s
    assert verify(tables) == []
    tables.env.close()


def test_a_hurried_sweep_rests_but_a_moment(rig: Rig) -> None:
    tables = open_tables(rig.path)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], interval_s=0.0)
    rests = [sweeper.rest_s]
    sweeper.hurry()
    while not answers:
        rests.append(sweeper.rest_s)
        now_s[0] += rests[-1] or 0.0
        sweeper.step()
    assert answers[-1][0] == "swept"
    assert rests[0] is None
    assert max([rest or 0.0 for rest in rests]) <= REST_S_MIN
    assert sweeper.rest_s is None
    tables.env.close()


def test_no_read_transaction_outlives_a_step_of_a_sweep(rig: Rig) -> None:
    tables = open_tables(rig.path)
    sweeper = Sweeper(tables, lambda answer: None, lambda: 0.0, interval_s=100.0)
    sweeper.step()
    assert tables.env.info()["num_readers"] == 1
    assert not any(line.split()[2] != "-" for line in tables.env.readers().splitlines()[1:])
    tables.env.close()


def test_a_branch_that_leads_to_a_freed_page_is_seen_within_seconds(rig: Rig) -> None:
    tables = open_tables(rig.path)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], interval_s=1e9)
    now_s[0] += LOOK_INTERVAL_S
    sweeper.step()
    assert answers == []
    file = rig.path / DATA_FILE
    page = next(page for page, title in pages_in_use(file).items() if title == "free list")
    octets = bytearray(file.read_bytes())
    leaf = next(number for number, title in pages_in_use(file).items() if title == "leaf")
    node = page * PAGE + int.from_bytes(octets[page * PAGE + 16 : page * PAGE + 18], "little")
    octets[node + 8 + 8 + 8 : node + 8 + 8 + 16] = leaf.to_bytes(8, "little")
    with file.open("r+b") as stream:
        stream.write(octets)
    now_s[0] += LOOK_INTERVAL_S
    sweeper.step()
    assert answers[0][0] == "damaged"
    assert "has two places" in str(answers[0][3])
    tables.env.close()


class Scarce:
    """Mends rows where there is room for so many."""

    def __init__(self, error: Exception, room: int = 0) -> None:
        self.error = error
        self.room = room
        self.tried: list[bytes] = []

    def __call__(self, tables: Tables, name: bytes) -> None:
        self.tried.append(name)
        if not self.room:
            raise self.error
        self.room -= 1


FULL = lmdb.DiskError("mdb_txn_commit: No space left on device")


@pytest.mark.parametrize("error", [FULL, lmdb.MapFullError("mdb_put: MDB_MAP_FULL")])
def test_a_row_that_cannot_be_mended_for_want_of_room_is_mended_later(
    rig: Rig, error: lmdb.Error
) -> None:
    tables = open_tables(rig.path)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    scarce = Scarce(error)
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], 0.0, make_anew=scarce)
    sweeper.mend(KEYS[3])
    assert (answers, sweeper.rest_s) == ([], RETRY_S)
    now_s[0] += RETRY_S
    sweeper.step()
    assert (answers, sweeper.rest_s) == ([], RETRY_S)
    scarce.room = 1
    now_s[0] += RETRY_S
    sweeper.step()
    assert answers == [("mended", KEYS[3], "")]
    assert scarce.tried == [KEYS[3]] * 3
    assert sweeper.rest_s is None
    tables.env.close()


def test_rows_that_wait_for_room_are_bounded_and_tried_up_to_the_first_without(rig: Rig) -> None:
    tables = open_tables(rig.path)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    scarce = Scarce(FULL)
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], 0.0, make_anew=scarce)
    names = [b"%d" % number for number in range(POSTPONED_MAX + 1)]
    for name in names:
        sweeper.mend(name)
    scarce.tried.clear()
    scarce.room = 2
    now_s[0] += RETRY_S
    sweeper.step()
    assert scarce.tried == names[:3]
    scarce.room = len(names)
    now_s[0] += RETRY_S
    sweeper.step()
    told = {answer[1] for answer in answers if answer[0] == "mended"}
    assert told == set(names[:POSTPONED_MAX])
    tables.env.close()


def test_another_state_has_no_rows_that_wait(rig: Rig) -> None:
    tables = open_tables(rig.path)
    scarce = Scarce(FULL)
    sweeper = Sweeper(tables, lambda answer: None, lambda: 0.0, 0.0, make_anew=scarce)
    sweeper.mend(KEYS[3])
    sweeper.start_over()
    assert sweeper.rest_s is None
    tables.env.close()


@pytest.mark.parametrize("steps", [0, 1, 14])
def test_a_sweep_that_finds_no_place_to_read_proves_nothing(rig: Rig, steps: int) -> None:
    env = lmdb.open(str(rig.path), map_size=MAP_SIZE, max_dbs=DATABASES_MAX, max_readers=1)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    sweeper = Sweeper(Tables(env), answers.append, lambda: now_s[0], interval_s=30.0)
    for _ in range(steps):
        now_s[0] += sweeper.rest_s or 0.0
        sweeper.step()
    assert answers == []
    with env.begin():
        now_s[0] += sweeper.rest_s or 0.0
        sweeper.step()
    assert answers == []
    while not answers:
        now_s[0] += sweeper.rest_s or 0.0
        sweeper.step()
    assert answers[0][0] == "swept"
    assert answers[0][-1] == 0
    env.close()


def flip_in_file(path: Path, stored: bytes, bit: int) -> None:
    """Flip a bit of a row where it lies: nothing is put in order by that."""
    file = path / DATA_FILE
    octets = bytearray(file.read_bytes())
    pages = [page for page in pages_in_use(file) if stored in octets[page * PAGE :][:PAGE]]
    at = octets.index(stored, pages[0] * PAGE)
    octets[at + bit // 8] ^= 1 << bit % 8
    with file.open("r+b") as stream:
        stream.write(octets)


@pytest.mark.parametrize("main", [2 + 3, 100, 200, 201])
def test_no_bit_of_a_version_makes_an_older_one_of_the_newest(rig: Rig, main: int) -> None:
    state = rig.open()
    for later in (100, 200):
        rig.put(later, KEYS[3])
    state.delete(201, 0, KEYS[3])
    state.set_applied(201, 1)
    state.flush(lambda: None)
    state.close()
    tables = open_tables(rig.path)
    versions = SEALS[TABLE_HISTORY].rows(
        [(KEYS[3], encode_version(main, 0, DEAD if main == 201 else LIVE))]
    )
    views = (50, 100, 150, 200, 300)
    with tables.env.begin() as txn:
        cursor = txn.cursor(tables.handles[TABLE_HISTORY])
        sound = [newest_version(cursor, KEYS[3], view) for view in views]
    for bit in range(8 * len(versions[0][1])):
        flip_in_file(rig.path, versions[0][1], bit)
        with tables.env.begin() as txn:
            cursor = txn.cursor(tables.handles[TABLE_HISTORY])
            for view, wanted in zip(views, sound, strict=True):
                with suppress(StateDamageError):
                    assert newest_version(cursor, KEYS[3], view) == wanted, (bit, view)
        spoilt = bytearray(versions[0][1])
        spoilt[bit // 8] ^= 1 << bit % 8
        flip_in_file(rig.path, bytes(spoilt), bit)
    tables.env.close()


@pytest.mark.parametrize("hidden", [1, 2, 3])
@pytest.mark.parametrize("ending", ["pdpd", "ppd", "dpdp", "dpppp", "dpd"])
def test_no_versions_hide_behind_a_damaged_head(rig: Rig, ending: str, hidden: int) -> None:
    state = rig.open()
    is_live = True
    for main, letter in enumerate(ending, 100):
        if letter == "d":
            state.delete(main, 0, KEYS[3])
            state.set_applied(main, 1)
        else:
            record = encode_record(KEYS[3], 2, main, 1, b"%d" % main, 0)
            state.put(main, 0, KEYS[3], record, not is_live)
            state.set_applied(main, 1)
        is_live = letter == "p"
    state.flush(lambda: None)
    last = 99 + len(ending)
    sound = {view: state.get_at(KEYS[3], view) for view in range(2, last + 5)}
    state.close()
    hide_versions(rig.path, KEYS[3], hidden)
    (rig.path / MARK).unlink(missing_ok=True)
    reader = StateReader(open_tables(rig.path))
    missed = 0
    for view, wanted in sound.items():
        try:
            assert (version := reader.version_at(KEYS[3], view)) is not None or wanted is None
            assert version is None or version[2] == (wanted is None)
            assert reader.get_at(KEYS[3], view) == wanted
        except StateDamageError:
            missed += 1
    assert missed >= hidden
    reader.close()


@pytest.mark.parametrize("hidden", [1, 2, 3, 8])
def test_no_versions_hide_at_the_end_of_a_page_among_many(rig: Rig, hidden: int) -> None:
    """Of a key that is put and deleted in turn."""
    state = rig.open()
    for main in range(100, 1000):
        if main % 2:
            state.delete(main, 0, b"turns")
        else:
            state.put(main, 0, b"turns", encode_record(b"turns", main, main, 1, b"", 0), True)
        state.set_applied(main, 1)
    state.flush(lambda: None)
    sound = {view: state.get_at(b"turns", view) for view in range(100, 1005)}
    state.close()
    file = rig.path / DATA_FILE
    octets = bytearray(file.read_bytes())
    heads = [
        page * PAGE
        for page in pages_in_use(file)
        if int.from_bytes(octets[page * PAGE + 10 : page * PAGE + 12], "little") & 0x20
    ]
    assert len(heads) > 2
    for head in heads:
        lower = int.from_bytes(octets[head + 12 : head + 14], "little")
        spoilt = bytearray(octets)
        spoilt[head + 12 : head + 14] = (lower - 2 * hidden).to_bytes(2, "little")
        file.write_bytes(spoilt)
        reader = StateReader(open_tables(rig.path))
        missed = 0
        for view, record in sound.items():
            try:
                assert reader.get_at(b"turns", view) == record
            except StateDamageError:
                missed += 1
        assert missed >= hidden
        reader.close()


@pytest.mark.parametrize("wrong", [b"k05", b"k03", b"k39"])
def test_a_name_that_has_become_another_s_is_not_listed_twice(rig: Rig, wrong: bytes) -> None:
    """Both would be answered with the version that a search finds."""
    file = rig.path / DATA_FILE
    octets = bytearray(file.read_bytes())
    row = SEALS[TABLE_HISTORY].closed(KEYS[4], encode_version(2 + 4, 0, LIVE))
    for page in pages_in_use(file):
        at = octets.find(KEYS[4] + row, page * PAGE, (page + 1) * PAGE)
        if at >= 0:
            octets[at : at + len(wrong)] = wrong
    file.write_bytes(octets)
    reader = StateReader(open_tables(rig.path))
    with pytest.raises(StateDamageError, match="another place"):
        reader.known_keys(b"", None, 100)
    reader.close()


def views_open(tables: Tables) -> int:
    return sum(line.split()[2] != "-" for line in tables.env.readers().splitlines()[1:])


@pytest.fixture
def wide(rig: Rig) -> Rig:
    """A state with more branch pages than a step looks at."""
    state = rig.open()
    for main in range(100, 2600):
        key = b"%0400d" % main
        state.put(main, 0, key, encode_record(key, main, main, 1, b"", 0), True)
        state.set_applied(main, 1)
    state.flush(lambda: None)
    state.close()
    return rig


def test_a_look_at_pages_goes_in_steps_and_keeps_its_view_as_long(wide: Rig) -> None:
    tables = open_tables(wide.path)
    now_s = [10.0]
    answers: list[tuple[object, ...]] = []
    sweeper = Sweeper(tables, answers.append, lambda: now_s[0], interval_s=1e9)
    sweeper.step()
    views = []
    now_s[0] += LOOK_INTERVAL_S
    for _ in range(20):
        sweeper.step()
        views.append(views_open(tables))
        if not views[-1]:
            break
        assert sweeper.rest_s == pytest.approx(REST_S_MIN)
        now_s[0] += sweeper.rest_s or 0.0
        with tables.env.begin(write=True) as txn:  # a commit in between does no harm
            txn.put(b"other", b"", db=tables.handles[TABLE_CURRENT])
    assert views[0] == 1
    assert views[-1] == 0
    assert sweeper.rest_s == pytest.approx(LOOK_INTERVAL_S)
    assert answers == []
    tables.env.close()


def test_a_look_at_pages_is_given_up_when_the_file_grows_for_it(wide: Rig) -> None:
    tables = open_tables(wide.path)
    now_s = [10.0]
    sweeper = Sweeper(tables, lambda answer: None, lambda: now_s[0], interval_s=1e9)
    sweeper.step()
    now_s[0] += LOOK_INTERVAL_S
    sweeper.step()
    sweeper.give_way_if_costly()
    assert views_open(tables) == 1
    with tables.env.begin(write=True) as txn:
        for number in range(LOOK_GROWTH_PAGES_MAX):
            txn.put(b"%d" % number, bytes(PAGE), db=tables.handles[TABLE_CURRENT])
    sweeper.give_way_if_costly()
    assert views_open(tables) == 0
    now_s[0] += LOOK_INTERVAL_S
    sweeper.step()
    assert views_open(tables) == 1
    sweeper.give_way()
    assert views_open(tables) == 0
    tables.env.close()


def test_a_look_at_pages_gives_way_to_every_other_job(wide: Rig) -> None:
    tables = open_tables(wide.path)
    now_s = [10.0]
    pace = Pace(sweep_interval_s=1e9)
    worker = StateWorker(tables, MAP_SIZE, lambda answer: None, pace, lambda: now_s[0])
    now_s[0] += LOOK_INTERVAL_S
    worker.sweeper.step()
    assert views_open(tables) == 1
    worker.receive(("compact", 3))
    worker.work()
    assert views_open(tables) == 0
    while worker.has_work():
        worker.work()
    now_s[0] += LOOK_INTERVAL_S
    worker.sweeper.step()
    assert views_open(tables) == 1
    worker.reopen(lambda size: open_tables(wide.path, size))
    assert views_open(tables) == 0
    tables.env.close()
