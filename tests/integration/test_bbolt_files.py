"""Our bbolt files before real etcd 3.5.1, and its files before our reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etcdtw.bbolt.check import check
from etcdtw.bbolt.reader import BboltFile
from etcdtw.bbolt.seal import seal_of, verify_seal
from etcdtw.storage.building.from_bbolt import SnapshotFacts
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.snapshot.export import export
from etcdtw.storage.snapshot.install import load_state
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import verify
from etcdtw.wire.mvccpb import KeyValue
from tests.support.bbolt_rig import Content, open_octets, read_from, revision_rows, write_file
from tests.support.etcdctl import Etcdctl
from tests.support.etcdutl import snapshot_restore, snapshot_status
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

KEY_COUNT = 6000


def key_value(revision: int, value: bytes = b"v") -> bytes:
    """Return the record of a key's first version."""
    return KeyValue(
        key=b"k%06d" % revision,
        create_revision=revision,
        mod_revision=revision,
        version=1,
        value=value,
    ).SerializeToString()


def etcd_content(values: dict[int, bytes]) -> Content:
    """Return etcd's buckets with one key for each revision in ``values``."""
    keys = [
        (revision.to_bytes(8, "big") + b"_" + bytes(8), key_value(revision, value))
        for revision, value in values.items()
    ]
    return {
        b"alarm": [],
        b"auth": [(b"authRevision", (1).to_bytes(8, "big"))],
        b"authRoles": [],
        b"authUsers": [],
        b"cluster": [(b"clusterVersion", b"3.5.0")],
        b"key": keys,
        b"lease": [],
        b"members": [],
        b"members_removed": [],
        b"meta": [(b"consistent_index", bytes(8)), (b"term", (1).to_bytes(8, "big"))],
    }


def sealed(octets: bytes) -> bytes:
    return octets + seal_of(read_from(octets), len(octets))


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_etcdutl_passes_our_files_and_counts_as_we_do(tmp_path: Path, page_size: int) -> None:
    contents: list[Content] = [
        {b"key": [], b"meta": []},
        etcd_content({2: b"a", 3: bytes(35_000), 4: bytes(3 << 20), 5: b"", 6: b"b"}),
        {
            b"key": revision_rows(20_000),
            b"meta": [(b"%03d" % i + bytes(600), b"") for i in range(9)],
        },
    ]
    for content in contents:
        octets = write_file(content, page_size)
        file = tmp_path / "ours.db"
        file.write_bytes(octets)
        ours = check(open_octets(octets))
        assert snapshot_status(file) == ours[:4]


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[RunningMember]:
    """Real etcd on a data directory that etcdutl made from a file of ours."""
    member = RunningMember("etcd", data_dir=tmp_path / "data")
    values = {revision: b"v" for revision in range(2, KEY_COUNT + 2)}
    values[100] = bytes(20_000)
    file = tmp_path / "ours.db"
    file.write_bytes(sealed(write_file(etcd_content(values))))
    snapshot_restore(file, member.data_dir, f"http://127.0.0.1:{member.peer_port}")
    with member:
        yield member


def test_real_etcd_lives_on_a_file_of_ours(restored: RunningMember) -> None:
    etcdctl = Etcdctl(restored)
    found = etcdctl.json("get", "", "--prefix", "--keys-only")
    assert found["count"] == KEY_COUNT
    assert found["header"]["revision"] == KEY_COUNT + 1
    assert len(etcdctl.output("get", "k000100", "--print-value-only")) == 20_001
    # Deleting and compacting makes bbolt merge the pages that we made.
    assert etcdctl.output("del", "k", "--prefix").strip() == str(KEY_COUNT)
    etcdctl.output("put", "after", "1")
    etcdctl.output("compact", str(KEY_COUNT + 3), "--physical")
    etcdctl.output("defrag")
    restored.restart()
    assert etcdctl.lines("get", "", "--prefix") == ["after", "1"]


