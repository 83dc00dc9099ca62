"""Ranks in processes of their own, over real sockets: messages, collectives, communicators."""

from __future__ import annotations

import pytest
from support import programs
from support.company import performed

SIZES = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", SIZES)
def test_every_message_and_collective_is_what_its_definition_says(size):
    """Promise: mpi4py's meaning, for any number of ranks and any root. Provoked: small and large, objects and arrays,
    asserted in the ranks themselves."""
    assert performed(size, programs.everything) == list(range(size))


def test_ranks_talk_over_tcp_too():
    """Promise: the same without the lane of one host. Provoked: it is switched off, as between hosts."""
    assert performed(3, programs.everything, local=False) == [0, 1, 2]


def test_ranks_that_all_send_before_they_receive_do_not_block_each_other():
    """Promise: whoever writes reads meanwhile. Provoked: 40 MB from each to each, far more than the kernel holds."""
    assert performed(3, programs.exchanged_at_once) == [3, 2, 1]
