"""The table of refusals: etcd's codes and texts, and a row for everything that can go wrong."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from etcdtw.apply import errors as member_errors
from etcdtw.cluster import errors as cluster_errors
from etcdtw.grpc.call import INTERNAL, UNAVAILABLE, UNKNOWN, StatusError
from etcdtw.lease import errors as lease_errors
from etcdtw.mvcc import errors as mvcc_errors
from etcdtw.rpc.errors import ROWS, STATUSES, SYMBOLS, fail, status_error, status_of
from etcdtw.storage.state.errands import SupersededError, TooManyErrandsError

# What clients of etcd v3.7 know, written out once more: (code on the wire, text).
KNOWN = """
3 key is not provided
3 key not found
3 value is provided
3 lease is provided
3 too many operations in txn request
3 duplicate key given in txn request
3 invalid client api version
3 invalid sort option
11 mvcc: required revision has been compacted
11 mvcc: required revision is a future revision
8 mvcc: database space exceeded
5 requested lease not found
9 lease already exists
11 too large lease TTL
1 watch canceled
9 member ID already exist
9 Peer URLs already exists
2 re-configuration failed due to not enough started members
3 given member URLs are invalid
5 member not found
9 can only promote a learner member
9 can only promote a learner member which is in sync with leader
9 too many learner members in cluster
9 cluster ID mismatch
3 request is too large
2 too many requests
9 root user does not exist
9 root user does not have root role
9 user name already exists
3 user name is empty
9 user name not found
9 role name already exists
9 role name not found
3 role name is empty
3 authentication failed, invalid user ID or password
3 permission not given
7 permission denied
9 role is not granted to the user
9 permission is not granted to the role
9 authentication is not enabled
16 invalid auth token
3 invalid auth management
3 revision of auth store is old
14 no leader
9 not leader
14 leader changed
9 not capable
14 server stopped
14 request timed out
14 request timed out, possibly due to previous leader failure
14 request timed out, possibly due to connection lost
14 request timed out, waiting for the applied index took too long
14 unhealthy cluster
15 corrupt cluster
9 rpc not supported for learner
9 bad leader transferee
3 wrong downgrade target version format
3 invalid downgrade target version
9 cluster version not found during downgrade
9 cluster has a downgrade job in progress
9 no inflight downgrade job
1 request canceled
4 context deadline exceeded
""".strip().splitlines()

ABSTRACT = {mvcc_errors.MvccError, member_errors.MemberError, cluster_errors.MembershipError}


class FailedCall:
    """Only remembers how it ended."""

    status: tuple[int, str] | None = None

    def fail(self, code: int, message: str) -> None:
        self.status = (code, message)


def test_the_table_is_the_one_that_clients_know() -> None:
    assert [f"{code} {text}" for _, code, text in ROWS] == KNOWN
    assert len(ROWS) == len(STATUSES) == 63


def test_every_text_begins_as_etcds_do() -> None:
    for _, text in STATUSES.values():
        assert text.startswith("etcdserver: ")


@pytest.mark.parametrize("module", [mvcc_errors, lease_errors, member_errors, cluster_errors])
def test_no_error_of_a_core_lacks_its_status(module: ModuleType) -> None:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if not issubclass(cls, Exception) or cls in ABSTRACT or cls.__module__ != module.__name__:
            continue
        if cls is member_errors.ProposalDroppedError:
            assert status_of(cls()) == (UNKNOWN, "raft proposal dropped")
        elif cls is member_errors.TransferTimeoutError:
            text = "etcdserver: request timed out, leader transfer took too long"
            assert status_of(cls()) == (UNKNOWN, text)
        else:
            assert SYMBOLS[cls] in STATUSES, cls


def test_too_many_requests_loses_its_code_as_in_etcd() -> None:
    error = member_errors.TooManyRequestsError()
    assert status_of(error) == (UNKNOWN, "etcdserver: too many requests")


def test_hash_that_is_not_made_is_asked_for_again() -> None:
    text = "etcdtw: a snapshot takes the place of this member's data; try again"
    assert status_of(SupersededError()) == (UNAVAILABLE, text)
    assert status_of(TooManyErrandsError()) == (UNKNOWN, "etcdserver: too many requests")


def test_an_error_names_what_it_is_about() -> None:
    assert mvcc_errors.CompactedError(3, 5).compact_revision == 5
    assert mvcc_errors.FutureRevisionError(9, 5).current_revision == 5
    assert mvcc_errors.LeaseNotFoundError(7).lease_id == 7


def test_a_status_passes_unchanged_and_a_stranger_is_unknown() -> None:
    assert status_of(StatusError(INTERNAL, "text")) == (INTERNAL, "text")
    assert status_of(KeyError("k")) == (UNKNOWN, "'k'")


def test_a_call_fails_with_the_status() -> None:
    call = FailedCall()
    fail(call, mvcc_errors.KeyNotFoundError())  # type: ignore[arg-type]
    assert call.status == (3, "etcdserver: key not found")


def test_a_row_is_raised_by_its_symbol() -> None:
    assert status_error("EmptyKey").message == "etcdserver: key is not provided"
