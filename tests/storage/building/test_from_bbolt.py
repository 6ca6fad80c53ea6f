"""A state built from etcd's file is the one that was exported, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.bbolt.layout import BboltError
from etcdtw.storage.building.from_bbolt import (
    SnapshotFacts,
    SnapshotInstall,
    import_state,
    map_size_for,
)
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.codec import encode_tombstone
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.snapshot.export import export
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import rebuild, verify
from etcdtw.wire.mvccpb import KeyValue
from tests.support.bbolt_rig import Content, open_octets, write_file
from tests.support.state_rows import (
    CONF_STATE,
    INDEX,
    MAP_SIZE,
    TERM,
    fail,
    make_state,
    open_tables,
    rows_of,
)

NO_FACTS = SnapshotFacts()


def import_octets(
    octets: bytes,
    path: Path,
    facts: SnapshotFacts = NO_FACTS,
    run_octets: int = 1 << 20,
) -> SnapshotInstall:
    """Build a state in ``path``; its derived tables are right, and it opens."""
    path.mkdir(mode=0o700)
    tables = Tables(open_environment(path, map_size_for(len(octets)), DATABASES_MAX), is_new=True)
    try:
        built = import_state(
            open_octets(octets),
            tables,
            facts,
            path / "runs",
            lambda: None,
            run_octets,
        )
        assert verify(tables) == []
    finally:
        tables.env.close()
    state = open_state(path, fail, map_size=1 << 28)
    assert (state.applied_index, state.applied_term) == (built.index, built.term)
    assert state.revision == built.revision
    state.close()
    return built


@pytest.mark.parametrize("seed", range(6))
def test_what_was_exported_is_imported_with_every_derived_table(tmp_path: Path, seed: int) -> None:
    revision = make_state(tmp_path / "old", seed)
    tables = open_tables(tmp_path / "old")
    export(tables, tmp_path / "file")
    old = rows_of(tables)
    tables.env.close()
    # Small runs: they must spill.
    built = import_octets(
        (tmp_path / "file").read_bytes(), tmp_path / "new", SnapshotFacts(INDEX), 4000
    )
    assert built == SnapshotInstall(INDEX, TERM, revision, CONF_STATE)
    tables = open_tables(tmp_path / "new")
    new = rows_of(tables)
    tables.env.close()
    del old[b"fences"], new[b"fences"]  # both add up, which `verify` has checked
    assert new == old


def revision_key(main: int, sub: int = 0, mark: bytes = b"") -> bytes:
    return main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + mark


def record(key: bytes, main: int, create: int = 0, version: int = 1) -> bytes:
    kv = KeyValue(key=key, create_revision=create or main, mod_revision=main, version=version)
    return kv.SerializeToString()


def content(rows: list[tuple[bytes, bytes]], **meta: bytes) -> Content:
    return {b"key": rows, b"meta": sorted((name.encode(), meta[name]) for name in meta)}


def put_all(path: Path, keys: list[bytes], main: int) -> None:
    """Put new keys into a state, one a revision from ``main`` on, and make them durable."""
    state = open_state(path, fail, map_size=1 << 28)
    for key in keys:
        record = KeyValue(key=key, create_revision=main, mod_revision=main, version=1)
        state.put(main, 0, key, record.SerializeToString(), True)
        state.set_applied(INDEX + main, TERM)
        main += 1
    state.flush(lambda: None)
    state.close()


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_very_many_keys_with_one_long_beginning_are_counted_right(
    tmp_path: Path, is_rebuilt: bool
) -> None:
    beginning = b"p" * 490
    keys = [b"a%04d" % i for i in range(500)]
    keys += [beginning[:480], *[beginning + b"%d" % i for i in range(600)], b"q"]
    put_all(tmp_path / "old", keys, 2)
    tables = open_tables(tmp_path / "old")
    export(tables, tmp_path / "file")
    if is_rebuilt:
        path = tmp_path / "old"
        tables = rebuild(tables, path)
        assert verify(tables) == []
    tables.env.close()
    if not is_rebuilt:
        path = tmp_path / "new"
        import_octets((tmp_path / "file").read_bytes(), path)
    more = [beginning + b"more%d" % i for i in range(600)]
    put_all(path, more, 2 + len(keys))
    state = open_state(path, fail, map_size=1 << 28)
    assert state.count(b"p", b"q") == 1 + 600 + 600
    assert state.count(beginning, b"q") == 600 + 600
    assert state.count(b"", None) == len(keys) + len(more)
    main = 2 + len(keys) + len(more)
    for sub, key in enumerate(sorted(keys[500:] + more)):
        state.delete(main, sub, key)
    assert state.count(b"p", None) == 0
    assert state.frames(b"b", None) == []
    state.close()
    tables = open_tables(path)
    assert verify(tables) == []
    tables.env.close()


def test_an_empty_store_is_at_revision_one(tmp_path: Path) -> None:
    built = import_octets(write_file({b"key": []}), tmp_path / "new")
    assert built == SnapshotInstall(0, 0, 1, b"")


def test_a_bumped_revision_is_taken_over_and_its_record_belongs_to_no_key(tmp_path: Path) -> None:
    rows = [(revision_key(2), record(b"a", 2)), (revision_key(1002), b"")]
    mark = revision_key(1002)
    octets = write_file(content(rows, scheduledCompactRev=mark))
    built = import_octets(octets, tmp_path / "new")
    assert built.revision == 1002
    # The compaction that it asks for is done when the state opens, as etcd does.
    state = open_state(tmp_path / "new", fail, map_size=MAP_SIZE)
    assert state.keys(b"", None) == [b"a"]
    assert state.bucket_get(b"meta", b"finishedCompactRev") == mark
    state.close()


def test_a_long_key_is_remembered_even_when_it_is_dead(tmp_path: Path) -> None:
    key = b"l" * 481
    rows = [(revision_key(2), record(key, 2)), (revision_key(3, 0, b"t"), encode_tombstone(key))]
    import_octets(write_file(content(rows)), tmp_path / "new")
    tables = open_tables(tmp_path / "new")
    assert (b"has_long", b"\x01") in rows_of(tables)[b"etcdtw"]
    tables.env.close()


def test_marks_count_for_the_revision(tmp_path: Path) -> None:
    octets = write_file(content([], finishedCompactRev=revision_key(40)))
    assert import_octets(octets, tmp_path / "new").revision == 40


def test_what_the_caller_knows_better_takes_the_place_of_the_files_rows(tmp_path: Path) -> None:
    stale = content([], consistent_index=(9).to_bytes(8, "big"), storageVersion=b"3.6.0")
    stale[b"members"] = [(b"1", b"stale")]
    stale[b"members_removed"] = [(b"2", b"removed")]
    stale[b"test"] = [(b"of", b"a test build")]
    facts = SnapshotFacts(
        9,
        {b"term": (4).to_bytes(8, "big"), b"confState": CONF_STATE},
        {b"members": [(b"1", b"fresh")]},
    )
    octets = write_file({name: stale[name] for name in sorted(stale)})
    assert import_octets(octets, tmp_path / "new", facts) == SnapshotInstall(9, 4, 1, CONF_STATE)
    tables = open_tables(tmp_path / "new")
    rows = rows_of(tables)
    tables.env.close()
    assert rows[b"members"] == [(b"1", b"fresh")]
    assert rows[b"members_removed"] == [(b"2", b"removed")]
    assert dict(rows[b"meta"]).keys() == {b"consistent_index", b"confState", b"term"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({b"meta": []}, "no bucket `key`"),
        (content([(b"short", b"")]), "no revision"),
        (content([(revision_key(2, 0, b"x"), b"")]), "no revision"),
        (content([(revision_key(0), b"")]), "no revision"),
        (content([(revision_key(1 << 63), b"")]), "no revision"),
        (content([(revision_key(2).replace(b"_", b"-"), record(b"a", 2))]), "no revision"),
        (content([(revision_key(2), b"\xff\xff")]), "no KeyValue"),
        (content([(revision_key(2, 0, b"t"), b"")]), "does not begin with its key"),
        (content([(revision_key(2), b"\x10\x02\x0a\x01a")]), "does not begin with its key"),
        (content([(revision_key(2), record(b"a", 3))]), "another revision"),
        (content([(revision_key(2), record(b"a", 2, create=3))]), "another revision"),
        (content([(revision_key(2), record(b"a", 2, version=0))]), "another revision"),
        (
            content([(revision_key(2), record(b"a", 2)), (revision_key(2, 0, b"t"), b"\x0a\x01a")]),
            "stored twice",
        ),
        (content([], consistent_index=b"\x07"), "consistent_index has 1 octets"),
        (content([], term=b""), "term has 0 octets"),
        (content([], scheduledCompactRev=b"\x07"), "no revision"),
        (content([], consistent_index=(8).to_bytes(8, "big")), "covers index 8"),
        ({b"authUsers": [(bytes(512), b"")], **content([])}, "too long"),
    ],
)
def test_a_file_that_is_no_store_of_etcds_is_refused(
    tmp_path: Path, wrong: Content, reason: str
) -> None:
    facts = SnapshotFacts(7) if "covers" in reason else NO_FACTS
    octets = write_file({name: wrong[name] for name in sorted(wrong)})
    with pytest.raises(BboltError, match=reason):
        import_octets(octets, tmp_path / "new", facts)


@pytest.mark.parametrize("enabled", [b"", b"\x00", b"\x01"])
def test_users_are_taken_along(tmp_path: Path, enabled: bytes) -> None:
    auth = [(b"authEnabled", enabled)] if enabled else []
    octets = write_file({b"auth": auth, b"authUsers": [(b"root", b"of")], b"key": []})
    assert import_octets(octets, tmp_path / "new") == SnapshotInstall(0, 0, 1, b"")
