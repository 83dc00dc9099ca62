"""The options: what cannot work is refused where it is written, and the text names the option and the value."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from spark_partition_server import ClientOptions, ClusterOptions, ServerOptions

KINDS = [ServerOptions, ClusterOptions, ClientOptions]
NUMBERS = [
    (kind, field.name)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_are_valid_and_cannot_be_changed(kind):
    """They are frozen, can be compared, and travel to the executors."""
    options = kind()
    assert options == kind()
    assert pickle.loads(pickle.dumps(options)) == options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.ports = (1, 2)


def test_all_numbers_are_looked_at():
    """A new option does not escape the tests below."""
    assert len(NUMBERS) >= 15


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), None, "1", True, [1]], ids=repr)
def test_a_number_must_be_one_above_zero(kind, name, value: Any):
    """A timeout of nothing, a limit below zero, text, None; only the switch interval may be none at all."""
    if (name, value) == ("switch_interval", None):
        assert kind(switch_interval=None).switch_interval is None
        return
    with pytest.raises(ValueError, match=f"{kind.__name__}.{name} must be a number above 0") as caught:
        kind(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("kind", [ServerOptions, ClusterOptions])
@pytest.mark.parametrize("ports", [(0, 0), (0, 5), (5, 4), (1, 65536), (-1, 5), (70_000, 70_001)])
def test_a_range_of_ports_must_be_one(kind, ports):
    """Two ports, the first one not behind the last."""
    with pytest.raises(ValueError, match=r"ports must be \(first, last\) within 1..65535") as caught:
        kind(ports=ports)
    assert str(ports) in str(caught.value)


@pytest.mark.parametrize("kind", [ServerOptions, ClusterOptions])
@pytest.mark.parametrize("ports", [8080, "8080", (1,), (1, 2, 3), ("1", "2"), (1.5, 2.5)], ids=repr)
def test_what_is_no_range_is_a_value_error_too(kind, ports: Any):
    """A single number, say: the text shows how it is to be written."""
    with pytest.raises(ValueError, match=r"ports must be \(first, last\)"):
        kind(ports=ports)


@pytest.mark.parametrize("kind", [ServerOptions, ClusterOptions])
@pytest.mark.parametrize("ports", [None, (1, 1), (1, 65535), [4000, 4100]])
def test_ranges_that_are_fine(kind, ports):
    """One port is a range; None is any port."""
    assert kind(ports=ports).ports == ports


def test_a_lease_lasts_at_least_three_heartbeats():
    """Else one lost heartbeat would cost a member its place."""
    assert ClusterOptions(heartbeat_interval=1.0, lease=3.0).lease == 3.0
    with pytest.raises(ValueError, match=r"lease \(2.9 s\) must be at least three heartbeat intervals \(1 s\)"):
        ClusterOptions(heartbeat_interval=1.0, lease=2.9)
