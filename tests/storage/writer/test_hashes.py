"""HashKV against real etcd: the same history, the same hash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcdtw.mvcc.backend import BUCKET_META
from etcdtw.storage.rows.codec import revision_key
from etcdtw.storage.state.open import open_state
from tests.support.model_backend import encode_varint
from tests.support.ports import free_port


def program(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


ETCD, ETCDCTL = program("etcd"), program("etcdctl")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (ETCD and ETCDCTL), reason="NO ETCD: HASHES ARE NOT COMPARED WITH IT"),
]
START_TRIES_MAX = 100


class Etcd:
    """A real etcd member."""

    def __init__(self, folder: Path) -> None:
        assert ETCD is not None
        client, peer = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
        self.endpoint = client
        self.process = subprocess.Popen(
            [ETCD, "--data-dir", str(folder), "--listen-client-urls", client,
             "--advertise-client-urls", client, "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(START_TRIES_MAX):
            if self.call("endpoint", "health").returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("etcd did not start")

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert ETCDCTL is not None
        command = [ETCDCTL, "--endpoints", self.endpoint, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)

    def hash_kv(self) -> tuple[int, int]:
        """Return (hash, compact revision)."""
        answer = json.loads(self.call("endpoint", "hashkv", "-w", "json").stdout)[0]["HashKV"]
        return answer["hash"], answer.get("compact_revision", 0)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    made = Etcd(tmp_path / "etcd")
    yield made
    made.stop()


def test_hash_kv_is_etcds(etcd: Etcd, tmp_path: Path) -> None:
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    live: dict[str, tuple[int, int]] = {}

    def put(name: str, value: str) -> None:
        assert etcd.call("put", name, value).returncode == 0
        main = state.revision + 1
        create, version = live.get(name, (main, 0))
        live[name] = (create, version + 1)
        key = name.encode()
        record = b"\x0a" + encode_varint(len(key)) + key + b"\x10" + encode_varint(create)
        record += b"\x18" + encode_varint(main) + b"\x20" + encode_varint(version + 1)
        record += b"\x2a" + encode_varint(len(value)) + value.encode()
        state.put(main, 0, key, record, version == 0)

    def delete(name: str) -> None:
        assert etcd.call("del", name).returncode == 0
        del live[name]
        state.delete(state.revision + 1, 0, name.encode())

    def compact(revision: int) -> None:
        assert etcd.call("compact", str(revision), "--physical").returncode == 0
        state.bucket_put(BUCKET_META, b"scheduledCompactRev", revision_key(revision, 0))
        state.schedule_compaction(revision)

    def check() -> None:
        wanted, compact_revision = etcd.hash_kv()
        found: list[object] = []
        state.hash_kv(state.revision, compact_revision, found.append)
        assert found == [wanted]

    for name, value in (("a", "1"), ("a", "2"), ("b", "x" * 300), ("c", "9")):
        put(name, value)
        check()
    delete("a")
    check()
    compact(4)
    check()
    delete("b")
    put("b", "again")
    delete("c")
    compact(state.revision)
    check()
    put("z", "last")
    check()
    state.close()
