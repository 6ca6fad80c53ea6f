"""Authenticate: tokens for passwords, and what strangers' guesses come to."""

from __future__ import annotations

import pytest
from jwt.exceptions import InvalidKeyError

from etcdtw.grpc.call import FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, UNKNOWN
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.auth.attempts import PAIR_FAILURES_MAX, PAIR_FAILURES_PER_S
from etcdtw.rpc.auth.authentication import ROUNDS_MAX
from etcdtw.rpc.auth.token_keys import TokenKey
from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import Asker
from tests.rpc.auth.auth_service_rig import AuthServiceRig, showing
from tests.rpc.auth.test_signed_tokens import Rig as SignedTokensRig

FAILED = (INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")
ANN = pb.AuthenticateRequest(name="ann", password="ann")
WRONG = pb.AuthenticateRequest(name="ann", password="wrong")
TOO_MANY = (UNKNOWN, "etcdserver: too many requests")


def with_users(made: AuthServiceRig) -> AuthServiceRig:
    for name in ("root", "ann"):
        request = pb.AuthUserAddRequest(name=name, password=name)
        made.ask("UserAdd", request, pb.AuthUserAddResponse)
    made.auth.add_user("cert", None, no_password=True)
    made.auth.grant_role("root", "root")
    made.auth.enable()
    return made


@pytest.fixture
def rig() -> AuthServiceRig:
    return with_users(AuthServiceRig())


def test_without_auth_there_is_nothing_to_log_in_to(rig: AuthServiceRig) -> None:
    rig.auth.disable()
    text = "etcdserver: authentication is not enabled"
    assert rig.refusal("Authenticate", ANN) == (FAILED_PRECONDITION, text)


def test_a_token_names_its_user_until_his_password_changes(rig: AuthServiceRig) -> None:
    token = rig.ask("Authenticate", ANN, pb.AuthenticateResponse).token
    assert token == f"letters1.{rig.node_rig.log.last_index() - 1}"
    assert rig.tokens.asker_of(token.encode(), 9) == Asker("ann", 9)
    rig.auth.change_password("ann", b"")
    assert rig.tokens.asker_of(token.encode(), 9) is None


def test_nobody_s_name_and_a_wrong_password_are_told_alike(rig: AuthServiceRig) -> None:
    assert rig.refusal("Authenticate", WRONG) == FAILED
    request = pb.AuthenticateRequest(name="nobody", password="ann")
    assert rig.refusal("Authenticate", request) == FAILED
    # Both were compared with a hash.
    rig.is_quick = False
    rig.start("Authenticate", WRONG)
    rig.start("Authenticate", request)
    assert len(rig.jobs) == 2


def test_a_user_without_a_password_cannot_log_in(rig: AuthServiceRig) -> None:
    request = pb.AuthenticateRequest(name="cert", password="")
    text = "auth: authentication failed, password was given for no password user"
    assert rig.refusal("Authenticate", request) == (UNKNOWN, text)


def test_what_else_the_caller_shows_is_not_looked_at(rig: AuthServiceRig) -> None:
    rig.ask("Authenticate", ANN, pb.AuthenticateResponse, showing("no.1"))


def test_a_password_is_compared_again_when_users_have_changed_meanwhile(
    rig: AuthServiceRig,
) -> None:
    rig.is_quick = False
    call = rig.start("Authenticate", ANN)
    rig.auth.add_role("r")
    rig.work()
    assert call.is_open
    rig.work()
    assert call.status == (0, "")
    # Not for ever.
    call = rig.start("Authenticate", ANN)
    for i in range(ROUNDS_MAX):
        assert call.is_open
        rig.auth.add_role(f"r{i}")
        rig.work()
    assert call.status == (INVALID_ARGUMENT, "etcdserver: revision of auth store is old")


def test_a_client_who_is_gone_gets_no_token(rig: AuthServiceRig) -> None:
    rig.is_quick = False
    call = rig.start("Authenticate", ANN)
    call.fail(1, "canceled")
    rig.work()
    assert rig.letters == 0


def test_a_stranger_s_guesses_slow_down_the_stranger_alone(rig: AuthServiceRig) -> None:
    stranger = Caller("192.0.2.1", "")
    for _ in range(PAIR_FAILURES_MAX):
        assert rig.refusal("Authenticate", WRONG, stranger) == FAILED
    assert rig.refusal("Authenticate", ANN, stranger) == TOO_MANY
    rig.ask("Authenticate", ANN, pb.AuthenticateResponse, Caller("192.0.2.2", ""))
    root = pb.AuthenticateRequest(name="root", password="root")
    rig.ask("Authenticate", root, pb.AuthenticateResponse, stranger)
    rig.node_rig.clock.advance(1 / PAIR_FAILURES_PER_S)
    rig.ask("Authenticate", ANN, pb.AuthenticateResponse, stranger)


def test_a_user_named_without_a_password_option_is_told_by_his_row(rig: AuthServiceRig) -> None:
    options = authpb.UserAddOptions(no_password=False)
    request = pb.AuthUserAddRequest(name="bob", password="bob", options=options)
    root = rig.ask(
        "Authenticate",
        pb.AuthenticateRequest(name="root", password="root"),
        pb.AuthenticateResponse,
    )
    rig.ask("UserAdd", request, pb.AuthUserAddResponse, showing(root.token))
    bob = pb.AuthenticateRequest(name="bob", password="bob")
    rig.ask("Authenticate", bob, pb.AuthenticateResponse)


# Signed tokens.


def signing(method: str) -> AuthServiceRig:
    tokens = SignedTokensRig(method).tokens
    rig = with_users(AuthServiceRig(signer=tokens))
    rig.is_quick = False
    return rig


def test_a_signature_that_takes_long_is_made_beside_the_reactor() -> None:
    rig = signing("RS256")
    call = rig.start("Authenticate", ANN)
    rig.work()
    assert call.is_open
    assert len(rig.jobs) == 1
    rig.work()
    assert pb.AuthenticateResponse.FromString(call.replies[0]).token.count(".") == 2


def test_one_that_takes_no_time_is_made_at_once() -> None:
    rig = signing("EdDSA")
    call = rig.start("Authenticate", ANN)
    rig.work()
    assert pb.AuthenticateResponse.FromString(call.replies[0]).token.count(".") == 2


def test_a_token_that_was_signed_while_users_changed_is_not_handed_out() -> None:
    rig = signing("RS256")
    call = rig.start("Authenticate", ANN)
    rig.work()
    rig.auth.add_role("r")
    rig.work()
    assert call.is_open
    rig.work()
    rig.work()
    assert call.status == (0, "")


def test_a_signature_that_fails_ends_the_call() -> None:
    tokens = SignedTokensRig("RS256")
    tokens.current = TokenKey(tokens.current.verifying, "no key")
    rig = with_users(AuthServiceRig(signer=tokens.tokens))
    rig.is_quick = False
    call = rig.start("Authenticate", ANN)
    rig.work()
    with pytest.raises(InvalidKeyError):
        rig.work()
    assert call.status == (INTERNAL, "the token could not be signed")
