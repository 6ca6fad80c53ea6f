"""Signed tokens beside real etcd: each takes the other's, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from etcdtw.config.auth_token import METHODS
from etcdtw.wire import etcdserverpb as pb
from tests.differential.judged import NEEDS_JUDGE
from tests.differential.users import AUTH, Member, Operation
from tests.integration.test_users import ask, log_in, set_up, status_of
from tests.support.cluster_processes import wait_for
from tests.support.processes import RunningMember
from tests.support.token_key_files import key_pair

pytestmark = pytest.mark.integration

PROGRAMS: Final = ("etcd", "etcdtw")
OLD: Final = "etcdserver: revision of auth store is old"
INVALID: Final = "etcdserver: invalid auth token"


def flags_for(method: str, folder: Path, *, is_public: bool = False) -> list[str]:
    """Return the flags of a member that signs, or with ``is_public`` only verifies."""
    private, public = key_pair(method)
    (folder / "key").write_bytes(private)
    (folder / "pub").write_bytes(public)
    key = f"pub-key={folder / 'pub'}" if is_public else f"priv-key={folder / 'key'}"
    return ["--bcrypt-cost=4", f"--auth-token=jwt,sign-method={method},{key},ttl=10m"]


@NEEDS_JUDGE
@pytest.mark.parametrize("method", METHODS)
def test_each_takes_the_tokens_of_the_other(method: str, tmp_path: Path) -> None:
    flags = flags_for(method, tmp_path)
    with RunningMember("etcd", flags=flags) as real, RunningMember("etcdtw", flags=flags) as ours:
        members = [Member(real.endpoint), Member(ours.endpoint)]
        for member in members:
            set_up(member)
            log_in(member, "root")
        first, second = members
        first.tokens, second.tokens = second.tokens, first.tokens
        assert [status_of(member, "root") for member in members] == ["", ""]
        # A token bears the revision of users and roles that it was signed under.
        for member in members:
            request = pb.AuthRoleAddRequest(name="r")
            ask(member, AUTH + "RoleAdd", request, pb.AuthRoleAddResponse, "root")
        assert [status_of(member, "root") for member in members] == [OLD, OLD]
        for member in members:
            member.tokens["root"] += "A"
        assert [status_of(member, "root") for member in members] == [INVALID, INVALID]


@NEEDS_JUDGE
def test_who_only_verifies_says_so_when_a_token_is_asked_for(tmp_path: Path) -> None:
    answers = []
    for program in PROGRAMS:
        with RunningMember(program, flags=flags_for("ES256", tmp_path, is_public=True)) as running:
            member = Member(running.endpoint)
            set_up(member)
            texts = []
            for name, password in (("root", "root"), ("root", "wrong"), ("nobody", "x")):
                request = pb.AuthenticateRequest(name=name, password=password)
                operation = Operation(AUTH + "Authenticate", request, pb.AuthenticateResponse, None)
                texts.append(member.call(operation)[:2])
            answers.append(texts)
    assert answers[0] == answers[1]
    assert answers[0][0] == (2, "auth: token signing attempted with verify-only key")


def test_a_key_that_is_replaced_ends_the_old_tokens(tmp_path: Path) -> None:
    with RunningMember("etcdtw", flags=flags_for("RS256", tmp_path)) as running:
        member = Member(running.endpoint)
        set_up(member)
        log_in(member, "root")
        assert status_of(member, "root") == ""
        (tmp_path / "key").write_bytes(key_pair("RS256", 1)[0])
        wait_for(lambda: status_of(member, "root") == INVALID, 10.0, "the new key")
        log_in(member, "root")
        assert status_of(member, "root") == ""
