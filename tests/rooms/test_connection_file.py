"""The connection file: for its owner only, and believed only when nobody else can have written it."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spark_partition_server import connect, connection_file
from spark_partition_server.connection_file import Connection
from spark_partition_server.errors import AuthenticationError, ClusterClosed
from spark_partition_server.testing import local_cluster
from spark_partition_server.wire.codec import VERSION

WRITTEN = Connection("tcp://127.0.0.1:4242", b"run-----")


@pytest.fixture
def path() -> Iterator[Path]:
    made = connection_file.write(WRITTEN)
    yield made
    connection_file.remove(made)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_can_be_read(path):
    """By path or by text; the file is plain JSON."""
    assert connection_file.read(path) == WRITTEN
    assert connection_file.read(str(path)) == WRITTEN
    assert json.loads(path.read_text())["coordinator"] == WRITTEN.coordinator


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_can_reach_it(umask):
    """Whatever the umask: the folder has mode 0700, the file 0600; it is in the temporary folder under a new name."""
    before = os.umask(umask)
    try:
        path, other = connection_file.write(WRITTEN), connection_file.write(WRITTEN)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert path.parent.parent == Path(tempfile.gettempdir())
    assert path != other
    for made in (path, other):
        connection_file.remove(made)
        assert not made.parent.exists()


def test_remove_is_harmless_twice(path):
    """A cluster may be stopped twice."""
    connection_file.remove(path)
    connection_file.remove(path)
    assert not path.exists()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o602, 0o620, 0o601, 0o777])
def test_a_file_that_others_may_read_or_write_is_refused(path, bits):
    """It may hold what somebody else has put there."""
    path.chmod(bits)
    with pytest.raises(AuthenticationError, match="mode 0600"):
        connection_file.read(path)


def test_a_file_of_somebody_else_is_refused(path, monkeypatch):
    """Its owner could lead a client to a server of his."""
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1000)
    if owner == 0:  # the administrator's files are believed by everybody
        os.chown(path, 4242, -1)
        owner = 4242
    with pytest.raises(AuthenticationError, match=f"belongs to user {owner}"):
        connection_file.read(path)


def test_a_link_is_refused(path, tmp_path):
    """It may lead to a file that its maker cannot read himself."""
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with pytest.raises(AuthenticationError, match="link"):
        connection_file.read(link)


def test_a_missing_file_means_a_cluster_that_has_stopped(path, tmp_path):
    """The path is in the text; so is the question."""
    for missing in (tmp_path / "nothing.json", tmp_path / "no folder" / "cluster.json"):
        with pytest.raises(ClusterClosed, match="has the cluster stopped") as caught:
            connection_file.read(missing)
        assert str(missing) in str(caught.value)
    connection_file.remove(path)
    with pytest.raises(ClusterClosed):
        connect(path)


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "7", '"x"', "{}", '{"coordinator": "tcp://h:1"}', "\x00" * 100, "[" * 100_000,
], ids=lambda text: repr(text)[:20])  # fmt: skip
def test_a_file_of_something_else_is_a_value_error(path, text):
    """The text names the file."""
    path.write_text(text)
    with pytest.raises(ValueError, match="is no connection file of this version") as caught:
        connection_file.read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_a_value_error(path):
    """Octets that are no UTF-8."""
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ValueError, match="is no connection file of this version"):
        connection_file.read(path)


@pytest.mark.parametrize("change", [
    {"version": VERSION + 1}, {"version": None}, {"run_id": "00"}, {"run_id": 7}, {"run_id": "zz" * 8},
    {"coordinator": None}, {"coordinator": 7},
], ids=str)  # fmt: skip
def test_a_field_that_is_wrong_is_a_value_error(path, change: dict[str, Any]):
    """A later version's file, or one that was changed by hand."""
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="is no connection file of this version"):
        connection_file.read(path)


def test_later_versions_may_add_fields(path):
    """What is not known is passed over."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": [1]}))
    assert connection_file.read(path) == WRITTEN


def test_a_folder_is_no_connection_file(tmp_path):
    """The path of the folder instead of the file in it."""
    tmp_path.chmod(0o700)
    with pytest.raises((OSError, ValueError)):
        connection_file.read(tmp_path)


def test_the_file_lives_as_long_as_the_cluster():
    """No token is in it: whoever has it can call, and cannot become a server."""
    from spark_partition_server import QueryServer

    with local_cluster(QueryServer(), [[]]) as cluster:
        path = Path(cluster.connection_file)
        assert connection_file.read(path) == Connection(cluster.coordinator.get_url(), cluster.coordinator.run_id)
        assert cluster.coordinator.token.hex() not in path.read_text()
    assert not path.parent.exists()
