"""Starts that used to fail or hang, as processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.launches import launched, member_flags
from tests.support.processes import free_port

pytestmark = pytest.mark.integration
READY = "ready to serve client requests"


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """What most logins have; the suite may run with another."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("kind", ["peer", "client"])
def test_certificates_of_its_own_leave_a_fresh_directory_to_its_owner(
    tmp_path: Path, usual_umask: None, kind: str
) -> None:
    wanted = {
        "peer": ("--peer-auto-tls", "peer-urls=", "cluster="),
        "client": ("--auto-tls", "client-urls="),
    }[kind]
    flags = [
        one.replace("http:", "https:") if any(word in one for word in wanted) else one
        for one in member_flags("m1", tmp_path / "new" / "m1.etcd", free_port(), free_port())
    ]
    with launched([*flags, wanted[0]], tmp_path) as member:
        member.await_text(READY)


def test_members_meet_on_unix_sockets(tmp_path: Path) -> None:
    names = ("m1", "m2", "m3")
    urls = {name: f"unix://{tmp_path}/{name}.sock" for name in names}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    with ExitStack() as running:
        members = []
        for name, url in urls.items():
            client = f"http://127.0.0.1:{free_port()}"
            flags = [
                f"--name={name}",
                f"--data-dir={tmp_path / name}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={url}",
                f"--initial-advertise-peer-urls={url}",
                f"--initial-cluster={cluster}",
            ]
            members.append(running.enter_context(launched(flags, tmp_path, f"{name}.log")))
        for member in members:
            member.await_text(READY)