def test_a_store_of_real_etcd_goes_through_our_state_and_back(tmp_path: Path) -> None:
    with RunningMember("etcd") as member:
        etcdctl = Etcdctl(member)
        for i in range(40):
            etcdctl.output("put", f"key{i % 25:02}", "v" * (200 * i))
        etcdctl.output("del", "key03")
        lease = etcdctl.output("lease", "grant", "600").split()[1]
        etcdctl.output("put", "leased", "x", f"--lease={lease}")
        etcdctl.output("compact", "20", "--physical")
        etcdctl.output("snapshot", "save", str(tmp_path / "theirs.db"))
        hashed = etcdctl.json("endpoint", "hashkv")[0]["HashKV"]
    state_path = tmp_path / "state"
    built = load_state(tmp_path / "theirs.db", state_path, 1 << 26, SnapshotFacts())
    tables = Tables(open_environment(state_path, 1 << 26, DATABASES_MAX))
    assert verify(tables) == []
    exported = export(tables, tmp_path / "ours.db")
    tables.env.close()
    assert (exported.index, exported.term) == (built.index, built.term)
    state = open_state(state_path, pytest.fail, map_size=1 << 26)
    hashes: list[object] = []
    state.hash_kv(built.revision, 20, hashes.append)
    assert hashes == [hashed["hash"]]
    assert state.attached(int(lease, 16)) == [b"leased"]
    state.close()

    octets = (tmp_path / "ours.db").read_bytes()
    assert check(open_octets(octets))[:4] == snapshot_status(tmp_path / "ours.db")
    (tmp_path / "sealed.db").write_bytes(sealed(octets))
    again = RunningMember("etcd", data_dir=tmp_path / "data")
    peer_url = f"http://127.0.0.1:{again.peer_port}"
    snapshot_restore(tmp_path / "sealed.db", again.data_dir, peer_url)
    with again:
        etcdctl = Etcdctl(again)
        found = etcdctl.json("endpoint", "hashkv")[0]["HashKV"]
        assert (found["hash"], found["compact_revision"]) == (hashed["hash"], 20)
        assert etcdctl.lines("get", "leased") == ["leased", "x"]
        assert lease in etcdctl.output("lease", "list")


def test_a_file_of_real_etcd_is_read_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with RunningMember("etcd") as member:
        etcdctl = Etcdctl(member)
        for i in range(30):
            etcdctl.output("put", f"key{i % 20:02}", "v" * (400 * i))
        etcdctl.output("del", "key07")
        lease = etcdctl.output("lease", "grant", "600").split()[1]
        etcdctl.output("put", "leased", "x", f"--lease={lease}")
        etcdctl.output("role", "add", "r")
        live = etcdctl.json("get", "", "--prefix")
        etcdctl.output("snapshot", "save", str(file))
    octets = file.read_bytes()
    size = verify_seal(read_from(octets), len(octets))
    bbolt = BboltFile(read_from(octets), size)
    assert bbolt.size == size
    assert check(bbolt)[:4] == snapshot_status(file)
    newest: dict[bytes, bytes] = {}
    for name, record in bbolt.items(b"key"):
        key = KeyValue.FromString(record).key
        newest[key] = b"" if len(name) == 18 else record
    assert sum(1 for record in newest.values() if record) == live["count"]
    assert not newest[b"key07"]
    assert KeyValue.FromString(newest[b"key09"]).value == b"v" * (400 * 29)
    assert KeyValue.FromString(newest[b"leased"]).lease == int(lease, 16)
    assert [name for name, _ in bbolt.items(b"lease")] == [int(lease, 16).to_bytes(8, "big")]
    assert [name for name, _ in bbolt.items(b"authRoles")] == [b"r"]
    assert list(bbolt.buckets) == sorted(bbolt.buckets)
    assert {b"key", b"meta", b"members", b"cluster"} <= bbolt.buckets.keys()
