"""Alarms: raised once, cleared exactly, kept over a restart."""

from __future__ import annotations

from etcdtw.apply.alarms import Alarms, encode_alarms
from etcdtw.wire import etcdserverpb as pb
from tests.support.model_backend import ModelBackend


def test_raising_twice_answers_the_alarm_both_times_and_keeps_one() -> None:
    alarms = Alarms(ModelBackend())
    assert alarms.activate(7, pb.NOSPACE) == [(7, pb.NOSPACE)]
    assert alarms.activate(7, pb.NOSPACE) == [(7, pb.NOSPACE)]
    assert alarms.active() == [(7, pb.NOSPACE)]
    assert alarms.is_any
    assert alarms.no_space
    assert not alarms.corrupt


def test_raising_none_does_nothing() -> None:
    alarms = Alarms(ModelBackend())
    assert alarms.activate(7, pb.NONE) == []
    assert not alarms.is_any


def test_clearing_needs_the_exact_member_and_kind() -> None:
    alarms = Alarms(ModelBackend())
    alarms.activate(7, pb.CORRUPT)
    assert alarms.deactivate(8, pb.CORRUPT) == []
    assert alarms.deactivate(7, pb.NOSPACE) == []
    assert alarms.corrupt
    assert alarms.deactivate(7, pb.CORRUPT) == [(7, pb.CORRUPT)]
    assert not alarms.is_any


def test_alarms_survive_a_restart_in_their_bucket() -> None:
    backend = ModelBackend()
    Alarms(backend).activate(7, pb.NOSPACE)
    assert Alarms(backend).active() == [(7, pb.NOSPACE)]


def test_a_list_of_one_kind_leaves_the_others_out() -> None:
    alarms = Alarms(ModelBackend())
    alarms.activate(7, pb.NOSPACE)
    alarms.activate(8, pb.CORRUPT)
    assert alarms.active(pb.CORRUPT) == [(8, pb.CORRUPT)]
    response = pb.AlarmResponse.FromString(encode_alarms(alarms.active()))
    assert [(member.memberID, member.alarm) for member in response.alarms] == [(7, 1), (8, 2)]
