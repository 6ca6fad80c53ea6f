"""The decisions of a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.cluster.joining import RemoteCluster
from etcdtw.cluster.member import Member
from etcdtw.cluster.remote import RemoteVersion
from etcdtw.cluster.version import Version
from etcdtw.config.config import Config, configure
from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    REMOVE_NODE,
    UPDATE_NODE,
    ConfChange,
    decode_conf_change,
    encode_conf_change,
)
from etcdtw.raft.entry import ENTRY_CONF_CHANGE, ConfState, Entry, HardState
from etcdtw.server.start.bootstrap import (
    BootstrapError,
    Identity,
    check_directory,
    decide_start,
    decode_identity,
    encode_identity,
    force_new_cluster,
    inspect_directory,
    remote_urls,
)

IDENTITY = Identity(0x8E9E05C52164694D, 0xCDF818194E3A8C32)


def config_of(*arguments: str) -> Config:
    return configure(arguments, {}, lambda path: b"")


def test_identity_comes_back_and_is_etcds_message() -> None:
    data = encode_identity(IDENTITY)
    assert data.hex() == "08cdd2918bd2b881cf8e0110b298eaf1948386fccd01"
    assert decode_identity(data) == IDENTITY
    assert decode_identity(encode_identity(Identity(1, 2))) == (1, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        b"\x08\x01",
        b"\x08\x01\x10",
        b"\x08\x01\x10\x80",
        b"\x08\x00\x10\x01",
        b"\x08\x01\x10\x00",
        b"\x08\x01\x10\x01\x00",
        b"\x10\x01\x08\x01",
        b"\x08" + b"\xff" * 10 + b"\x01\x10\x01",
    ],
)
def test_damaged_identity_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(BootstrapError, match=r"damaged.*restore the directory"):
        decode_identity(data)


def test_new_member_founds_its_cluster_with_etcds_ids() -> None:
    start = decide_start(config_of(), None)
    assert start.is_new
    assert start.identity == IDENTITY
    (founder,) = start.founders
    assert (founder.member_id, founder.name) == (IDENTITY.member_id, "default")
    assert founder.peer_urls == ("http://localhost:2380",)


def test_token_changes_the_ids() -> None:
    start = decide_start(config_of("--initial-cluster-token=other"), None)
    assert start.identity.member_id != IDENTITY.member_id


def test_restart_does_not_read_the_bootstrap_flags() -> None:
    config = config_of(
        "--name=x", "--initial-cluster=y=http://h:1", "--initial-cluster-state=existing"
    )
    start = decide_start(config, encode_identity(IDENTITY))
    assert not start.is_new
    assert start.identity == IDENTITY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [
                "--initial-cluster-state=existing",
                "--initial-cluster=default=http://h:1,b=http://i:1",
            ],
            "cannot fetch cluster info from peer urls: could not retrieve cluster information "
            "from the given URLs (http://i:1)",
        ),
        (
            ["--initial-cluster-state=existing", "--name=c", "--initial-cluster=b=http://i:1"],
            'couldn\'t find local name "c"',
        ),
        (
            [
                "--initial-cluster-state=existing",
                "--initial-cluster=default=http://i:1,b=http://i:1",
            ],
            "has duplicate url",
        ),
        (["--initial-cluster="], 'couldn\'t find local name "default"'),
        (
            ["--initial-advertise-peer-urls=http://h:1"],
            "--initial-advertise-peer-urls has default=http://h:1",
        ),
    ],
)
def test_cluster_that_cannot_be_founded_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        decide_start(config_of(*arguments), None)
    assert message in str(caught.value)


def test_missing_or_private_directory_is_fit(tmp_path: Path) -> None:
    check_directory(inspect_directory(str(tmp_path / "new")))
    path = tmp_path / "private"
    path.mkdir(mode=0o700)
    check_directory(inspect_directory(str(path)))


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o710])
def test_directory_open_to_others_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(BootstrapError, match=f"has mode {mode:04o}.*run chmod 700 {path}"):
        check_directory(inspect_directory(str(path)))


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(BootstrapError, match="is not a directory"):
        check_directory(inspect_directory(str(path)))


@pytest.mark.parametrize("left", ["member/snap/db", "member/wal/0000000000000000-0.wal"])
def test_data_of_real_etcd_is_refused_with_what_to_do(tmp_path: Path, left: str) -> None:
    path = tmp_path / "foreign"
    (path / left).parent.mkdir(parents=True)
    (path / left).write_text("")
    path.chmod(0o700)
    with pytest.raises(BootstrapError, match=r"holds the data of real etcd.*restoring a snapshot"):
        check_directory(inspect_directory(str(path)))


THREE = "a=http://h:1,b=http://h:2,c=http://h:3"
NAMED_A = ("--name=a", "--initial-advertise-peer-urls=http://h:1")


def test_every_founder_comes_to_the_same_cluster_and_to_its_own_id() -> None:
    starts = [
        decide_start(
            config_of(
                f"--name={name}",
                f"--initial-advertise-peer-urls=http://h:{port}",
                f"--initial-cluster={THREE}",
                "--initial-cluster-token=t",
                "--compat-version=3.5",
            ),
            None,
        )
        for name, port in (("a", 1), ("b", 2), ("c", 3))
    ]
    assert len({start.identity.cluster_id for start in starts}) == 1
    assert len({start.identity.member_id for start in starts}) == 3
    for start, name in zip(starts, "abc", strict=True):
        assert start.founders == starts[0].founders
        ids = [one.member_id for one in start.founders]
        assert ids == sorted(ids)
        mine = next(one for one in start.founders if one.name == name)
        assert mine.member_id == start.identity.member_id
        assert start.line == Version(3, 5, 0)
        assert (start.is_new, start.is_joining, start.remotes) == (True, False, ())


A = Member(member_id=0xA, peer_urls=("http://h:1",))
B = Member(member_id=0xB, peer_urls=("http://h:2",), name="b", client_urls=("http://h:9",))
REMOTE = RemoteCluster(0xC1, (A, B), {0xB: RemoteVersion(Version(3, 5, 1), Version(3, 5, 0))})
JOIN = (*NAMED_A, "--initial-cluster=a=http://h:1,b=http://h:2", "--initial-cluster-state=existing")


def test_joining_member_takes_its_id_from_the_cluster() -> None:
    start = decide_start(config_of(*JOIN), None, REMOTE)
    assert start.identity == Identity(0xA, 0xC1)
    assert (start.is_new, start.is_joining, start.founders) == (True, True, ())
    assert start.remotes == (B,)
    assert start.line == Version(3, 5, 0)
    assert remote_urls(config_of(*JOIN)) == ("http://h:2",)


def test_joining_member_need_not_advertise_what_the_cluster_knows() -> None:
    arguments = [one for one in JOIN if "advertise" not in one]
    assert decide_start(config_of(*arguments), None, REMOTE).identity.member_id == 0xA


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        (None, "cannot fetch cluster info from peer urls"),
        (REMOTE._replace(cluster_id=0), "cannot fetch cluster info from peer urls"),
        (REMOTE._replace(members=(A,)), "member count is unequal"),
        (REMOTE._replace(members=(A, A)), "no match found for existing member (a, [http://h:1])"),
        (REMOTE._replace(versions={}), "incompatible with current running cluster"),
        (
            # Its own answer would count for nothing.
            REMOTE._replace(versions={0xA: RemoteVersion(Version(3, 5, 1), Version(3, 5, 0))}),
            "incompatible with current running cluster",
        ),
    ],
)
def test_cluster_that_cannot_be_joined_is_refused(
    remote: RemoteCluster | None, message: str
) -> None:
    with pytest.raises(BootstrapError) as caught:
        decide_start(config_of(*JOIN), None, remote)
    assert message in str(caught.value)


def test_more_learners_than_allowed_keep_a_member_out() -> None:
    remote = REMOTE._replace(
        members=(Member(member_id=0xA, peer_urls=("http://h:1",), is_learner=True), B)
    )
    assert decide_start(config_of(*JOIN), None, remote).identity.member_id == 0xA
    with pytest.raises(BootstrapError, match="max learners is set to 0"):
        decide_start(config_of(*JOIN, "--max-learners=0"), None, remote)


def test_founder_whose_data_is_gone_does_not_found_again() -> None:
    arguments = (*NAMED_A, f"--initial-cluster={THREE}")
    identity = decide_start(config_of(*arguments), None).identity
    known = Member(member_id=identity.member_id, peer_urls=(), client_urls=("http://h:9",))
    remote = RemoteCluster(identity.cluster_id, (known,), {})
    with pytest.raises(BootstrapError, match="has already been bootstrapped"):
        decide_start(config_of(*arguments), None, remote)


def test_member_whose_data_is_gone_does_not_join_again() -> None:
    known = A.with_attributes("a", ("http://h:8",))
    with pytest.raises(BootstrapError, match="member a has already been bootstrapped"):
        decide_start(config_of(*JOIN), None, REMOTE._replace(members=(known, B)))


OWN = Member(member_id=1, peer_urls=("http://h:1",), name="a")


def forced(
    conf_state: ConfState, entries: list[Entry], commit: int = 10
) -> list[tuple[int, int, int]] | None:
    """Return index, kind and member of each appended change."""
    appended = force_new_cluster(HardState(4, 1, commit), conf_state, entries, OWN)
    if appended is None:
        return None
    hard_state, added = appended
    assert (hard_state.term, hard_state.vote, hard_state.commit) == (4, 1, added[-1].index)
    assert {entry.term for entry in added} == {4}
    assert [entry.index for entry in added] == list(range(commit + 1, added[-1].index + 1))
    return [(entry.index, *decode_conf_change(entry).changes[0]) for entry in added]


def conf_entry(index: int, kind: int, member_id: int) -> Entry:
    change = ConfChange(((kind, member_id),), 0, b"", ENTRY_CONF_CHANGE)
    return Entry(4, index, ENTRY_CONF_CHANGE, encode_conf_change(change))


def test_forced_new_cluster_removes_everybody_else() -> None:
    assert forced(ConfState((1, 2, 3), (4,)), []) == [
        (11, REMOVE_NODE, 2),
        (12, REMOVE_NODE, 3),
        (13, REMOVE_NODE, 4),
    ]


def test_forced_new_cluster_counts_what_is_committed_and_not_applied() -> None:
    entries = [
        conf_entry(8, ADD_LEARNER_NODE, 4),
        Entry(4, 9, 0, b"x"),
        conf_entry(10, REMOVE_NODE, 2),
        conf_entry(10, UPDATE_NODE, 7),
    ]
    assert forced(ConfState((1, 2)), entries) == [(11, REMOVE_NODE, 4)]


def test_forced_new_cluster_of_one_changes_nothing() -> None:
    assert forced(ConfState((1,)), []) is None
    assert forced(ConfState(()), [conf_entry(1, ADD_NODE, 1)], commit=1) is None


def test_forced_new_cluster_makes_itself_a_voter_first() -> None:
    assert forced(ConfState((2,), (1,)), []) == [(11, ADD_NODE, 1), (12, REMOVE_NODE, 2)]
    assert forced(ConfState((2,)), []) == [(11, ADD_NODE, 1), (12, REMOVE_NODE, 2)]


def test_forced_new_cluster_needs_data() -> None:
    with pytest.raises(BootstrapError, match="holds nothing of its cluster yet"):
        force_new_cluster(HardState(), ConfState(), [], OWN)
