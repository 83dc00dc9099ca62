"""Which address of the driver executors and clients are told, from what Spark knows and where that misleads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spark_partition_server.spark.address import HOST_VARIABLE, driver_host

ROUTED = "10.9.8.7"


class Conf:
    """What Spark is configured with."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def get(self, key: str, default: str | None = None) -> str | None:
        return self.values.get(key, default)


class Context:
    """The two things that are asked of a SparkContext."""

    def __init__(self, master: str | None, host: str | None = None, bind: str | None = None) -> None:
        self.master = master
        given = {"spark.driver.host": host, "spark.driver.bindAddress": bind}
        self.conf = Conf({key: value for key, value in given.items() if value is not None})

    def getConf(self) -> Conf:
        return self.conf


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch) -> None:
    monkeypatch.delenv(HOST_VARIABLE, raising=False)


def found(sc: Any, advertise: str | None = None, route: Callable[[str], str | None] = lambda host: ROUTED) -> str:
    return driver_host(sc, advertise, route)


CASES: list[tuple[str, Context, str]] = [
    ("local: this machine only", Context("local[4]", "192.168.1.5"), "127.0.0.1"),
    ("local without a number", Context("local", "192.168.1.5"), "127.0.0.1"),
    ("local with failures", Context("local[2,4]", "192.168.1.5"), "127.0.0.1"),
    ("standalone: Spark knows", Context("spark://master:7077", "192.168.1.5"), "192.168.1.5"),
    ("YARN: Spark knows the name", Context("yarn", "driver.example"), "driver.example"),
    ("Kubernetes: a wildcard to bind", Context("k8s://https://api", "pod.svc", "0.0.0.0"), "pod.svc"),
    ("Kubernetes: a wildcard as the host", Context("k8s://https://api", "0.0.0.0", "10.0.0.3"), "10.0.0.3"),
    ("both are wildcards", Context("k8s://https://api", "0.0.0.0", "::"), ROUTED),
    ("a name of loopback that executors elsewhere do not share", Context("yarn", "localhost"), ROUTED),
    ("a loopback address, another to bind", Context("yarn", "127.0.1.1", "192.168.1.5"), "192.168.1.5"),
    ("workers of a local cluster are on this machine", Context("local-cluster[2,1,1024]", "127.0.0.1"), "127.0.0.1"),
    ("so are those of a master on loopback", Context("spark://127.0.0.1:7077", "localhost"), "localhost"),
    ("and of one with IPv6", Context("spark://[::1]:7077", "::1"), "::1"),
    ("nothing configured", Context("yarn"), ROUTED),
    ("no master", Context(None, "192.168.1.5"), "192.168.1.5"),
]


@pytest.mark.parametrize(("why", "sc", "address"), CASES, ids=[case[0] for case in CASES])
def test_the_address_that_executors_can_reach(why, sc, address):
    """The first that names one and does not mislead."""
    assert found(sc) == address


def test_the_option_is_above_everything(monkeypatch):
    """Then comes the environment, which an administrator sets."""
    sc = Context("spark://master:7077", "192.168.1.5")
    monkeypatch.setenv(HOST_VARIABLE, "10.0.0.2")
    assert found(sc, "10.0.0.1") == "10.0.0.1"
    assert found(sc) == "10.0.0.2"
    assert found(Context("local[2]")) == "10.0.0.2"
    monkeypatch.setenv(HOST_VARIABLE, "")
    assert found(sc) == "192.168.1.5"


def test_without_any_network_there_is_loopback():
    """A laptop in an aeroplane."""
    assert found(Context("yarn"), route=lambda host: None) == "127.0.0.1"


def test_the_routing_table_is_asked_for_an_address_that_nobody_has():
    """Nothing is sent anywhere."""
    asked: list[str] = []
    found(Context("yarn"), route=asked.append)  # type: ignore[arg-type]
    assert asked == ["198.51.100.1"]
