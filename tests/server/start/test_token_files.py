"""Key files of signed tokens: what is read, when it is read again, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.config.auth_token import JWT, SIMPLE, AuthToken
from etcdtw.server.start.token_files import (
    LOOK_INTERVAL_S,
    TokenFiles,
    TokenFilesError,
    check_token_files,
)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "secret"
        self.path.write_bytes(b"one")
        self.now_s = 10.0
        token = AuthToken(JWT, "HS256", private_key_file=str(self.path))
        self.files = TokenFiles(token, lambda: self.now_s)

    def secret(self) -> object:
        return self.files.key().signing

    def later(self) -> None:
        self.now_s += LOOK_INTERVAL_S


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first = rig.files.key()
    assert first.signing == b"one"
    rig.later()
    assert rig.files.key() is first
    rig.path.write_bytes(b"another")
    assert rig.files.key() is first, "looked at too often"
    rig.later()
    assert rig.secret() == b"another"


def test_files_that_cannot_be_used_leave_the_key_as_it_was(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for spoil in (lambda: rig.path.write_bytes(b""), rig.path.unlink):
        spoil()
        rig.later()
        assert rig.secret() == b"one"
    rig.path.write_bytes(b"three")
    rig.later()
    assert rig.secret() == b"three"


def test_simple_tokens_need_no_files() -> None:
    check_token_files(AuthToken(SIMPLE))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    token = AuthToken(JWT, "HS256", private_key_file=str(tmp_path / "none"))
    with pytest.raises(TokenFilesError, match=r"--auth-token: .*/none: no such file or directory"):
        check_token_files(token)


def test_what_is_wrong_with_a_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"none")
    token = AuthToken(JWT, "RS256", public_key_file=str(tmp_path / "key"))
    with pytest.raises(TokenFilesError, match="--auth-token: pub-key holds no public key"):
        check_token_files(token)
