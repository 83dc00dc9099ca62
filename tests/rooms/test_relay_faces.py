"""Calls by way of the coordinator end as direct ones do: the tests of the faces, on clients with ``route="relay"``.

Those that lead a client to a server of the test's own, or cut a server's connections, are about the direct lane.
"""

from __future__ import annotations

import pytest
import test_faces_calls
import test_faces_errors
import test_faces_many
import test_faces_restarts
from support.faces import RELAYED, Face

DIRECT = {
    "test_unavailable_when_the_server_cannot_be_reached",
    "test_a_server_that_breaks_the_protocol",
    "test_a_request_over_the_servers_limit",
    "test_an_idempotent_method_is_repeated_when_its_connection_is_cut",
    "test_call_all_repeats_idempotent_methods_too",
    "test_another_method_is_not_repeated_and_its_outcome_is_unknown",
    "test_a_connection_that_is_lost_by_each_face",
    "test_a_call_without_time_to_connect_says_next_to_nothing_of_its_server",
}

for module in (test_faces_calls, test_faces_errors, test_faces_many, test_faces_restarts):
    for name, found in vars(module).items():
        if name not in DIRECT and (name.startswith("test_") or hasattr(found, "_fixture_function")):
            globals()[name] = found


@pytest.fixture(params=sorted(RELAYED))
def face_type(request: pytest.FixtureRequest) -> type[Face]:
    return RELAYED[request.param]
