"""The rules of the peer plane: what one rank does with what others say (PROTOCOL.md, sections 8.6 and 8.7).

``Peer`` is one rank in one process; the doors' duties are written there.
"""
