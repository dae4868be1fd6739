"""What the options of the jitter buffer amount to."""

from __future__ import annotations

import pytest

from app.coding import make_buffer
from app.options import CallOptions, UsageError, parse_buffer
from jitterbuffer import Latency, LatencyPolicy


def test_a_call_follows_the_network_unless_told_otherwise() -> None:
    assert CallOptions().target_delay == LatencyPolicy.of(Latency.BALANCED)
    assert make_buffer(CallOptions()).target_delay == 0.03
    assert CallOptions(buffer_ms=parse_buffer("fixed:45")).target_delay == 0.045
    assert parse_buffer("adaptive") is None


def test_bounds_replace_those_of_the_policy() -> None:
    options = CallOptions(latency=Latency.ROBUST, min_delay_ms=100, max_delay_ms=300)
    policy = options.target_delay
    assert isinstance(policy, LatencyPolicy)
    assert (policy.min_delay, policy.max_delay) == (0.1, 0.3)
    assert policy.worth == LatencyPolicy.of(Latency.ROBUST).worth


def test_bounds_of_a_fixed_buffer_make_no_sense() -> None:
    with pytest.raises(UsageError, match="--max-delay 200 bounds an adaptive buffer"):
        CallOptions(buffer_ms=30, max_delay_ms=200)
