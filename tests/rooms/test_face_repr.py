"""How clients show themselves, in a notebook or a log."""

from __future__ import annotations

import re


def test_a_client_shows_whom_it_calls_and_whether_it_can(cluster, face):
    """Before it has asked, with a view, and closed: the coordinator's address, and nothing that is secret."""
    name = "aio.Client" if face.asynchronous else "client.Client"
    where = re.escape(f"<{name} of {cluster.coordinator.get_url()}: ")
    assert re.fullmatch(where + "the coordinator has not been asked yet>", repr(face.client))
    face.call(1, "rank")
    assert re.fullmatch(where + r"3 of 3 partitions served in view \d+>", repr(face.client))
    face.close()
    assert re.fullmatch(where + "closed>", repr(face.client))
    assert cluster.coordinator.run_id.hex() not in repr(face.client)
