"""The text of a failed Spark job, as a user reads it: the reason, without the JVM's frames."""

from __future__ import annotations

from spark_partition_server.spark.job import _summary

FRAMES = "\n\tat org.apache.spark.api.python.PythonRunner.read(PythonRunner.scala:1642)"
PYTHON = "An exception was thrown from the Python worker: Traceback (most recent call last):\n  File \"w.py\", line 1\n"


def test_the_reason_of_a_python_error_is_named() -> None:
    """Spark 4 puts a SQLSTATE behind it; Spark 3 does not."""
    for behind in ("\n SQLSTATE: 38000", "\n", ""):
        text = _summary(f"{PYTHON}ValueError: bad row 7{behind}{FRAMES}")
        assert text.startswith("An exception was thrown from the Python worker")
        assert text.endswith("ValueError: bad row 7")
        assert "PythonRunner" not in text


def test_an_error_of_the_jvm_is_cut_at_its_frames() -> None:
    """A killed worker has no Python traceback."""
    text = _summary(f"Job aborted due to stage failure: Python worker exited unexpectedly (crashed).{FRAMES}")
    assert text == "Job aborted due to stage failure: Python worker exited unexpectedly (crashed)."


def test_an_error_without_a_text() -> None:
    """There is always something to read."""
    assert _summary("") == "no reason given"
