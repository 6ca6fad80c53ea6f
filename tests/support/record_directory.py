"""Makes the data directories in ``tests/recorded``.

``python -m tests.support.record_directory NAME [TREE]``, with the program in ``TREE``, as made by
``git archive COMMIT etcdtw twisted``.  One of a member alone and one of a member of three, each
killed while its journal holds records that LMDB has not.  Beside each archive lies what must be
found in it.  To be run before a change of format, with the program of the format before it.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.cluster_processes import Cluster
from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember

FOLDER = Path(__file__).parent.parent / "recorded"
SETTLED_S = 2.5  # by then LMDB and the state hold what came before


def fill(client: EtcdClient) -> None:
    """Keys with a history, long and large ones, tombstones, leases, a compaction."""
    lease = client.invoke("lease_grant", TTL=86_400, ID=4711).ID
    client.invoke("lease_grant", TTL=43_200, ID=4712)
    for number in range(40):
        client.put(b"key/%02d" % number, b"first %d" % number)
    for number in range(0, 40, 3):
        client.put(b"key/%02d" % number, b"second %d" % number, lease=lease)
    client.put(b"large", b"0123456789" * 1000)
    client.put(b"long/" + b"x" * 600, b"of a long key")
    for number in range(0, 40, 7):
        client.invoke("delete_range", key=b"key/%02d" % number)
    client.invoke("compact", revision=30, physical=True)
    client.put(b"after", b"the compaction")


def leave_unsettled(client: EtcdClient) -> None:
    """Write what only the journal will hold."""
    for number in range(5):
        client.put(b"unsettled/%d" % number, b"only in the journal %d" % number, lease=4712)
    client.invoke("delete_range", key=b"key/01")


def facts(client: EtcdClient) -> dict[str, Any]:
    """Return what a member that takes the directory over must serve."""
    found = client.range(b"\0", b"\0")
    rows = [
        [kv.key.hex(), kv.value.hex(), kv.create_revision, kv.mod_revision, kv.version, kv.lease]
        for kv in found.kvs
    ]
    leases = sorted(lease.ID for lease in client.invoke("lease_leases").leases)
    return {"revision": found.header.revision, "rows": rows, "leases": leases,
            "hash": client.invoke("hash_kv").hash}  # fmt: skip


def pack(data_dir: Path, name: str, told: dict[str, Any]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tarfile.open(FOLDER / f"{name}.tar.xz", "w:xz", preset=9) as archive:
        for file in sorted(data_dir.rglob("*")):
            if not file.is_file() or file.name == "lock.mdb":  # made anew by LMDB
                continue
            member = tarfile.TarInfo(str(file.relative_to(data_dir)))
            member.size, member.mode = file.stat().st_size, 0o600
            archive.addfile(member, io.BytesIO(file.read_bytes()))
    text = json.dumps(told, indent=None, separators=(",", ":"))
    (FOLDER / f"{name}.json").write_text(text.replace("],[", "],\n[") + "\n")


def record_single(folder: Path, name: str, environment: dict[str, str]) -> None:
    data_dir = folder / "single"
    with RunningMember("etcdtw", data_dir=data_dir, environment=environment) as member:
        with EtcdClient(member.endpoint) as client:
            fill(client)
            time.sleep(SETTLED_S)
            leave_unsettled(client)
            told = facts(client)
        member.kill()
        pack(member.data_dir, name, told)


def record_of_three(name: str, environment: dict[str, str]) -> None:
    cluster = Cluster(["etcdtw"] * 3)
    for member in cluster.all:
        member.environment = environment
    with cluster:
        member = cluster.followers()[0]
        client = cluster.client(member)
        fill(client)
        time.sleep(SETTLED_S)
        leave_unsettled(client)
        told = facts(client)
        cluster.kill([member])
        pack(member.data_dir, name, told)


def main(name: str, tree: str = "") -> None:
    environment = {"PYTHONPATH": tree} if tree else {}
    with tempfile.TemporaryDirectory() as top:
        record_single(Path(top), f"{name}-single", environment)
        record_of_three(f"{name}-of-three", environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
