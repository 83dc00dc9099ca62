"""Shipping a server to the executors: pickled once, on the driver, when the cluster starts."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import NotSerializable

__all__ = ["Shipped", "copied", "packed", "pickled", "unpacked"]

ADVICE = "Keep only plain data before the server runs, and make everything live in init_partition."


@dataclass(frozen=True)
class Shipped:
    """What Spark calls on every partition: a server as octets, and the run it belongs to.

    The user's own object is never changed, so that it may serve in several clusters.

    Attributes:
        server: the pickled ``PartitionServer``.
        coordinator_url, token, run_id: told to the server before it is called.
        job_group: the only job group it serves under.
        placement: where the keys of the data are, a pickled ``Placement``.
    """

    server: bytes
    coordinator_url: str
    token: bytes
    run_id: bytes
    job_group: str
    placement: bytes

    def __call__(self, ind: int, itr: Iterable[Any]) -> Iterator[Any]:
        """In the executor's Python."""
        server = pickle.loads(self.server)
        server.set_coordinator_url(self.coordinator_url)
        server.set_token(self.token)
        server.set_run(self.run_id, self.job_group)
        server.set_placement(pickle.loads(self.placement))
        served: Iterator[Any] = server(ind, itr)
        return served

    def __repr__(self) -> str:
        return f"<a partition server of {len(self.server)} octets>"  # Spark may log it: no token


def pickled(server: Any, advice: str = ADVICE) -> bytes:
    """A server, or what belongs to it, as octets, by the pickler that Spark uses: classes of notebooks go by value.

    Raises:
        NotSerializable: it cannot be pickled; the text names the attribute, where one is to blame.
    """
    from pyspark.cloudpickle import dumps  # noqa: PLC0415

    return _octets(server, dumps, advice)


def copied(server: Any) -> Any:
    """A copy of a server, made as Spark would make it, also where Spark is not installed.

    By cloudpickle where that is installed. Else by pickle; and what that cannot do, a class made inside a function, by
    the cloudpickle that pyspark carries. Loading pyspark takes longer than to start servers, so it is the last way.

    Raises:
        NotSerializable: as ``pickled``.
    """
    try:
        from cloudpickle import dumps  # noqa: PLC0415 - a development extra
    except ImportError:
        dumps = _plainly
    return pickle.loads(_octets(server, dumps, ADVICE))


def _plainly(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - raised again, or the better pickler's word goes
        try:
            from pyspark.cloudpickle import dumps  # noqa: PLC0415
        except ImportError:
            if "<locals>" not in str(error):
                raise error from None
            raise TypeError(f"{error} (what is made inside a function needs cloudpickle: pip install it)") from error
        octets: bytes = dumps(value)
        return octets


def _octets(server: Any, dumps: Callable[[Any], bytes], advice: str) -> bytes:
    try:
        return dumps(server)
    except Exception as error:
        culprit = "its class"
        for name, value in vars(server).items():
            try:
                dumps(value)
            except Exception:  # noqa: BLE001 - any failure to pickle makes it the culprit
                culprit = f"its attribute {name!r} (a {type(value).__module__}.{type(value).__qualname__})"
                break
        raise NotSerializable(
            f"{type(server).__qualname__} cannot be shipped to the executors because {culprit} cannot be pickled: "
            f"{error}. {advice}"
        ) from error


def packed(value: Any) -> bytes:
    """What a task returns, as octets; raises whatever the pickler does."""
    from pyspark.cloudpickle import dumps  # noqa: PLC0415

    octets: bytes = dumps(value)
    return octets


def unpacked(octets: bytes) -> Any:
    """What ``packed`` has made; on the driver, of what its own tasks return."""
    return pickle.loads(octets)
