"""``from spark_partition_server import MPI``: mpi4py's names, without numpy and without anything to initialize."""

from __future__ import annotations

import subprocess
import sys

import numpy
import pytest

from spark_partition_server import MPI, CommError, CommRevoked, RankLost


def test_importing_it_loads_neither_numpy_nor_more():
    """A partition server that never computes with arrays pays for none."""
    program = "from spark_partition_server import MPI; import sys; print('numpy' in sys.modules, MPI.SUM(1, 2))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["False", "3"], done.stderr


def test_the_names_mean_what_they_mean():
    """A few of each kind, used."""
    target = numpy.array([1, 5])
    MPI.MAX.Reduce_local([numpy.array([3, 2]), MPI.INT64_T], [target, MPI.LONG])
    assert target.tolist() == [3, 5]
    status = MPI.Status()
    assert (status.Get_source(), status.Get_tag()) == (MPI.ANY_SOURCE, MPI.ANY_TAG)
    assert len({MPI.ANY_SOURCE, MPI.PROC_NULL, MPI.ROOT, MPI.UNDEFINED}) == 4
    assert MPI.THREAD_SINGLE < MPI.THREAD_FUNNELED < MPI.THREAD_SERIALIZED < MPI.THREAD_MULTIPLE == MPI.Query_thread()


def test_what_programs_ask_of_the_library_is_answered():
    """They print it, or check it at their start."""
    assert MPI.Wtime() <= MPI.Wtime()
    assert 0 < MPI.Wtick() < 1
    assert MPI.Is_initialized()
    assert not MPI.Is_finalized()
    assert MPI.Get_version() == (MPI.VERSION, MPI.SUBVERSION)
    assert MPI.Get_library_version().startswith("spark-partition-server ")
    assert 0 < len(MPI.Get_processor_name()) <= MPI.MAX_PROCESSOR_NAME


def test_what_goes_wrong_between_ranks_is_caught_by_mpi4py_s_name():
    """And says by its number what it was."""
    with pytest.raises(MPI.Exception) as caught:
        raise RankLost("rank 3 was lost", (3,))
    assert caught.value.Get_error_class() == caught.value.Get_error_code() == MPI.ERR_PROC_FAILED
    assert caught.value.Get_error_string() == caught.value.error_string == "rank 3 was lost"
    assert CommRevoked("", 1).error_class == MPI.ERR_REVOKED
    assert CommError("").error_code == MPI.ERR_OTHER
