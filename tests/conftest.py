"""What every test needs: the folder of the test helpers on the path, and one Hypothesis profile."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = str(Path(__file__).parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

# No deadline and no judgement of speed: machines are shared. Every run draws new examples, and a failure prints the
# blob that draws the same one again.
settings.register_profile(
    "ci", deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")

ON_SPARK = ("/tests/spark/", "/tests/compat/test_original_readme")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs Spark. pyspark 3.5 leaves its own sockets to the garbage collector, which warns of each."""
    before_4 = metadata.version("pyspark").startswith("3.")
    for item in items:
        if any(folder in str(item.path) for folder in ON_SPARK):
            item.add_marker(pytest.mark.spark)
            if before_4:
                item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
