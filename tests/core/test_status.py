"""What is known of a message that was received, under mpi4py's names."""

from __future__ import annotations

import pickle

import pytest

from spark_partition_server.core import datatypes
from spark_partition_server.core.status import ANY_SOURCE, ANY_TAG, SUCCESS, UNDEFINED, Status


def test_a_new_status_says_nothing():
    """As mpi4py's: any source, any tag, no octets, no error."""
    status = Status()
    assert (status.source, status.tag, status.error) == (ANY_SOURCE, ANY_TAG, SUCCESS)
    assert (status.count, status.cancelled) == (0, False)
    assert status.Get_count(datatypes.DOUBLE) == 0


def test_everything_can_be_set_and_asked_by_method_and_by_property():
    """Both spellings are in use."""
    status = Status()
    status.Set_source(3)
    status.Set_tag(4)
    status.Set_error(15)
    status.Set_elements(datatypes.INT, 5)
    status.Set_cancelled(True)
    assert (status.Get_source(), status.Get_tag(), status.Get_error()) == (3, 4, 15)
    assert (status.source, status.tag, status.error, status.count, status.cancelled) == (3, 4, 15, 20, True)
    assert status.Is_cancelled() is True
    assert repr(status) == "<Status source=3 tag=4 count=20 error=15, cancelled>"
    status.source, status.tag, status.error, status.count, status.cancelled = 1, 2, 0, 7, False
    assert (status.Get_source(), status.Get_tag(), status.Get_error(), status.Get_count()) == (1, 2, 0, 7)
    assert repr(status) == "<Status source=1 tag=2 count=7 error=0>"


@pytest.mark.parametrize(
    ("octets", "datatype", "count", "elements"),
    [
        (24, datatypes.BYTE, 24, 24),
        (24, datatypes.DOUBLE, 3, 3),
        (25, datatypes.DOUBLE, UNDEFINED, UNDEFINED),
        (24, datatypes.DOUBLE_INT, 2, 2),
        (20, datatypes.DOUBLE_INT, UNDEFINED, UNDEFINED),
        (8, datatypes.DATATYPE_NULL, UNDEFINED, UNDEFINED),
        (0, datatypes.INT, 0, 0),
    ],
)
def test_octets_are_counted_in_items(octets, datatype, count, elements):
    """A part of an item is no item: UNDEFINED rather than a number that is too small."""
    status = Status()
    status.count = octets
    assert (status.Get_count(datatype), status.Get_elements(datatype)) == (count, elements)


def test_a_status_is_copied_compared_and_pickled():
    """And cannot be a key, for it changes."""
    status = Status()
    status.source, status.count = 3, 8
    for other in (Status(status), pickle.loads(pickle.dumps(status))):
        assert other == status
    other.tag = 1
    assert other != status
    assert status != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(status)
