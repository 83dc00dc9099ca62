"""What the faces of a client share: the view and its routes, requests and answers, connections, tries.

``client.py`` and ``aio.py`` are the faces. ``answers`` and ``requests`` wait for nothing, so both use them; the rest is
for blocking callers.
"""
