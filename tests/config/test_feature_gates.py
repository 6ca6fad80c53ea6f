"""--feature-gates: etcd's names and words; bulk words give way to names."""

from __future__ import annotations

import pytest

from etcdtw.config.feature_gates import ALPHA, BETA, GATES, parse_feature_gates
from etcdtw.config.govalues import ValueTextError
from tests.config.configuring import configured

DEFAULTS = {name: gate.default for name, gate in GATES.items()}


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_nothing_named_is_the_defaults(text: str) -> None:
    assert parse_feature_gates(text) == DEFAULTS


def test_a_name_changes_its_gate_alone_and_the_last_word_counts() -> None:
    found = parse_feature_gates(" CompactHashCheck = true ,CompactHashCheck=false")
    assert found == {**DEFAULTS, "CompactHashCheck": False}


@pytest.mark.parametrize("text", ["AllBeta=false", "FastLeaseKeepAlive=true,AllBeta=false"])
def test_a_bulk_word_sets_the_gates_of_its_stage_that_are_not_named(text: str) -> None:
    shut = {name for name, gate in GATES.items() if gate.stage == BETA}
    shut -= {"FastLeaseKeepAlive"} if "Fast" in text else set()
    assert parse_feature_gates(text) == {**DEFAULTS, **dict.fromkeys(shut, False)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
        ("=true,NoSuchGate", "unrecognized feature gate: NoSuchGate"),
        ("CompactHashCheck", "missing bool value for CompactHashCheck"),
        (
            "CompactHashCheck=perhaps",
            "invalid value of CompactHashCheck=perhaps, err: strconv.ParseBool: parsing "
            '"perhaps": invalid syntax',
        ),
        ("LeaseCheckpointPersist=false", "checkpoints always persist"),
        (
            "LeaseCheckpoint=false,LeaseCheckpointPersist=true",
            "LeaseCheckpointPersist needs LeaseCheckpoint",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueTextError) as refused:
        parse_feature_gates(text)
    assert why in str(refused.value)


def test_checkpoints_can_be_shut_with_the_rest_of_their_stage() -> None:
    found = parse_feature_gates("AllAlpha=false")
    assert not any(found[name] for name, gate in GATES.items() if gate.stage == ALPHA)


def test_all_gates_of_a_stage_open_at_once() -> None:
    state = parse_feature_gates("AllAlpha=true")
    assert all(state.values())
    assert not parse_feature_gates("AllBeta=false")["FastLeaseKeepAlive"]


def test_an_address_to_dial_from_that_is_not_there_is_warned_of_in_etcds_words() -> None:
    text = "unable to set a member local address due to lack of suitable local addresses"
    gate = "--feature-gates=SetMemberLocalAddr=true"
    assert text in configured(gate).warnings
    assert text not in configured().warnings
    assert text not in configured(gate, "--initial-advertise-peer-urls=http://10.0.0.1:1").warnings
