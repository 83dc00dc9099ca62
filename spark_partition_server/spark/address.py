"""The driver's address: what executors and clients are told to connect to.

Spark was told an address by which executors reach the driver, and that is the best evidence there is; but it may be a
wildcard (Kubernetes with ``useDriverPodIP``) or a loopback name that only this machine understands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..net.endpoints import address_towards, is_loopback, is_wildcard

__all__ = ["HOST_VARIABLE", "driver_host"]

HOST_VARIABLE = "SPARK_PARTITION_SERVER_HOST"
# A documentation address (RFC 5737): nothing is sent to it, it only asks the routing table for the default route.
ELSEWHERE = "198.51.100.1"


def driver_host(sc: Any, advertise: str | None, route: Callable[[str], str | None] = address_towards) -> str:
    """The address to advertise, from the first of these that names one.

    1. the option; 2. the environment variable SPARK_PARTITION_SERVER_HOST; 3. 127.0.0.1 for master ``local[...]``;
    4. ``spark.driver.host``, unless it is a wildcard, or a loopback while executors are on other machines;
    5. ``spark.driver.bindAddress``, on the same condition; 6. this host's address on its default route; 7. 127.0.0.1.
    """
    for asked in (advertise, os.environ.get(HOST_VARIABLE)):
        if asked:
            return asked
    master = sc.master or ""
    if _is_local(master):
        return "127.0.0.1"
    one_machine = master.startswith("local-cluster") or is_loopback(_master_host(master))
    for key in ("spark.driver.host", "spark.driver.bindAddress"):
        host = sc.getConf().get(key)
        if host and not is_wildcard(host) and (one_machine or not is_loopback(host)):
            return str(host)
    return route(ELSEWHERE) or "127.0.0.1"


def _master_host(master: str) -> str:
    """The host of ``spark://host:port``; executors of a master on a loopback address are on this machine."""
    scheme, _, rest = master.partition("://")
    return rest.rpartition(":")[0] if scheme == "spark" else ""


def _is_local(master: str) -> bool:
    return master == "local" or master.startswith("local[")
