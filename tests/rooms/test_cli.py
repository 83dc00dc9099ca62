"""The command line, on a running cluster, in this process and in one of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.probe import Probe
from support.wait import wait_until

from spark_partition_server import connection_file, stable_hash
from spark_partition_server.cli import main
from spark_partition_server.testing import local_cluster

SECONDS = "20"


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    output = io.StringIO()
    return main([*arguments, "--timeout", SECONDS], output), output.getvalue()


def test_status_shows_every_partition(cluster):
    """A table for people, and the same as JSON."""
    code, text = run("status", cluster.connection_file)
    lines = text.splitlines()
    assert (code, lines[-1]) == (0, "3 of 3 partitions are served")
    assert lines[0].split()[:4] == ["partition", "state", "server", "attempt"]
    assert [line.split()[:2] for line in lines[1:4]] == [[str(rank), "serving"] for rank in range(3)]
    code, text = run("status", cluster.connection_file, "--json")
    told = json.loads(text)
    assert (code, told["partitions"], told["serving"]) == (0, 3, 3)
    assert [server["partition"] for server in told["servers"]] == [0, 1, 2]


def test_status_of_an_incomplete_cluster_is_a_failure(cluster):
    """Provoked: one partition is not served any more. The exit code is what a health check looks at."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts, 20.0, "the server to leave")
    code, text = run("status", cluster.connection_file)
    assert (code, text.splitlines()[-1]) == (1, "2 of 3 partitions are served")
    assert text.splitlines()[2].split()[:2] == ["1", "missing"]


def test_call_prints_the_result(cluster):
    """Arguments are JSON where they can be, and text where not."""
    assert run("call", cluster.connection_file, "0", "get", "a") == (0, "1\n")
    arguments = ("7", "[1, 2]", "alice", "--named", "key=null", "--json")
    code, text = run("call", cluster.connection_file, "1", "echo", *arguments)
    assert (code, json.loads(text)) == (0, [[7, [1, 2], "alice"], {"key": None}])
    code, text = run("call", cluster.connection_file, "all", "rank", "--json")
    assert (code, json.loads(text)) == (0, [0, 1, 2])


def test_call_finds_the_partition_of_a_key():
    """By the partitioner of the data; a number is a key of another kind than its digits."""
    keys = ["alice", "7", 7]
    pairs = [[(key, f"{key!r}") for key in keys if stable_hash(key) % 2 == rank] for rank in range(2)]
    with local_cluster(Probe(), pairs, partitioner=stable_hash) as made:
        assert made.connection_file is not None
        for text, value in (("alice", "'alice'"), ('"7"', "'7'"), ("7", "7")):
            assert run("call", made.connection_file, f"key={text}", "get", text) == (0, f"{value}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "get", "a"), "InvalidArguments"),
        (("0", "nothing"), "MethodNotFound"),
        (("0", "fail", "on purpose"), "HandlerError"),
    ],
)
def test_a_call_that_fails_says_why_in_one_line(cluster, capsys, arguments, said):
    """No traceback of ours: the error's name and text, and the exit code 1."""
    assert run("call", cluster.connection_file, *arguments) == (1, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"spark-partition-server: {said}: ")


def test_ping_measures_every_server(cluster):
    """In microseconds; one partition alone too."""
    code, text = run("ping", cluster.connection_file, "--json")
    assert (code, [one["partition"] for one in json.loads(text)]) == (0, [0, 1, 2])
    assert all(one["min_us"] <= one["p50_us"] <= one["max_us"] for one in json.loads(text))
    code, text = run("ping", cluster.connection_file, "2")
    assert (code, text.splitlines()[1].split()[0]) == (0, "2")


def test_ping_of_a_partition_that_nobody_serves(cluster, capsys):
    """One line that says so, and the exit code of a failure."""
    assert run("ping", cluster.connection_file, "7") == (1, "")
    assert "nobody serves partition 7" in capsys.readouterr().err


def test_stop_stops_the_cluster(cluster):
    """Servers, coordinator and files are gone when the command returns."""
    path = Path(cluster.connection_file)
    assert run("stop", str(path), "--reason", "maintenance") == (0, "stopped\n")
    wait_until(lambda: not path.parent.exists(), 20.0, "the files to be removed")
    assert cluster.coordinator is None


def test_the_file_for_clients_alone_cannot_stop_the_cluster(cluster, tmp_path, capsys):
    """Provoked: only the connection file was handed on, or its neighbour holds another token."""
    given = tmp_path / "cluster.json"
    shutil.copy(cluster.connection_file, given)
    given.chmod(0o600)
    assert run("stop", str(given))[0] == 1
    said = capsys.readouterr().err
    assert "is for clients" in said
    assert "admin.json, which the driver wrote beside its own; it is not here" in said
    assert "ClusterClosed" not in said
    known = json.loads(given.read_text())
    connection_file.admin_file(given).write_text(json.dumps({**known, "admin": "00" * 32}))
    connection_file.admin_file(given).chmod(0o600)
    assert run("stop", str(given))[0] == 1
    assert "AuthenticationError" in capsys.readouterr().err
    assert run("status", cluster.connection_file)[0] == 0


def test_a_cluster_that_has_gone(cluster, tmp_path, capsys):
    """Provoked: the driver was killed, so its files are still there, and nobody listens any more."""
    for source in (Path(cluster.connection_file), connection_file.admin_file(cluster.connection_file)):
        shutil.copy(source, tmp_path / source.name)
        (tmp_path / source.name).chmod(0o600)
    cluster.stop()
    for command in (("status",), ("call", "0", "get", "a"), ("ping",), ("stop",)):
        assert run(command[0], str(tmp_path / "cluster.json"), *command[1:])[0] == 1
        assert "CoordinatorLost" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["status"], "required: FILE"),
        (["call", "F", "x", "get"], "a number, all, or key=KEY is wanted, not 'x'"),
        (["call", "F", "0", "get", "--named", "x"], "NAME=VALUE is wanted, not 'x'"),
        (["ping", "F", "--timeout", "0"], "a number of seconds above 0 is wanted, not '0'"),
        (["ping", "F", "--timeout", "soon"], "a number of seconds above 0 is wanted, not 'soon'"),
        (["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_a_wrong_command_line_is_told_apart_from_a_failure(wrong, text, capsys):
    """Exit code 2, as everywhere, and what was wanted in the place of what was given."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "usage: spark-partition-server" in told
    assert text in told


def test_a_reader_that_has_seen_enough_is_no_error_worth_a_word(cluster):
    """Provoked: the reading end of the pipe is closed before anything is printed, as ``| head`` may do."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "spark_partition_server", "status", cluster.connection_file, "--timeout", SECONDS]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_as_a_module_without_pyspark(cluster):
    """``python -m spark_partition_server`` on a machine that has no Spark."""
    program = (
        "import sys, runpy; sys.modules['pyspark'] = None; sys.argv[0] = 'sps';"
        "runpy.run_module('spark_partition_server', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "call", cluster.connection_file, "0", "get", "a"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
