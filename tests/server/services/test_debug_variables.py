"""/debug/vars: etcd's names, and figures of this very process."""

from __future__ import annotations

import json
import resource
import sys

from etcdtw.server.services.debug_variables import process_variables, resident_octets


def test_variables_have_etcds_names_and_can_be_written_as_json() -> None:
    status = {"term": 3}
    found = process_variables(status)
    assert sorted(found) == ["cmdline", "file_descriptor_limit", "memstats", "raft.status"]
    assert found["cmdline"] == sys.argv
    assert found["file_descriptor_limit"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    status["term"] = 4
    assert json.loads(json.dumps(found))["raft.status"] == {"term": 3}


def test_memory_is_what_is_in_ram() -> None:
    before = resident_octets()
    kept = bytearray(64 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    assert resident_octets() - before > 48 << 20
