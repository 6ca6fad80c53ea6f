"""etcdctl put, get, del, txn, compaction and watch."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration


@pytest.fixture
def etcdctl(member: RunningMember) -> Etcdctl:
    return Etcdctl(member)


def fill(etcdctl: Etcdctl, prefix: str, count: int = 5) -> list[str]:
    names = [f"{prefix}/{i}" for i in range(count)]
    for i, name in enumerate(names):
        assert etcdctl.output("put", name, f"value{count - i}") == "OK\n"
    return names


def revision(etcdctl: Etcdctl) -> int:
    return int(etcdctl.json("get", "nothing")["header"]["revision"])


def test_put_and_get_one_key(etcdctl: Etcdctl) -> None:
    assert etcdctl.output("put", "one", "first") == "OK\n"
    assert etcdctl.lines("get", "one") == ["one", "first"]
    assert etcdctl.lines("get", "one", "--print-value-only") == ["first"]
    assert etcdctl.lines("put", "one", "second", "--prev-kv") == ["OK", "one", "first"]


def test_put_takes_its_value_from_stdin(etcdctl: Etcdctl) -> None:
    assert etcdctl.output("put", "piped", stdin="from a pipe") == "OK\n"
    assert etcdctl.lines("get", "piped", "--print-value-only") == ["from a pipe"]


def test_put_keeps_the_value_or_the_lease_when_told_to(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "kept", "value")
    assert etcdctl.output("put", "kept", "--ignore-value") == "OK\n"
    assert etcdctl.output("put", "kept", "other", "--ignore-lease") == "OK\n"
    failed = etcdctl.run("put", "absent", "--ignore-value")
    assert failed.returncode == 1
    assert "etcdserver: key not found" in failed.stderr


def test_get_of_a_missing_key_prints_nothing(etcdctl: Etcdctl) -> None:
    assert etcdctl.output("get", "missing") == ""


def test_get_a_prefix_a_range_and_from_a_key(etcdctl: Etcdctl) -> None:
    names = fill(etcdctl, "ranges")
    assert etcdctl.lines("get", "ranges/", "--prefix", "--keys-only")[::2] == names
    assert etcdctl.lines("get", names[1], names[3], "--keys-only")[::2] == names[1:3]
    from_key = etcdctl.lines("get", names[3], "--from-key", "--keys-only", "--limit=2")
    assert from_key[::2] == names[3:]
    assert etcdctl.lines("get", "ranges/", "--prefix", "--limit=2", "--keys-only")[::2] == names[:2]


def test_get_sorts_by_every_target(etcdctl: Etcdctl) -> None:
    names = fill(etcdctl, "sorted")
    etcdctl.output("put", names[0], "value9")
    get = ("get", "sorted/", "--prefix", "--keys-only")
    down = etcdctl.lines(*get, "--order=DESCEND", "--sort-by=KEY")[::2]
    assert down == names[::-1]
    by_value = etcdctl.lines(*get, "--order=ASCEND", "--sort-by=VALUE")[::2]
    assert by_value == [names[4], names[3], names[2], names[1], names[0]]
    by_change = etcdctl.lines(*get, "--order=DESCEND", "--sort-by=MODIFY")[::2]
    assert by_change[0] == names[0]
    by_creation = etcdctl.lines(*get, "--order=ASCEND", "--sort-by=CREATE")[::2]
    assert by_creation == names
    by_version = etcdctl.lines(*get, "--order=DESCEND", "--sort-by=VERSION", "--limit=1")[::2]
    assert by_version == names[:1]


def test_get_at_an_old_revision_and_serializable(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "old", "before")
    at = revision(etcdctl)
    etcdctl.output("put", "old", "after")
    assert etcdctl.lines("get", "old", f"--rev={at}", "--print-value-only") == ["before"]
    assert etcdctl.lines("get", "old", "--consistency=s", "--print-value-only") == ["after"]
    failed = etcdctl.run("get", "old", f"--rev={at + 1000}")
    assert "etcdserver: mvcc: required revision is a future revision" in failed.stderr
    assert failed.returncode == 1


def test_get_counts_without_keys(etcdctl: Etcdctl) -> None:
    fill(etcdctl, "counted")
    fields = etcdctl.fields("get", "counted/", "--prefix", "--count-only")
    assert fields["Count"] == "5"
    assert "Key" not in fields


def test_get_prints_json_fields_and_hex(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "shape", "a\nb")
    answer = etcdctl.json("get", "shape")
    pair = answer["kvs"][0]
    assert base64.b64decode(pair["key"]) == b"shape"
    assert base64.b64decode(pair["value"]) == b"a\nb"
    assert pair["version"] == 1
    assert pair["create_revision"] == pair["mod_revision"] == answer["header"]["revision"]
    assert answer["count"] == 1
    assert {"cluster_id", "member_id", "raft_term"} <= set(answer["header"])
    fields = etcdctl.fields("get", "shape")
    assert fields["Key"] == "shape"
    assert fields["Version"] == "1"
    assert fields["ModRevision"] == str(pair["mod_revision"])
    assert fields["More"] == "false"
    assert etcdctl.lines("get", "shape", "--hex") == [r"\x73\x68\x61\x70\x65", r"\x61\x0a\x62"]


def test_del_counts_and_returns_what_it_deleted(etcdctl: Etcdctl) -> None:
    names = fill(etcdctl, "deleted")
    assert etcdctl.lines("del", names[0], "--prev-kv") == ["1", names[0], "value5"]
    assert etcdctl.lines("del", names[0]) == ["0"]
    assert etcdctl.lines("del", names[1], names[3]) == ["2"]
    assert etcdctl.lines("del", "deleted/", "--prefix") == ["2"]


def test_txn_takes_the_branch_of_its_compares(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "txn", "here")
    both = 'mod("txn") > "0"\nvalue("txn") = "here"\n\nput txn changed\nget txn\n\nget nothing\n\n'
    lines = etcdctl.lines("txn", stdin=both)
    assert lines[0] == "SUCCESS"
    assert "OK" in lines
    assert lines[-2:] == ["txn", "changed"]
    lines = etcdctl.lines("txn", stdin='version("txn") = "77"\n\nput txn never\n\ndel txn\n\n')
    assert lines[0] == "FAILURE"
    assert lines[-1] == "1"


def test_compaction_forgets_older_revisions(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "compacted", "before")
    at = revision(etcdctl)
    etcdctl.output("put", "compacted", "after")
    for flags in ((), ("--physical",)):
        etcdctl.output("put", "compacted", "more")
        target = str(revision(etcdctl))
        assert etcdctl.output("compaction", target, *flags) == f"compacted revision {target}\n"
    failed = etcdctl.run("get", "compacted", f"--rev={at}")
    assert "etcdserver: mvcc: required revision has been compacted" in failed.stderr
    again = etcdctl.run("compaction", str(at))
    assert again.returncode == 1
    assert "etcdserver: mvcc: required revision has been compacted" in again.stderr


@contextmanager
def watching(etcdctl: Etcdctl, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = etcdctl.start("watch", *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def take(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_watch_from_a_revision_shows_history_and_then_the_present(etcdctl: Etcdctl) -> None:
    start = revision(etcdctl) + 1
    etcdctl.output("put", "watched", "one")
    with watching(etcdctl, "watched", f"--rev={start}", "--prev-kv") as watch:
        assert take(watch, 3) == ["PUT", "watched", "one"]
        etcdctl.output("put", "watched", "two")
        assert take(watch, 5) == ["PUT", "watched", "one", "watched", "two"]
        etcdctl.output("del", "watched")
        assert take(watch, 5) == ["DELETE", "watched", "two", "watched", ""]


def test_watch_of_a_prefix(etcdctl: Etcdctl) -> None:
    start = revision(etcdctl) + 1
    names = fill(etcdctl, "watches", 2)
    with watching(etcdctl, "--prefix", "watches/", f"--rev={start}") as watch:
        assert take(watch, 6) == ["PUT", names[0], "value2", "PUT", names[1], "value1"]


def test_watch_runs_a_command_for_each_event(etcdctl: Etcdctl) -> None:
    start = revision(etcdctl) + 1
    etcdctl.output("put", "executed", "once")
    shell = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_REVISION"
    with watching(etcdctl, "executed", f"--rev={start}", "--", "sh", "-c", shell) as watch:
        lines = take(watch, 4)
    assert lines[:3] == ["PUT", "executed", "once"]
    assert lines[3].split() == ['"PUT"', '"executed"', '"once"', str(start)]


def test_watch_of_a_compacted_revision_says_so(etcdctl: Etcdctl) -> None:
    etcdctl.output("put", "gone", "one")
    etcdctl.output("put", "gone", "two")
    etcdctl.output("compaction", str(revision(etcdctl)))
    done = etcdctl.run("watch", "gone", "--rev=1")
    assert done.returncode == 5
    assert "required revision has been compacted" in done.stdout + done.stderr
