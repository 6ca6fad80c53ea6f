"""The flags of tracing: read together, and checked only where traces are made, as by etcd."""

from __future__ import annotations

import pytest

from etcdtw.config.config import Tracing
from tests.config.configuring import configured, refusal

ON = "--enable-distributed-tracing"


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    assert configured().tracing is None
    assert configured("--distributed-tracing-sampling-rate=-5").tracing is None


def test_the_defaults_are_etcds() -> None:
    assert configured(ON).tracing == Tracing(
        address="localhost:4317", service_name="etcd", instance_id="", samples_per_million=0
    )


def test_all_flags_are_read() -> None:
    tracing = configured(
        ON,
        "--distributed-tracing-address=collector:4318",
        "--distributed-tracing-service-name=shop",
        "--distributed-tracing-instance-id=m1",
        "--distributed-tracing-sampling-rate=1000000",
    ).tracing
    assert tracing == Tracing(
        address="collector:4318",
        service_name="shop",
        instance_id="m1",
        samples_per_million=1_000_000,
    )


@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (-1, "tracing sampling rate must be positive"),
        (1_000_001, "tracing sampling rate must be less than 1000000"),
    ],
)
def test_a_rate_that_is_none_is_refused_with_etcds_words(rate: int, reason: str) -> None:
    status, message = refusal(ON, f"--distributed-tracing-sampling-rate={rate}")
    assert status == 1
    assert message == f"distributed tracing configurition is not valid: ({reason})"
