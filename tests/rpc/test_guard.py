"""Who asks: tokens before certificates, and nothing while nobody is asked."""

from __future__ import annotations

import pytest

from etcdtw.auth.access import Access
from etcdtw.auth.errors import InvalidTokenError, PermissionDeniedError, UserNameEmptyError
from etcdtw.auth.key_check import KeyCheck
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.rpc.guard import KNOWN_S, Guard
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import NOBODY, Asker
from etcdtw.wire.requests import txn_of
from tests.support.guard_rig import ANN, CERTIFIED, ROOT, WRONG, GuardRig


@pytest.fixture
def rig() -> GuardRig:
    return GuardRig()


def test_a_token_counts_more_than_a_certificate(rig: GuardRig) -> None:
    revision = rig.auth.revision
    assert rig.guard.identify(CERTIFIED) == Asker("ann", revision)
    both = Caller("", "ann", b"r.1", is_certified=True)
    assert rig.guard.identify(both) == Asker("root", revision)
    assert isinstance(rig.guard.identify(WRONG), InvalidTokenError)
    assert rig.guard.identify(NOBODY_KNOWN) is NOBODY
    assert rig.guard.identify(Caller("", "", is_certified=True)) == Asker("", revision)
    assert rig.guard.own() == Asker("root", revision)


def test_a_certificate_means_nothing_where_none_is_demanded() -> None:
    rig = GuardRig(trusts_certificates=False)
    assert rig.guard.identify(CERTIFIED) is NOBODY


def test_while_auth_is_off_nothing_is_looked_at(rig: GuardRig) -> None:
    rig.auth.disable()
    guard = rig.guard
    assert not guard.switch.is_on
    for refusal in (
        guard.user_refusal(WRONG),
        guard.admin_refusal(WRONG),
        guard.token_refusal(WRONG),
        guard.user_get_refusal(WRONG, "root"),
        guard.role_get_refusal(WRONG, "root"),
        guard.read_refusal(WRONG, pb.RangeRequest(key=b"k")),
        guard.renewal_check(WRONG, 7),
        guard.listing_check(WRONG),
    ):
        assert refusal is None


def test_a_wrong_token_is_refused_by_every_question(rig: GuardRig) -> None:
    guard = rig.guard
    for refusal in (
        guard.user_refusal(WRONG),
        guard.admin_refusal(WRONG),
        guard.token_refusal(WRONG),
        guard.user_get_refusal(WRONG, "ann"),
        guard.role_get_refusal(WRONG, "root"),
        guard.read_refusal(WRONG, pb.RangeRequest(key=b"k")),
        guard.renewal_check(WRONG, 7),
        guard.listing_check(WRONG),
    ):
        assert isinstance(refusal, InvalidTokenError)


def test_each_question_is_answered_for_who_asks(rig: GuardRig) -> None:
    guard = rig.guard
    assert guard.token_refusal(NOBODY_KNOWN) is None
    assert isinstance(guard.user_refusal(NOBODY_KNOWN), UserNameEmptyError)
    assert guard.user_refusal(ANN) is None
    assert isinstance(guard.admin_refusal(ANN), PermissionDeniedError)
    assert guard.admin_refusal(ROOT) is None
    read = pb.RangeRequest(key=b"k")
    assert isinstance(guard.read_refusal(ANN, read), PermissionDeniedError)
    assert guard.read_refusal(ROOT, read) is None
    txn = txn_of(pb.TxnRequest(success=[pb.RequestOp(request_range=read)]))
    assert isinstance(guard.read_refusal(ANN, txn), PermissionDeniedError)
    assert isinstance(guard.watch_refusal(NOBODY, b"k", b""), UserNameEmptyError)


def test_a_lease_asks_for_its_keys_and_an_unknown_one_for_a_user(rig: GuardRig) -> None:
    guard = rig.guard

    def renewal(caller: Caller) -> KeyCheck | Exception | None:
        return guard.renewal_check(caller, 7)

    for ask in (renewal, guard.listing_check):
        assert isinstance(ask(NOBODY_KNOWN), UserNameEmptyError)
        assert ask(ROOT) is None
        check = ask(ANN)
        assert isinstance(check, KeyCheck)
        assert check.refusal([]) is None
        assert isinstance(check.refusal([b"k"]), PermissionDeniedError)


def showing(metadata: dict[bytes, bytes]) -> Caller:
    return CERTIFIED.showing(lambda name: metadata.get(name))


def test_what_a_gateway_passes_on_is_not_asked_for_by_its_certificate() -> None:
    """CVE-2018-16886."""
    shown: dict[bytes, bytes] = {b"grpcgateway-accept": b"*/*"}
    assert not showing(shown).is_certified
    shown[b"authorization"] = b"Bearer a.1"
    assert showing(shown).token == b"a.1"
    shown = {b"authorization": b"a.1", b"token": b"Bearer r.1"}
    found = showing(shown)
    assert (found.token, found.common_name, found.is_certified) == (b"r.1", "ann", True)
    assert showing({}) is CERTIFIED


class CountingTokens:
    """Every token is ann's, and is counted."""

    def __init__(self) -> None:
        self.asked = 0

    def asker_of(self, token: bytes, revision: int, address: str) -> Asker | None:
        self.asked += 1
        return Asker("ann", revision)


def test_who_a_caller_is_is_found_out_once_a_second() -> None:
    rig = GuardRig()
    rig.permit(b"k")
    now_s = [5.0]
    tokens = CountingTokens()
    guard = Guard(rig.auth, Access(rig.auth, rig.backend), tokens, seconds=lambda: now_s[0])
    caller = Caller("", "", b"t")
    for _ in range(3):
        assert guard.range_refusal(caller, b"k", b"") is None
        assert isinstance(guard.range_refusal(caller, b"l", b""), PermissionDeniedError)
        assert guard.identify(caller) == Asker("ann", rig.auth.revision)
    assert tokens.asked == 1
    now_s[0] += KNOWN_S
    assert guard.range_refusal(caller, b"k", b"") is None
    assert tokens.asked == 2


def test_what_is_known_of_a_caller_ends_with_his_rights() -> None:
    rig = GuardRig()
    rig.permit(b"k")
    caller = Caller("", "", b"a.1")
    assert rig.guard.range_refusal(caller, b"k", b"") is None
    rig.auth.revoke_permission("r", b"k", b"")
    assert isinstance(rig.guard.range_refusal(caller, b"k", b""), PermissionDeniedError)
    rig.permit(b"k")
    assert rig.guard.range_refusal(caller, b"k", b"") is None
    # A snapshot may bring other users under the same revision.
    rig.auth.restore()
    rig.tokens.user_gone("ann")
    assert isinstance(rig.guard.range_refusal(caller, b"k", b""), InvalidTokenError)
