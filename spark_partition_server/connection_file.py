"""The connection file: all a client in another process needs, readable by its owner only."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import AuthenticationError, ClusterClosed
from .wire.codec import RUN_ID_BYTES, VERSION

__all__ = ["Connection", "admin_file", "read", "remove", "write"]

ADMIN = "admin.json"


@dataclass(frozen=True)
class Connection:
    """Where a cluster is.

    Attributes:
        coordinator: the coordinator's endpoint.
        run_id: names the run in every message.
        admin: whoever knows it may stop the cluster; None in the file that clients are given.
    """

    coordinator: str
    run_id: bytes
    admin: bytes | None = None


def write(connection: Connection) -> Path:
    """Writes the file (mode 0600) into a new folder (mode 0700) and returns its path.

    What stops the cluster is written to a file of its own beside it, ``admin.json``, so that the first can be given to
    clients that may not.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"spark-partition-server-{os.getpid()}-"))
    path = folder / "cluster.json"
    fields = {"version": VERSION, "coordinator": connection.coordinator, "run_id": connection.run_id.hex()}
    try:
        _write(path, fields)
        if connection.admin is not None:
            _write(folder / ADMIN, {**fields, "admin": connection.admin.hex()})
    except OSError:
        remove(path)
        raise
    return path


def admin_file(path: str | os.PathLike[str]) -> Path:
    """Where the file that may stop the cluster is, beside the one at ``path``."""
    return Path(path).with_name(ADMIN)


def _write(path: Path, fields: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(fields, file)
        file.write("\n")


def remove(path: Path) -> None:
    """Removes what ``write`` has made. Twice is harmless."""
    shutil.rmtree(path.parent, ignore_errors=True)


def read(path: str | os.PathLike[str]) -> Connection:
    """Reads a connection file.

    Raises:
        ClusterClosed: there is none: the cluster has stopped, or never started.
        AuthenticationError: somebody else owns it, or others may read it, so it may not be what it seems.
        ValueError: it is no connection file.
    """
    try:
        file = open(path, "rb", opener=_no_link)  # noqa: SIM115 - its errors are told apart first
    except FileNotFoundError:
        text = f"there is no connection file {os.fspath(path)!r}: has the cluster stopped, or is the path wrong?"
        raise ClusterClosed(text) from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise AuthenticationError(f"{os.fspath(path)!r} is a link; give the path of the file itself") from None
    with file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.getuid(), 0):
            raise AuthenticationError(f"{os.fspath(path)!r} belongs to user {status.st_uid}, not to this one")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise AuthenticationError(f"{os.fspath(path)!r} can be read by others; it must have mode 0600")
        octets = file.read(65536)
    try:
        fields = json.loads(octets)
        run_id = bytes.fromhex(fields["run_id"])
        coordinator = fields["coordinator"]
        admin = bytes.fromhex(fields["admin"]) if "admin" in fields else None
        if fields["version"] != VERSION or len(run_id) != RUN_ID_BYTES or not isinstance(coordinator, str):
            raise ValueError("a field is wrong")
    except KeyError as error:
        raise ValueError(f"{os.fspath(path)!r} is no connection file of this version: it lacks {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} is no connection file of this version: {error}") from error
    return Connection(coordinator, run_id, admin)


def _no_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW)
