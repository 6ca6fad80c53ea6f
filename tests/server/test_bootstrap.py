"""The decisions of a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.server.bootstrap import (
    BootstrapError,
    Identity,
    check_directory,
    decide_start,
    decode_identity,
    encode_identity,
    inspect_directory,
)
from etcdtw.server.config import Config, configure

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
        (["--initial-cluster-state=existing"], "joining a running cluster"),
        (["--initial-cluster="], 'couldn\'t find local name "default"'),
        (
            ["--initial-advertise-peer-urls=http://h:1"],
            "--initial-advertise-peer-urls has default=http://h:1",
        ),
        (
            ["--initial-cluster=default=http://localhost:2380,b=http://h:1"],
            "--initial-cluster names 2 members",
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
