"""Entries nested as deeply as a client's message may be: applied again, as they were at first."""

from __future__ import annotations

import random

import pytest

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import FIELD_PUT, FIELD_TXN, Applier
from etcdtw.apply.entries import UnknownEntryError
from etcdtw.apply.members import Members
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.store import Store
from etcdtw.node.intake.requests import RequestIds, tag
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import delimited, encode_varint
from etcdtw.wire.requests import plain
from tests.support.auth_rig import auth_entries
from tests.support.model_backend import ModelBackend

DEEPEST_GROUP = 100
"""Levels of an unknown field that the parser still takes in a request of its own."""
DEEPEST_TXN = 49


def new_applier() -> tuple[Applier, Store]:
    backend = ModelBackend()
    lessor = Lessor(2)
    store = Store(backend, lessor.exists)
    auth = auth_entries(backend, store)
    return Applier(backend, store, lessor, Members(backend, 1), Alarms(backend), auth), store


def entry(field: int, message: bytes) -> bytes:
    prefix = RequestIds(random.Random(1).getrandbits(15), 1).next_header()
    return prefix + tag(field) + encode_varint(len(message)) + message


def deep_put() -> bytes:
    unknown = encode_varint(200 << 3 | 3) * DEEPEST_GROUP + encode_varint(200 << 3 | 4) * (
        DEEPEST_GROUP
    )
    return pb.PutRequest(key=b"k", value=b"v").SerializeToString() + unknown


def deep_txn() -> bytes:
    message = pb.TxnRequest(
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"v"))]
    ).SerializeToString()
    for _ in range(DEEPEST_TXN):
        message = delimited(b"\x12", delimited(b"\x22", message))
    return message


@pytest.mark.parametrize(
    ("field", "message", "message_class"),
    [(FIELD_PUT, deep_put(), pb.PutRequest), (FIELD_TXN, deep_txn(), pb.TxnRequest)],
)
def test_entry_of_the_deepest_request_is_applied_again_as_at_first(
    field: int, message: bytes, message_class: type[pb.PutRequest] | type[pb.TxnRequest]
) -> None:
    first, first_store = new_applier()
    again, again_store = new_applier()
    at_first = first.apply(field, plain(message_class.FromString(message)))
    later = again.apply_data(entry(field, message))
    assert (later.revision, later.body, later.error) == (2, at_first.body, None)
    assert again_store.get_body(b"k") == first_store.get_body(b"k")


def test_damaged_entry_is_not_skipped() -> None:
    applier, _ = new_applier()
    with pytest.raises(UnknownEntryError):
        applier.apply_data(b"\xa2\x06\x0b\x08")
